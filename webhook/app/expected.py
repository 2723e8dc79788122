"""The expected webhook configurations, from a file of the chart. Broker and controller read the same file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from webhook.app.errors import UsageError
from webhook.core.kube.objects import key_of
from webhook.manifests.reader import ManifestError, read_path

if TYPE_CHECKING:
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

_KINDS = frozenset({"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"})


def expected_webhooks(path: str) -> dict[ObjectKey, Document]:
    """Return the configurations by key.

    Raises:
        UsageError: the file cannot be read, or it does not contain both kinds and nothing else.
    """
    try:
        documents = [manifest.document for manifest in read_path(Path(path))]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    kinds = {str(document.get("kind")) for document in documents}
    if kinds != _KINDS:
        missing = f", and no {' and no '.join(sorted(_KINDS - kinds))}" if _KINDS - kinds else ""
        raise UsageError(f"{path}: expected webhook configurations and nothing else{missing}")
    return {key_of(document): document for document in documents}
