"""``weightlock``: finds the command, parses its arguments, runs it; bad input becomes one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.app.errors import ExitCode, IncompleteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Each command's module is imported only when it is asked for, so that a review does not wait for a web server.
_COMMANDS = {
    "access": "request access, vote on requests, list grants",
    "agent": "run the key sidecar of a pod",
    "audit": "read, verify and prove the audit log",
    "completion": "print the completion script of a shell",
    "broker": "run the key broker",
    "controller": "run the controller",
    "detections": "test and export detection rules, or evaluate them on a log",
    "doctor": "diagnose an installation and suggest fixes",
    "drill": "try attacks on a live cluster by dry run",
    "egress": "show how fast the readers of a model could send it",
    "evidence": "write compliance evidence from the audit log, or recompute it",
    "explain": "explain a verdict expression by expression, or a reason code",
    "image": "verify the signatures of images",
    "policy": "test, lint and export policies",
    "report": "list running workloads that violate policies",
    "review": "print the verdict that the webhook would return, offline",
    "serve": "run the admission webhook",
    "weights": "seal, unseal, inspect, rotate and verify model weights",
}

# The commands that are packages, and the module of each that registers it.
_PACKAGES = {
    "access": "access.commands",
    "agent": "processes.agent",
    "audit": "audit.commands",
    "broker": "processes.broker",
    "controller": "processes.controller",
    "explain": "explain.command",
    "image": "images.commands",
    "policy": "policy.commands",
    "report": "report.command",
    "review": "review.command",
    "serve": "processes.serve",
    "weights": "weights.commands",
}

_PROCESSES = frozenset({"agent", "broker", "controller", "serve"})


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that costs 4 MB, which a process that runs for months would keep."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"weightlock {version('weightlock')}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: see `webhook.app.errors.ExitCode`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    completing = "_ARGCOMPLETE" in os.environ
    if completing:
        words = os.environ.get("COMP_LINE", "").split()[1:]
    parser = argparse.ArgumentParser(
        prog="kubectl weightlock" if Path(sys.argv[0]).name == "kubectl-weightlock" else "weightlock",
        description="Keeps AI model weights and GPUs in the hands of approved workloads.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = next((word for word in words if not word.startswith("-")), "")
    for name, summary in sorted(_COMMANDS.items()):
        if name == command:
            importlib.import_module(f"webhook.cli.{_PACKAGES.get(name, name)}").add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    if completing:
        import argcomplete  # noqa: PLC0415 - only a shell that completes needs it

        argcomplete.autocomplete(parser)
    options = parser.parse_args(words)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except UsageError as error:
        print(f"weightlock {command}: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except IncompleteError as error:
        print(f"weightlock {command}: {error}", file=sys.stderr)
        return ExitCode.INCOMPLETE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except Exception as error:  # noqa: BLE001 - an internal error must not exit with the code of a verdict
        return _internal_error(command, error)


def _internal_error(command: str, error: Exception) -> int:
    """Report an internal error in one line; a process of the cluster, or WEIGHTLOCK_TRACEBACK=1, adds the traceback."""
    if command in _PROCESSES or os.environ.get("WEIGHTLOCK_TRACEBACK"):
        traceback.print_exception(error)
    else:
        print(
            f"weightlock {command}: internal error ({type(error).__name__}); "
            "set WEIGHTLOCK_TRACEBACK=1 for the traceback, and report it",
            file=sys.stderr,
        )
    return ExitCode.INCOMPLETE


if __name__ == "__main__":
    sys.exit(main())
