"""``weightlock doctor``: diagnose an installation and suggest fixes."""

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
from webhook.cli.cluster_options import add_cluster_arguments
from webhook.cli.format import table
from webhook.core.kube.text import one_line

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
        help="diagnose an installation and suggest fixes",
        description="Diagnose an installation: read objects and create objects by dry run. It changes nothing, except "
        "with --egress-image, which runs two pods in a namespace of their own and deletes it. "
        "Exit code 0: all checks pass, 1: a check fails, 2: the cluster cannot be read.",
    )
    add_cluster_arguments(parser)
    parser.add_argument(
        "-n", "--namespace", default="weightlock-system", help="namespace of the Helm release (%(default)s)"
    )
    parser.add_argument(
        "--release", default="weightlock", metavar="NAME", help="name of the Helm release (%(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=10, metavar="SECONDS", help="timeout of each request (%(default)g)"
    )
    parser.add_argument(
        "--egress-image",
        default="",
        metavar="IMAGE",
        help="measure with two pods of this image, which needs python3, whether the network enforces egress limits",
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="output format")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run all checks and print the results. Raises `UsageError`."""
    from webhook.cluster.client.api import ClusterError  # noqa: PLC0415 - the client takes long to import
    from webhook.cluster.doctor.run import examine  # noqa: PLC0415

    if not 0 < options.timeout <= 300:
        raise UsageError("--timeout must be between 0 and 300 seconds")
    cluster = Cluster(kubeconfig=options.kubeconfig, context=options.context)
    try:
        rows = asyncio.run(
            examine(
                cluster,
                options.namespace,
                options.release,
                version("weightlock"),
                options.timeout,
                options.egress_image,
            )
        )
    except ClusterError as error:
        raise UsageError(str(error)) from None
    if options.output == "json":
        print(orjson.dumps(_as_json(rows), option=orjson.OPT_INDENT_2).decode())
    else:
        print(rendered(rows, coloured=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
    return 1 if any(row.result.result == "fail" for row in rows) else 0


def rendered(rows: Sequence[Row], *, coloured: bool) -> str:
    """Render the table, the fixes and a last line with counts."""
    cells = [(row.check, row.result.result, one_line(row.result.what)) for row in rows]
    head, *lines = table(("CHECK", "RESULT", "WHAT"), cells).splitlines()
    if coloured:
        lines = [_painted(line, row.result.result) for line, row in zip(lines, rows, strict=True)]
    fixes = [
        f"  {row.check}: {one_line(row.result.what)}\n      {one_line(row.result.fix)}"
        for row in rows
        if row.result.fix and row.result.result in ("fail", "warn")
    ]
    counts = Counter(row.result.result for row in rows)
    total = ", ".join(f"{counts[result]} {result}" for result in RESULTS if counts[result])
    parts = [
        "\n".join([head, *lines]),
        *(["To fix:\n" + "\n".join(fixes)] if fixes else []),
        f"doctor: {total}",
    ]
    return "\n\n".join(parts)


def _painted(line: str, result: str) -> str:
    before, word, after = line.partition(f" {result} ")
    return f"{before} \033[{_COLOURS[result]}m{result}\033[0m {after}" if word else line


def _as_json(rows: Sequence[Row]) -> list[dict[str, str]]:
    return [
        {"check": row.check, "result": row.result.result, "what": row.result.what, "fix": row.result.fix}
        for row in rows
    ]
