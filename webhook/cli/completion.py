"""``weightlock completion``: the script that completes commands and options in a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

_HELP = """Print the completion script of a shell.

bash:  source <(weightlock completion bash)
zsh:   source <(weightlock completion zsh)
fish:  weightlock completion fish | source
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    import argparse  # noqa: PLC0415 - already loaded by main

    parser = commands.add_parser(
        "completion",
        help="print the completion script of a shell",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="shell to complete in")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the script; it calls ``weightlock`` for the candidates."""
    from argcomplete.shell_integration import shellcode  # noqa: PLC0415 - of no use to any other command

    print(shellcode(["weightlock", "kubectl-weightlock"], shell=options.shell))
    return 0
