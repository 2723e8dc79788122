"""tests/tools/debpackages.py with an apt and a dpkg that only pretend: what is fetched, kept, and told."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tests" / "tools" / "debpackages.py"

FAKES = {
    "apt-get": """
echo "$@" >> "$LOG"
case "$*" in *update*) touch "$FRESH"; exit 0;; esac
if [ -n "$APT_ERROR" ]; then echo "E: $APT_ERROR" >&2; exit 100; fi
if [ -n "$STALE" ] && [ ! -e "$FRESH" ]; then echo "E: 404 Not Found" >&2; exit 100; fi
case "$*" in *download*) for name in "$@"; do last="$name"; done; echo deb > "${last}_1.2-${BUILD:-1}_amd64.deb";; esac
""",
    "dpkg-deb": """
[ -n "$DPKG_ERROR" ] && echo "dpkg-deb: error: $DPKG_ERROR" >&2 && exit 2
mkdir -p "$3/usr/bin" && touch "$3/usr/bin/${2##*/}"
""",
    "dpkg-query": '[ -n "$INSTALLED" ] && echo "ii " && exit 0\nexit 1\n',
}


class Run:
    """The script with tools and a cache of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.cache, self.tools = directory, directory / "cache", directory / "tools"
        self.tools.mkdir()
        for name, text in FAKES.items():
            (self.tools / name).write_text("#!/bin/sh" + text if text[0] == "\n" else "#!/bin/sh\n" + text)
            (self.tools / name).chmod(0o755)

    def __call__(self, *arguments: str, path: str = ":/usr/bin:/bin", **environment: str):
        environment |= {
            "PATH": f"{self.tools}{path}",
            "WEIGHTLOCK_CACHE": str(self.cache),
            "LOG": str(self.directory / "log"),
            "FRESH": str(self.directory / "fresh"),
        }
        return subprocess.run(
            [sys.executable, SCRIPT, *arguments],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def calls(self) -> list[str]:
        log = self.directory / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_it_fetches_once_and_prints_the_root_last(run):
    first, second, matches = run("tool"), run("tool"), run("--find", "tool")
    root = Path(first.stdout.splitlines()[-1])
    assert (root / "usr" / "bin" / "tool_1.2-1_amd64.deb").exists()
    assert (root / "PACKAGES").read_text() == "tool_1.2-1_amd64.deb\n"
    assert first.stdout == second.stdout == matches.stdout
    assert [done.returncode for done in (first, second, matches)] == [0, 0, 0]
    assert len(run.calls) == 1
    assert not list(run.cache.glob("*tmp*"))


def test_other_versions_have_other_roots(run):
    first = run("tool").stdout
    for pointer in run.cache.glob("*.root"):
        pointer.unlink()
    assert run("tool", BUILD="2").stdout != first
    assert run("tool").stdout != first


def test_empty_or_old_lists_are_fetched_again(run):
    done = run("tool", STALE="yes")
    assert done.returncode == 0
    assert "fetching Debian's" in done.stderr
    assert [("update" in call, "Dir::State::lists=" in call) for call in run.calls] == [
        (False, False),
        (True, True),
        (False, True),
    ]


def test_an_installed_package_is_used_without_a_network(run):
    done = run("tool", APT_ERROR="no network", INSTALLED="yes")
    assert (done.returncode, done.stdout) == (0, "/\n")
    assert (run("--find", "tool", INSTALLED="yes").stdout) == "/\n"


@pytest.mark.parametrize(
    ("environment", "output"),
    [
        (
            {"APT_ERROR": "Unable to locate package tool"},
            "no tool: apt-get download: E: Unable to locate package",
        ),
        (
            {"DPKG_ERROR": "not a Debian archive"},
            "no tool: dpkg-deb -x tool_1.2-1_amd64.deb: dpkg-deb: error: not a",
        ),
    ],
)
def test_an_unavailable_package_is_one_line_and_leaves_no_files(run, environment, output):
    done = run("tool", **environment)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[-1].startswith(output)
    assert not list(run.cache.glob("deb-tool*"))
    assert not list(run.cache.glob("*tmp*"))


def test_a_machine_without_apt(run):
    (run.tools / "apt-get").unlink()
    done = run("tool", path="")
    assert (done.returncode, done.stdout) == (3, "")
    assert "not a Debian machine" in done.stderr


def test_find_fetches_nothing(run):
    done = run("--find", "tool")
    assert (done.returncode, run.calls) == (3, [])
    assert "tests/tools/debpackages.py fetches them" in done.stderr
