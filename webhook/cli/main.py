"""``weightlock``: finds the command, parses its arguments, runs it; bad input becomes one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING, Any

from webhook.app.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Each command's module is imported only when it is asked for, so that a review does not wait for a web server.
_COMMANDS = {
    "access": "ask for access to weights, decide on requests, see where they stand",
    "agent": "the key sidecar of a pod",
    "audit": "read, verify and prove the audit log",
    "broker": "the key broker of a cluster",
    "controller": "statuses, signatures on read-back, and the end of grants",
    "doctor": "examine a cluster, and say what to mend",
    "explain": "which part of which rule decided",
    "policy": "test, lint and export policies",
    "report": "what runs and breaks a rule",
    "review": "the verdict the webhook would give, offline",
    "serve": "the admission webhook",
    "weights": "seal, unseal, inspect, rotate and verify model weights",
}

# The commands that are packages, and the module of each that registers it.
_PACKAGES = {"audit": "audit.commands", "access": "access.commands", "report": "report.command"}


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that costs 4 MB, which a process that runs for months would keep."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"weightlock {version('weightlock')}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 good, 1 a no (a denial, a failed check), 2 bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="weightlock", description="Keeps AI model weights and GPUs in the hands of approved workloads."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in words if not word.startswith("-")), "")
    for name, summary in _COMMANDS.items():
        if name == asked:
            importlib.import_module(f"webhook.cli.{_PACKAGES.get(name, name)}").add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    options = parser.parse_args(words)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except UsageError as error:
        print(f"weightlock {asked}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


if __name__ == "__main__":
    sys.exit(main())
