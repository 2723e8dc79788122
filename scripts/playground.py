#!/usr/bin/env python3
"""Run a control plane with Weightlock and the samples until Ctrl-C or SIGTERM.

Everything runs as local processes on 127.0.0.1 and is removed at the end. There are no nodes, so pods are stored but
never run. The playground shows admission only.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness import examples, manifests  # noqa: E402 -- needs the path above
from harness.controlplane import ControlPlane  # noqa: E402
from harness.weightlock import Weightlock  # noqa: E402

RESEARCHER = "alice@example.com"


def main() -> int:
    """Run the command. Return 0 after a stop, 1 if a process did not start, 3 without a control plane."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # The playground always uses its own control plane.
    os.environ.pop("WEIGHTLOCK_E2E", None)
    built = subprocess.run(
        [sys.executable, ROOT / "tests" / "tools" / "controlplane.py"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if built.returncode:
        return built.returncode
    try:
        cluster = ControlPlane(Path(built.stdout.strip()))
        try:
            prepare(cluster, stop)
            stop.wait()
            print("\nstopping")
        finally:
            cluster.stop()
    except AssertionError as problem:
        print(f"playground: {problem}", file=sys.stderr)
        return 1
    return 0


def prepare(cluster: ControlPlane, stop: threading.Event) -> None:
    """Start everything, apply the samples and print commands to try. Return early after a stop."""
    weightlock = Weightlock(cluster)
    steps = (
        ("starting etcd, kube-apiserver and kube-controller-manager", cluster.start),
        ("applying CRDs, storage, models and RBAC", lambda: set_up(cluster)),
        ("installing Weightlock", weightlock.install),
        ("requesting and approving access", lambda: examples.grant_access(cluster)),
    )
    for what, step in steps:
        if stop.is_set():
            return
        started = time.monotonic()
        print(f"{what} ...", end="", flush=True)
        step()
        print(f" {time.monotonic() - started:.1f} s", flush=True)
    for sample in examples.samples():
        if stop.is_set():
            return
        show(cluster, sample)
    print_hints(cluster, weightlock)


def set_up(cluster: ControlPlane) -> None:
    """Apply the CRDs and the state that the samples need."""
    cluster.apply(*manifests.crds())
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").ok()
    examples.apply_state(cluster)


def show(cluster: ControlPlane, sample: examples.Sample) -> None:
    """Apply one sample and print kubectl's output."""
    result = examples.apply_sample(cluster, sample)
    print(f"\n$ kubectl apply -f {sample.file.relative_to(ROOT)}   # as {sample.user}")
    print((result.stdout + result.stderr).strip(), flush=True)


def print_hints(cluster: ControlPlane, weightlock: Weightlock) -> None:
    """Print how to reach the cluster and commands to try."""
    researcher = cluster.directory / "alice.kubeconfig"
    researcher.write_bytes(cluster.kubeconfig(RESEARCHER).read_bytes())
    path = f"{cluster.programs['kubectl'].parent}:{Path(sys.executable).parent}"
    print(
        f"""
The playground is ready. In another terminal:

  export PATH={shlex.quote(path)}:$PATH
  export KUBECONFIG={shlex.quote(str(cluster.kubeconfig()))}   # the cluster admin

  kubectl get modelweights,accessrequests,accessapprovals
  kubectl get pods -A
  kubectl -n research get pod evals -o yaml       # has the key sidecar

  export KUBECONFIG={shlex.quote(str(researcher))}   # {RESEARCHER}, a researcher

  kubectl apply -f examples/samples/02-weights-without-grant.yaml
  kubectl -n research auth whoami

Weightlock's log: {weightlock.log}
The API server's audit log: {cluster.audit_log}

Ctrl-C stops and removes everything.""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
