"""tests/tools/controlplane.py with a fake `go`: its cache, its output and its leftovers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.waiting import slowness

SCRIPT = Path(__file__).resolve().parents[3] / "tests" / "tools" / "controlplane.py"
PROGRAMS = {"etcd", "helm", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"}

FAKE_GO = """#!/bin/sh
[ "$1" = version ] && echo "go version ${FAKE_VERSION:-go1.99.0} linux/amd64" && exit 0
echo "$1" >> "$FAKE_LOG"
if [ "$1" = list ]; then
  echo "go: downloading k8s.io/kubernetes v1.37.2" >&2
  [ -n "$FAKE_LIST_ERROR" ] && echo "$FAKE_LIST_ERROR" >&2 && exit 1
  echo some/package
  exit 0
fi
[ -n "$FAKE_BUILD_ERROR" ] && echo "$FAKE_BUILD_ERROR" >&2 && exit 1
sleep "${FAKE_SECONDS:-0}"
while [ "$1" != -o ]; do shift; done
for name in server helm kube-apiserver kube-controller-manager kube-scheduler kubectl; do
  printf '#!/bin/sh\\necho "Kubernetes %s"\\n' "${FAKE_KUBERNETES:-v1.37.2}" > "$2$name"
  chmod +x "$2$name"
done
"""


class Run:
    """The script with a cache and a `go` of its own."""

    def __init__(self, directory: Path) -> None:
        self.cache = directory / "cache"
        self.log = directory / "go.log"
        tools = directory / "tools"
        tools.mkdir()
        (tools / "go").write_text(FAKE_GO)
        (tools / "go").chmod(0o755)
        path = f"{tools}:/usr/bin:/bin"
        self.environment = {"PATH": path, "WEIGHTLOCK_CACHE": str(self.cache), "FAKE_LOG": str(self.log)}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, SCRIPT, *arguments],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=60)
            return process.returncode, out, err

    def builds(self) -> int:
        return self.log.read_text().split().count("build") if self.log.exists() else 0

    def entries(self) -> set[str]:
        return {path.name for path in self.cache.iterdir() if path.is_dir()} if self.cache.exists() else set()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_it_builds_once_and_then_only_says_where(run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    directory = Path(out.strip())
    assert {file.name for file in directory.iterdir()} == PROGRAMS
    assert run() == (0, out, "")
    assert run("--find") == (0, out, "")
    assert run.builds() == 1


def test_of_two_runs_at_once_one_builds_and_both_succeed(run: Run) -> None:
    with run.start(FAKE_SECONDS="1") as first, run.start(FAKE_SECONDS="1") as second:
        answers = {process.communicate(timeout=60)[0] for process in (first, second)}
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(answers) == 1
    assert run.builds() == 1


def test_find_does_not_build(run: Run) -> None:
    code, out, err = run("--find")
    assert (code, out) == (3, "")
    assert "not built yet: run tests/tools/controlplane.py" in err
    assert run.builds() == 0


def test_a_proxy_out_of_reach_is_a_reason_that_find_repeats(run: Run) -> None:
    error = "helm.sh/helm/v4: dial tcp: lookup proxy: no such host"
    code, _, err = run(FAKE_LIST_ERROR=error)
    assert code == 3
    assert error in err
    code, _, err = run("--find")
    assert (code, err) == (
        3,
        f"no control plane: the Go module proxy did not give the sources of Kubernetes: {error}\n",
    )
    assert run()[0] == 0
    assert run("--find")[0] == 0


@pytest.mark.parametrize(
    ("environment", "code", "reason"),
    [
        ({"FAKE_LIST_ERROR": "verifying helm.sh/helm/v4: checksum mismatch"}, 1, "not what go.sum says"),
        ({"FAKE_BUILD_ERROR": "x.go:1:2: undefined: y"}, 1, "undefined: y"),
        ({"FAKE_BUILD_ERROR": "compile: signal: killed"}, 3, "too little memory or disk"),
        ({"FAKE_KUBERNETES": "v0.0.0"}, 1, "says 'Kubernetes v0.0.0'"),
        ({"KUBEBUILDER_ASSETS": "/nonexistent"}, 1, "has no etcd, kube-apiserver, kubectl"),
        ({"WEIGHTLOCK_E2E": "moon"}, 1, "use existing or kind"),
        ({"WEIGHTLOCK_E2E": "kind"}, 3, "on PATH"),
    ],
)
def test_each_failure_has_its_code_and_reason(
    run: Run, environment: dict[str, str], code: int, reason: str
) -> None:
    seen, out, err = run(**environment)
    assert (seen, out) == (code, "")
    assert reason in err.splitlines()[-1]
    assert run.entries() == set()


def test_an_old_toolchain_without_pip_or_index_is_a_reason(run: Run) -> None:
    nowhere = {
        "PIP_INDEX_URL": "https://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    code, _, err = run(FAKE_VERSION="go1.20", **nowhere)
    assert code == 3
    assert "no Go toolchain" in err.splitlines()[-1]
    assert run.entries() == set()


def test_ready_made_programs_are_used_as_they_are(run: Run, tmp_path: Path) -> None:
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (tmp_path / name).touch(mode=0o755)
    assert run(KUBEBUILDER_ASSETS=str(tmp_path)) == (0, f"{tmp_path}\n", "")
    assert run.builds() == 0


def test_an_interrupted_build_leaves_nothing_and_ends_its_processes(run: Run) -> None:
    with run.start(FAKE_SECONDS="60") as process:
        deadline = time.monotonic() + 30 * slowness()
        while not run.builds() and time.monotonic() < deadline:
            time.sleep(0.05)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - started < 20 * slowness(), "the build was waited for instead of ended"
    assert run.entries() == set()
    assert run()[0] == 0


def test_the_next_build_removes_leftovers_of_a_killed_one(run: Run) -> None:
    assert run()[0] == 0
    (built,) = run.entries()
    stale = run.cache / f"{built}.tmp-old"
    (run.cache / built).rename(stale)
    assert run()[0] == 0
    assert run.entries() == {built}
    assert os.access(run.cache / built / "etcd", os.X_OK)
