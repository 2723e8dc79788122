"""The entry point of ``weightlock``. It answers the startup probe itself, before the command line is loaded.

The kubelet runs ``weightlock agent --check`` in every pod with a sidecar. The parser of the command line would take
most of the time of that process.
"""

from __future__ import annotations

import sys

PROBE = ["agent", "--check"]


def main() -> int:
    """Run the command in ``sys.argv``, and return its exit code."""
    if sys.argv[1:] == PROBE:
        from webhook.keys.agent.marks import ROOT, wait_complete  # noqa: PLC0415

        return 0 if wait_complete(ROOT) else 1
    from webhook.cli import main as command_line  # noqa: PLC0415 - the probe must not load it

    return command_line.main()
