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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for place in ("tests/e2e", "tests/tools"):
    sys.path.insert(0, str(ROOT / place))

from typing import TYPE_CHECKING

from harness.node import sample  # noqa: E402 -- needs the path above
from harness.node.outside import Node, NoNodeError, find_parts  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

ALTERNATIVE = "Use a cluster with kind instead: docs/quickstart.md"
EXIT_UNAVAILABLE = 3


def main() -> int:
    """Run the command. Return 0 after a stop, 1 if a part did not start, 3 if this machine cannot run a node."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--empty", action="store_true", help="do not install Weightlock")
    arguments.add_argument(
        "--vault", action="store_true", help="wrap keys with a Vault over https, in production mode"
    )
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
        prepare(node, stop, options)
        stop.wait()
        print("\nstopping")
    except AssertionError as problem:
        if not stop.is_set():
            print(f"cluster: {problem}", file=sys.stderr)
            return 1
    finally:
        node.stop()
    return 0


def prepare(node: Node, stop: threading.Event, options: argparse.Namespace) -> None:
    """Start everything and print what to type next. Return early after a stop."""
    kms: list[sample.Kms] = []
    steps: list[tuple[str, Callable[[], object]]] = [("starting the control plane and the node", node.start)]
    if not options.empty:
        make = sample.vault if options.vault else sample.keyset
        steps += [
            ("preparing the KMS", lambda: kms.append(make(node))),
            ("installing Weightlock with Helm", lambda: sample.install(node, kms=kms[0])),
            ("sealing the sample weights", lambda: sample.apply_sample(node, kms[0])),
        ]
    for what, step in steps:
        if stop.is_set():
            return
        started = time.monotonic()
        print(f"{what} ...", end="", flush=True)
        step()
        print(f" {time.monotonic() - started:.1f} s", flush=True)
    path = f"{node.programs['kubectl'].parent}:{Path(sys.executable).parent}"
    if not options.empty:
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
