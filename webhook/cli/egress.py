"""``weightlock egress``: how fast the readers of a model could send it, and what one more replica would change."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from webhook.api.modelweights import ModelWeights
from webhook.app.errors import IncompleteError, UsageError
from webhook.cli.cluster_options import add_cluster_arguments
from webhook.cli.format import table
from webhook.core.egress.budget import duration_text, rate_text, size_text
from webhook.core.egress.readers import KIND, Readers, slim
from webhook.core.egress.usage import usages
from webhook.core.kube.objects import group_kind

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from webhook.core.egress.usage import Usage
    from webhook.core.kube.fields import Document


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "egress",
        help="show how fast the readers of a model could send it",
        description="Show the egress budget of models: the sum of the readers' limits, the time to send the whole "
        "model, and the effect of one more replica. Exit code 0: all models keep their minimum time, 1: at least one "
        "does not, 2: bad input, 3: the cluster cannot be read.",
    )
    parser.add_argument(
        "model", nargs="?", default="", metavar="MODEL", help="show one model and its readers"
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="read manifests in a directory instead of a cluster"
    )
    add_cluster_arguments(parser)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="output format")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the usage; 1 if a model does not keep its minimum time. Raises `UsageError` and `IncompleteError`."""
    documents = _from_files(options.state) if options.state else _from_cluster(options)
    usages = usage_of(documents)
    if options.model:
        usages = [usage for usage in usages if usage.budget.model == options.model]
        if not usages:
            raise UsageError(f'no ModelWeights "{options.model}" with spec.egress')
    if options.output == "json":
        print(orjson.dumps([usage.as_json() for usage in usages], option=orjson.OPT_INDENT_2).decode())
    elif options.model:
        print(detailed(usages[0]))
    else:
        print(listed(usages))
    return 0 if all(usage.within for usage in usages) else 1


def usage_of(documents: Iterable[Document]) -> list[Usage]:
    """Return the usage of each model among ModelWeights, pods and readers."""
    models, readers = [], Readers()
    for document in documents:
        kind = group_kind(str(document.get("apiVersion")), str(document.get("kind")))
        if kind == KIND:
            readers.put(document)
        elif kind == "Pod":
            readers.put(slim(document))
        elif document.get("kind") == "ModelWeights":
            try:
                models.append(ModelWeights.model_validate(document))
            except ValidationError:
                continue
    return list(usages(models, readers))


def listed(usages: Sequence[Usage]) -> str:
    """Render one line for each model."""
    if not usages:
        return "No ModelWeights has an egress budget (spec.egress)."
    rows = [
        (
            usage.budget.model,
            size_text(usage.budget.size),
            str(len(usage.readers)),
            rate_text(usage.rate),
            _time(usage.seconds),
            duration_text(usage.budget.minimum),
            "yes" if usage.within else "NO",
            str(usage.more),
        )
        for usage in usages
    ]
    heading = ("MODEL", "SIZE", "READERS", "LIMIT", "TIME", "MINIMUM", "WITHIN", "FURTHER READERS")
    return table(heading, rows)


def detailed(usage: Usage) -> str:
    """Render one model, its readers and the effect of one more replica."""
    budget = usage.budget
    rows = [
        (f"{reader.namespace}/{reader.name}", rate_text(reader.rate), reader.created or "-")
        for reader in usage.readers
    ]
    rate, seconds = usage.with_another()
    verdict = "allowed" if budget.holds(rate) else "denied"
    lines = [
        (
            f"Model {budget.model}: {size_text(budget.size)}, minimum time {duration_text(budget.minimum)}, "
            f"at most {rate_text(budget.per_pod)} for each pod"
        ),
        "",
        table(("READER", "LIMIT", "CREATED"), rows) if rows else "No pod reads it.",
        "",
        f"Now: {rate_text(usage.rate)}, {_time(usage.seconds)} to send the model"
        + ("" if usage.within else ", less than the minimum time"),
        f"One more replica: {rate_text(rate)}, {duration_text(seconds)}: {verdict}",
    ]
    return "\n".join(lines)


def _time(seconds: int | None) -> str:
    return "-" if seconds is None else duration_text(seconds)


def _from_files(directory: Path) -> list[Document]:
    from webhook.manifests.reader import ManifestError, read_path  # noqa: PLC0415 - only for files

    if not directory.exists():
        raise UsageError(f"{directory}: no such directory")
    try:
        return [manifest.document for manifest in read_path(directory)]
    except ManifestError as error:
        raise UsageError(str(error)) from None


def _from_cluster(options: argparse.Namespace) -> list[Document]:
    from webhook.cluster.client.api import ApiError, ClusterError  # noqa: PLC0415 - the client imports slowly
    from webhook.cluster.egress_client import read  # noqa: PLC0415

    try:
        return asyncio.run(read(options.kubeconfig, options.context))
    except ClusterError as error:
        raise UsageError(str(error)) from None
    except ApiError as error:
        raise IncompleteError(str(error)) from None
