#!/usr/bin/env python3
"""Run a cluster of one real node with Weightlock and sealed sample weights until Ctrl-C or SIGTERM.

Everything runs in namespaces of its own and is removed at the end. There is no Docker: containerd runs the pods, and
the image is built from this tree. The cluster is ready for the steps of docs/quickstart.md.
"""

import argparse
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for place in ("tests/e2e", "tests/tools"):
    sys.path.insert(0, str(ROOT / place))

from harness.node.outside import Node, NoNodeError, find_parts  # noqa: E402 -- needs the path above
from harness.node.sample import apply_sample, install  # noqa: E402

ALTERNATIVE = "Use a cluster with kind instead: docs/quickstart.md"
EXIT_UNAVAILABLE = 3


def main() -> int:
    """Run the command. Return 0 after a stop, 1 if a part did not start, 3 if this machine cannot run a node."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--empty", action="store_true", help="do not install Weightlock")
    options = arguments.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        parts = find_parts(build=True)
    except NoNodeError:
        # The tool has printed the reason.
        print(ALTERNATIVE, file=sys.stderr)
        return EXIT_UNAVAILABLE
    if stop.is_set():
        return 0
    node = Node(parts)
    try:
        prepare(node, stop, empty=options.empty)
        stop.wait()
        print("\nstopping")
    except AssertionError as problem:
        if not stop.is_set():
            print(f"cluster: {problem}", file=sys.stderr)
            return 1
    finally:
        node.stop()
    return 0


def prepare(node: Node, stop: threading.Event, *, empty: bool) -> None:
    """Start everything and print what to type next. Return early after a stop."""
    steps: list[tuple[str, Callable[[], object]]] = [("starting the control plane and the node", node.start)]
    if not empty:
        steps += [
            ("installing Weightlock with Helm", lambda: install(node)),
            ("sealing the sample weights", lambda: apply_sample(node)),
        ]
    for what, step in steps:
        if stop.is_set():
            return
        started = time.monotonic()
        print(f"{what} ...", end="", flush=True)
        step()
        print(f" {time.monotonic() - started:.1f} s", flush=True)
    path = f"{node.programs['kubectl'].parent}:{Path(sys.executable).parent}"
    if not empty:
        print("Weightlock is installed.")
    print(
        f"""
In another terminal, in this directory:

  export PATH={shlex.quote(path)}:$PATH
  export KUBECONFIG={shlex.quote(str(node.kubeconfig()))}

  kubectl get nodes,pods -A

Then continue with docs/quickstart.md. Ctrl-C stops and removes everything.""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
