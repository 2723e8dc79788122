#!/usr/bin/env python3
"""Run a cluster of one real node, or two, with Weightlock and sealed sample weights until Ctrl-C or SIGTERM.

Everything runs in namespaces of its own and is removed at the end. There is no Docker: containerd runs the pods, and
the image is built from this tree. The cluster is ready for the steps of docs/quickstart.md.
"""

import argparse
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

ROOT = Path(__file__).resolve().parent.parent
for place in ("tests/e2e", "tests/tools"):
    sys.path.insert(0, str(ROOT / place))

from harness.node import sample  # noqa: E402 -- needs the path above
from harness.node.outside import Node, NoNodeError, find_parts  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")
ALTERNATIVE = "Use a cluster with kind instead: docs/quickstart.md"
EXIT_UNAVAILABLE = 3
OPTIONAL = {
    "network-policy": "enforce NetworkPolicies (kube-router, 6 minutes to build)",
    "gvisor": "the RuntimeClass gvisor (runsc, 4 minutes to build)",
    "csi": "the CSI driver hostpath.csi.k8s.io with the StorageClass hostpath",
    "two-nodes": "a second node",
}


def interrupt(*_: object) -> None:
    """End the command, also if a shell started it in the background and without Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the command. Return 0 after a stop, 1 if a part did not start, 3 if this machine cannot run a node."""
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        node = Node(find_parts(build=True, optional=options.optional))
    except NoNodeError:
        # The tool has printed the reason.
        print(ALTERNATIVE, file=sys.stderr)
        return EXIT_UNAVAILABLE
    except AssertionError:
        return 1
    except KeyboardInterrupt:
        return 130
    try:
        prepare(node, options)
        signal.pause()
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
    except AssertionError as problem:
        print(f"\ncluster: {problem}", file=sys.stderr)
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        node.stop()
    return 0


def parse() -> argparse.Namespace:
    """Parse the arguments."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--empty", action="store_true", help="do not install Weightlock")
    arguments.add_argument(
        "--vault", action="store_true", help="wrap keys with a Vault over https, in production mode"
    )
    for name, text in OPTIONAL.items():
        arguments.add_argument(f"--{name}", dest="optional", action="append_const", const=name, help=text)
    arguments.set_defaults(optional=[])
    return arguments.parse_args()


def prepare(node: Node, options: argparse.Namespace) -> None:
    """Start everything and print what to type next."""
    step("starting the control plane and the node", node.start)
    if not options.empty:
        make = sample.vault if options.vault else sample.keyset
        kms = step("preparing the KMS", lambda: make(node))
        step("installing Weightlock with Helm", lambda: sample.install(node, kms=kms))
        step("sealing the sample weights", lambda: sample.apply_sample(node, kms))
        print("Weightlock is installed.")
    path = f"{node.programs['kubectl'].parent}:{Path(sys.executable).parent}"
    print(
        f"""
In another terminal, in this directory:

  export PATH={shlex.quote(path)}:$PATH
  export KUBECONFIG={shlex.quote(str(node.kubeconfig()))}

  kubectl get nodes,pods -A

Then continue with docs/quickstart.md. Ctrl-C stops and removes everything.""",
        flush=True,
    )


def step(what: str, action: "Callable[[], Result]") -> "Result":
    """Run one step and print its time."""
    started = time.monotonic()
    print(f"{what} ...", end="", flush=True)
    result = action()
    print(f" {time.monotonic() - started:.1f} s", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
