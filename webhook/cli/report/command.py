"""``weightlock report``: list running workloads that violate policies, from a cluster's reports or a directory.

It parses arguments, reads reports or evaluates files, and prints what `view` formats.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.errors import IncompleteError, UsageError
from webhook.cli.cluster_options import add_cluster_arguments
from webhook.cli.report import view
from webhook.cli.report.view import Filter, Findings, ordered
from webhook.cli.state import add_state_arguments, load_settings, load_source
from webhook.core.reports.documents import counts_of, problems_in, results_in, scanned_at, unbroken_in

if TYPE_CHECKING:
    import argparse

    from webhook.cluster.reports.reader import ReportReader
    from webhook.core.kube.fields import Document

_NO_TYPES = (
    "this cluster has no types for reports, so nothing is scanned: install those of openreports.io (or "
    "wgpolicyk8s.io), or evaluate files with --state DIR; see docs/rollout.md"
)
_NO_REPORTS = "no reports of Weightlock exist yet: the controller writes them after its first scan"


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "report",
        help="list running workloads that violate policies",
        description="List running workloads that violate policies, from a cluster's reports or (--state) files. "
        "Exit code 0: nothing fails, 1: something does (with --would-deny: would be denied), 2: bad input.",
    )
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="with --state: further manifests to evaluate"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-n",
        "--namespace",
        default="",
        metavar="NS",
        help="namespace (default: the context's; with --state all)",
    )
    where.add_argument("-A", "--all-namespaces", action="store_true", help="all namespaces")
    parser.add_argument("--policy", default="", metavar="NAME", help="list only this policy")
    parser.add_argument(
        "--code", default="", metavar="CODE", help="list only this reason code, such as WL101"
    )
    parser.add_argument(
        "--action", default="", choices=["Deny", "Audit", "Warn"], help="list only policies with this action"
    )
    parser.add_argument(
        "--would-deny",
        action="store_true",
        help="count resources that Audit and Warn policies would deny. With --policies: also list the exceptions "
        "that running workloads need, and print the roles",
    )
    parser.add_argument("-o", "--output", choices=["table", "wide", "json"], default="table")
    add_cluster_arguments(parser)
    add_state_arguments(parser, required=False)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return the exit code. Raises `UsageError`."""
    if options.would_deny and (options.code or options.action == "Deny"):
        raise UsageError(
            "--would-deny counts policies that audit or warn: it goes with --policy and --action"
        )
    if options.would_deny and options.policies is not None and options.state is None:
        return _exceptions(options)
    selection = Filter(options.policy, options.code, options.action)
    findings = _offline(options) if options.state is not None else _online(options)
    now = datetime.now(UTC)
    if options.would_deny:
        rows = view.refusals(findings, selection)
        _print(options, rows, view.would_deny(findings, selection, now)[0])
        count = _exceptions(options) if options.policies is not None and options.output != "json" else 0
        return 1 if rows or count else 0
    wide, many = options.output == "wide", _all(options)
    text = view.listing(findings, selection, now, namespaces=many, wide=wide)
    _print(options, view.data(findings, selection), text)
    return 1 if view.failing(findings, selection) else 0


def _exceptions(options: argparse.Namespace) -> int:
    """Print the exceptions that running workloads need under other policies."""
    from webhook.cli.report import exceptions  # noqa: PLC0415 - loads the CEL engine

    if options.state is not None:
        items = exceptions.of_files([options.state, *options.files], options.namespace, load_source(options))
    else:
        items = exceptions.of_cluster(options, load_settings(options.config))
    if items or options.state is None:
        _print(options, exceptions.data(items), exceptions.text(items))
    return 1 if items else 0


def _all(options: argparse.Namespace) -> bool:
    return bool(options.all_namespaces or (options.state is not None and not options.namespace))


def _print(options: argparse.Namespace, data: Any, text: str) -> None:
    print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode() if options.output == "json" else text)


def _offline(options: argparse.Namespace) -> Findings:
    from webhook.cli.report.offline import evaluate_files  # noqa: PLC0415 - loads the CEL engine

    if not all(path.exists() for path in options.files):
        raise UsageError(f"{next(path for path in options.files if not path.exists())}: no such file")
    findings = evaluate_files([options.state, *options.files], options.namespace, load_source(options))
    if not findings.counts:
        raise UsageError("the files hold no pods and no workloads that are covered")
    return findings


def _online(options: argparse.Namespace) -> Findings:
    """Read the reports of the cluster. Raises `IncompleteError` if the API server rejects it."""
    from webhook.cluster.client.api import ApiError, ClusterError  # noqa: PLC0415 - the client takes long to import
    from webhook.cluster.reports.reader import ReportReader  # noqa: PLC0415

    if options.files or options.policies is not None or options.config is not None:
        raise UsageError("files, --policies and --config require --state DIR")
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
    """Read the reports. Raises `ApiError`, and `UsageError` if there are none."""
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
        # Policies without violations in the cluster are not listed for a single namespace.
        unbroken=unbroken_in(whole) if everything else {},
        problems=problems_in(whole),
    )
