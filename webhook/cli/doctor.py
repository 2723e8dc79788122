"""``weightlock doctor``: examines a cluster with Weightlock in it; says what is wrong, and what mends it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson

from webhook.api.config import Cluster
from webhook.app.errors import UsageError
from webhook.cli.format import plain, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from webhook.cluster.doctor.installation_view import Result
    from webhook.cluster.doctor.run import Row

RESULTS: tuple[Result, ...] = ("ok", "warn", "fail", "skipped")
_COLOURS = {"ok": "32", "warn": "33", "fail": "31", "skipped": "2"}


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "doctor",
        help="examine a cluster, and say what to mend",
        description="Examines a cluster with Weightlock in it: reads, and tries objects by dry run; changes nothing. "
        "Exit code 0: nothing fails, 1: something does, 2: the cluster cannot be examined.",
    )
    parser.add_argument("--kubeconfig", default="", metavar="FILE", help="default: as kubectl finds it")
    parser.add_argument("--context", default="", metavar="NAME")
    parser.add_argument("-n", "--namespace", default="weightlock-system", help="of the release (%(default)s)")
    parser.add_argument("--release", default="weightlock", metavar="NAME", help="its name (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=10, metavar="SECONDS", help="for each request (%(default)g)"
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine and print. Raises `UsageError`."""
    from webhook.cluster.client.api import ClusterError  # noqa: PLC0415 - the client takes long to import
    from webhook.cluster.doctor.run import examine  # noqa: PLC0415

    if not 0 < options.timeout <= 300:
        raise UsageError("--timeout is between 0 and 300 seconds")
    cluster = Cluster(kubeconfig=options.kubeconfig, context=options.context)
    try:
        rows = asyncio.run(
            examine(cluster, options.namespace, options.release, version("weightlock"), options.timeout)
        )
    except ClusterError as error:
        raise UsageError(str(error)) from None
    if options.output == "json":
        print(orjson.dumps(_as_json(rows), option=orjson.OPT_INDENT_2).decode())
    else:
        print(rendered(rows, coloured=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
    return 1 if any(row.finding.result == "fail" for row in rows) else 0


def rendered(rows: Sequence[Row], *, coloured: bool) -> str:
    """The table, what to do, and a last line that counts."""
    cells = [(row.check, row.finding.result, plain(row.finding.what)) for row in rows]
    head, *lines = table(("CHECK", "RESULT", "WHAT"), cells).splitlines()
    if coloured:
        lines = [_painted(line, row.finding.result) for line, row in zip(lines, rows, strict=True)]
    fixes = [
        f"  {row.check}: {plain(row.finding.what)}\n      {plain(row.finding.fix)}"
        for row in rows
        if row.finding.fix and row.finding.result in ("fail", "warn")
    ]
    counts = Counter(row.finding.result for row in rows)
    total = ", ".join(f"{counts[result]} {result}" for result in RESULTS if counts[result])
    parts = [
        "\n".join([head, *lines]),
        *(["To mend:\n" + "\n".join(fixes)] if fixes else []),
        f"doctor: {total}",
    ]
    return "\n\n".join(parts)


def _painted(line: str, result: str) -> str:
    before, word, after = line.partition(f" {result} ")
    return f"{before} \033[{_COLOURS[result]}m{result}\033[0m {after}" if word else line


def _as_json(rows: Sequence[Row]) -> list[dict[str, str]]:
    return [
        {"check": row.check, "result": row.finding.result, "what": row.finding.what, "fix": row.finding.fix}
        for row in rows
    ]
