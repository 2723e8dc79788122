"""``report --would-deny --policies DIR``: the exceptions that running workloads need under other policies."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from webhook.app.errors import IncompleteError, UsageError
from webhook.core.admission.provider import FetchedData, evaluate_sync
from webhook.core.admission.validate import validate
from webhook.core.reports.exceptions import Exceptions, exceptions_for, roles, running_request
from webhook.manifests.reader import ManifestError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from webhook.api.config import Settings
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest
    from webhook.offline.provider import ManifestProvider


def of_files(paths: Iterable[Path], namespace: str, provider: ManifestProvider) -> list[Exceptions]:
    """The exceptions that the workloads of a state directory need. Raises `UsageError`."""
    from webhook.cli.report.offline import running_workloads  # noqa: PLC0415 - loads the CEL engine

    snapshot, now = provider.snapshot(), datetime.now(UTC)

    def fetched(request: AdmissionRequest) -> FetchedData:
        return evaluate_sync(lambda data: validate(request, snapshot, data, now), provider.resolve)[1]

    try:
        documents = [manifest.document for manifest in running_workloads(paths, provider)]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    requests = [running_request(document, snapshot) for document in documents]
    items = [
        exceptions_for(request, snapshot, fetched(request), now)
        for request in requests
        if request is not None and namespace in ("", request.namespace)
    ]
    return [item for item in items if item is not None]


def of_cluster(options: argparse.Namespace, settings: Settings) -> list[Exceptions]:
    """The exceptions that the running pods of a cluster need. Raises `UsageError` and `IncompleteError`."""
    from webhook.api.config import Cluster  # noqa: PLC0415
    from webhook.cluster.client.api import ApiError, ClusterError  # noqa: PLC0415 - takes long to import
    from webhook.cluster.reports.exceptions import exceptions_of_cluster  # noqa: PLC0415
    from webhook.core.admission.provider import NotReadyError  # noqa: PLC0415

    if not options.policies.exists():
        raise UsageError(f"{options.policies}: no such directory")
    if options.kubeconfig and not Path(options.kubeconfig).is_file():
        raise UsageError(f"{options.kubeconfig}: no such file")
    cluster = Cluster(kubeconfig=options.kubeconfig, context=options.context)
    namespace = "" if options.all_namespaces else options.namespace or None
    try:
        return asyncio.run(exceptions_of_cluster(cluster, options.policies, settings, namespace))
    except (ClusterError, ManifestError) as error:
        raise UsageError(str(error)) from None
    except (ApiError, NotReadyError) as error:
        raise IncompleteError(str(error)) from None


def text(items: Sequence[Exceptions]) -> str:
    """Each workload with its exceptions, and the roles to apply."""
    if not items:
        return "No running workload needs an exception under these policies."
    lines = []
    for item in items:
        lines.append(f"{item.workload} (service account {item.account}) needs:")
        lines += [f"  {right.resource}/{right.name}: {right.reason}" for right in item.rights]
        if item.other:
            lines.append(f"  and is denied for other reasons: {', '.join(item.other)}")
    documents = yaml.safe_dump_all(roles(items), sort_keys=False, default_flow_style=None, width=110)
    return "\n".join([*lines, "", "# Apply these roles to allow them:", documents.rstrip()])


def data(items: Sequence[Exceptions]) -> Document:
    """The same for programs."""
    workloads = [
        {
            "workload": item.workload,
            "namespace": item.namespace,
            "serviceAccount": item.account,
            "rights": [right._asdict() for right in item.rights],
            "other": list(item.other),
        }
        for item in items
    ]
    return {"workloads": workloads, "roles": roles(items)}
