"""How the doctor's findings are printed, and which exit code they make."""

import json

import pytest

from webhook.cli.doctor import rendered
from webhook.cli.main import main
from webhook.cluster.doctor import run as module
from webhook.cluster.doctor.installation_view import CheckResult
from webhook.cluster.doctor.run import Row

ROWS = [
    Row("kubernetes", CheckResult("ok", "v1.37.2")),
    Row("guard", CheckResult("warn", "no policy\nguards it", "helm upgrade …")),
    Row("nodes", CheckResult("skipped", "not allowed to list nodes")),
]
FAILED = Row("leader", CheckResult("fail", "no controller is the leader", "kubectl logs"))


@pytest.fixture
def found(monkeypatch):
    """Sets what the examination finds."""

    def find(rows):
        async def examine(*arguments):
            return rows

        monkeypatch.setattr(module, "examine", examine)

    return find


def test_a_table_is_followed_by_fixes_and_a_count():
    assert rendered([*ROWS, FAILED], coloured=False) == (
        "CHECK        RESULT    WHAT\n"
        "kubernetes   ok        v1.37.2\n"
        "guard        warn      no policy guards it\n"
        "nodes        skipped   not allowed to list nodes\n"
        "leader       fail      no controller is the leader\n\n"
        "To fix:\n"
        "  guard: no policy guards it\n"
        "      helm upgrade …\n"
        "  leader: no controller is the leader\n"
        "      kubectl logs\n\n"
        "doctor: 1 ok, 1 warn, 1 fail, 1 skipped"
    )


def test_colours_only_where_they_are_wanted():
    assert "leader \033[31mfail\033[0m no" in " ".join(rendered([FAILED], coloured=True).split())
    assert "\033" not in rendered([FAILED], coloured=False)


@pytest.mark.parametrize(("rows", "code"), [(ROWS, 0), ([*ROWS, FAILED], 1)])
def test_the_exit_code_says_whether_anything_failed(found, capsys, rows, code):
    found(rows)
    assert main(["doctor"]) == code
    assert capsys.readouterr().out.startswith("CHECK ")


def test_json(found, capsys):
    found([FAILED])
    assert main(["doctor", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"check": "leader", "result": "fail", "what": "no controller is the leader", "fix": "kubectl logs"}
    ]


def test_bad_input_is_one_line(capsys, tmp_path):
    assert main(["doctor", "--timeout", "0"]) == 2
    assert main(["doctor", "--kubeconfig", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "weightlock doctor: --timeout must be between 0 and 300 seconds",
        f"weightlock doctor: {tmp_path}/none: no such file",
    ]
