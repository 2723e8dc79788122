"""The command line as a whole: exit codes, completion, the kubectl plug-in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from webhook.app.errors import ExitCode, IncompleteError, UsageError
from webhook.cli import doctor
from webhook.cli.main import _COMMANDS, main


@pytest.mark.parametrize(
    ("outcome", "code", "line"),
    [
        (ExitCode.SUCCESS, 0, ""),
        (ExitCode.VERDICT, 1, ""),
        (UsageError("no such file"), 2, "weightlock doctor: no such file"),
        (
            IncompleteError("the API server cannot be reached"),
            3,
            "weightlock doctor: the API server cannot be reached",
        ),
        (RuntimeError("secret"), 3, "weightlock doctor: internal error (RuntimeError)"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_exit_code_has_one_meaning(monkeypatch, capsys, outcome, code, line):
    def run(_):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(doctor, "run", run)
    assert main(["doctor"]) == code
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert "Traceback" not in error
    assert "secret" not in error


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_every_command_rejects_an_unknown_option_as_usage(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--no-such-option"])
    assert exit_.value.code == ExitCode.USAGE
    assert "usage: weightlock" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_names_both_programs(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "kubectl-weightlock" in script


@pytest.mark.parametrize(
    ("line", "candidates"),
    [("weightlock acc", {"access"}), ("weightlock access re", {"request", "revoke", "retain"})],
)
def test_a_shell_completes_commands_and_their_actions(line, candidates, tmp_path):
    answer = tmp_path / "candidates"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "webhook.cli.main"], env=environment, check=False, timeout=60)
    assert {word.strip() for word in answer.read_text().split("\n")} == candidates


def test_the_kubectl_plug_in_names_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kubectl-weightlock"])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.startswith("usage: kubectl weightlock")


def test_the_kubectl_plug_in_is_installed():
    assert (Path(sys.executable).parent / "kubectl-weightlock").exists()
