"""``weightlock report``: list running workloads that violate policies, from a cluster's reports or from files.

It parses arguments, reads reports or evaluates files, and prints the text of `view`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.errors import IncompleteError, UsageError
from webhook.cli.report import view
from webhook.cli.report.view import Filter, Findings, ordered
from webhook.cli.state import add_state_arguments, load_source
from webhook.core.reports.documents import counts_of, problems_in, results_in, scanned_at, unbroken_in

if TYPE_CHECKING:
    import argparse

    from webhook.cluster.reports.reader import ReportReader
    from webhook.core.kube.fields import Document

_NO_TYPES = (
    "this cluster has no types for reports, so nothing is scanned: install those of openreports.io (or "
    "wgpolicyk8s.io), or evaluate files with --state DIR; see docs/rollout.md"
)
_NO_REPORTS = (
    "there are no reports of Weightlock yet: the controller writes them once it has evaluated what runs"
)


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "report",
        help="list running workloads that violate policies",
        description="List running workloads that violate policies: from reports, or from files with --state. "
        "Exit code 0: nothing fails, 1: something does (with --would-deny: would be denied), 2: bad input.",
    )
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="with --state: manifests to evaluate in addition to its own",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-n", "--namespace", default="", metavar="NS", help="default: the context's; offline all"
    )
    where.add_argument("-A", "--all-namespaces", action="store_true", help="every namespace")
    parser.add_argument("--policy", default="", metavar="NAME", help="only this policy")
    parser.add_argument("--code", default="", metavar="CODE", help="only this reason code, such as WL101")
    parser.add_argument("--action", default="", choices=["Deny", "Audit", "Warn"], help="only at this action")
    parser.add_argument(
        "--would-deny",
        action="store_true",
        help="count what would be denied were each policy that audits or warns at Deny",
    )
    parser.add_argument("-o", "--output", choices=["table", "wide", "json"], default="table")
    parser.add_argument("--kubeconfig", default="", metavar="FILE", help="default: as kubectl finds it")
    parser.add_argument("--context", default="", metavar="NAME")
    add_state_arguments(parser, required=False)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what is asked for. Raises `UsageError`."""
    if options.would_deny and (options.code or options.action == "Deny"):
        raise UsageError(
            "--would-deny counts policies that audit or warn: it goes with --policy and --action"
        )
    wanted = Filter(options.policy, options.code, options.action)
    findings = _offline(options) if options.state is not None else _online(options)
    now = datetime.now(UTC)
    if options.would_deny:
        rows = view.refusals(findings, wanted)
        _print(options, rows, view.would_deny(findings, wanted, now)[0])
        return 1 if rows else 0
    wide, many = options.output == "wide", _all(options)
    text = view.listing(findings, wanted, now, namespaces=many, wide=wide)
    _print(options, view.data(findings, wanted), text)
    return 1 if view.failing(findings, wanted) else 0


def _all(options: argparse.Namespace) -> bool:
    return bool(options.all_namespaces or (options.state is not None and not options.namespace))


def _print(options: argparse.Namespace, data: Any, text: str) -> None:
    print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode() if options.output == "json" else text)


def _offline(options: argparse.Namespace) -> Findings:
    from webhook.cli.report.offline import judge_files  # noqa: PLC0415 - loads the CEL engine

    if not all(path.exists() for path in options.files):
        raise UsageError(f"{next(path for path in options.files if not path.exists())}: no such file")
    found = judge_files([options.state, *options.files], options.namespace, load_source(options))
    if not found.counts:
        raise UsageError("the files contain no pods and no workloads that policies cover")
    return found


def _online(options: argparse.Namespace) -> Findings:
    """Read the reports of the cluster. Raises `IncompleteError` if the API server rejects it."""
    from webhook.cluster.client.api import ApiError, ClusterError  # noqa: PLC0415 - the client takes long to import
    from webhook.cluster.reports.reader import ReportReader  # noqa: PLC0415

    if options.files or options.policies is not None or options.config is not None:
        raise UsageError("files, --policies and --config are evaluated offline: they go with --state DIR")
    if options.kubeconfig and not Path(options.kubeconfig).is_file():
        raise UsageError(f"{options.kubeconfig}: no such file")

    async def connected() -> Findings:
        async with ReportReader.connect(options.kubeconfig, options.context) as reader:
            return await _read(options, reader)

    try:
        return asyncio.run(connected())
    except ClusterError as error:
        raise UsageError(str(error)) from None
    except ApiError as error:
        raise IncompleteError(str(error)) from None


async def _read(options: argparse.Namespace, reader: ReportReader) -> Findings:
    """Raises `ApiError`, and `UsageError` where there is nothing to read."""
    kinds = await reader.types()
    if not kinds:
        raise UsageError(_NO_TYPES)
    namespace = None if options.all_namespaces else options.namespace or reader.namespace
    for kind in kinds:
        documents = await reader.namespaced(kind, namespace)
        whole = await reader.whole(kind)
        if documents or whole:
            return _findings(documents, whole, everything=namespace is None)
    raise UsageError(_NO_REPORTS)


def _findings(documents: list[Document], whole: Document, *, everything: bool) -> Findings:
    moments = [scanned_at(document) for document in documents] or [scanned_at(whole)]
    return Findings(
        results=ordered(item for document in documents for item in results_in(document)),
        counts={document["metadata"]["namespace"]: counts_of(document) for document in documents},
        scanned=min(moments),
        # What nothing in the cluster breaks says nothing of one namespace that is shown by itself, and less would.
        unbroken=unbroken_in(whole) if everything else {},
        problems=problems_in(whole),
    )
