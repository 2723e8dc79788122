"""Key management services by URL: ``<provider>://<path>``.

A provider's module, and the package behind it, is imported only when its URL is opened.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

from webhook.keys.errors import KmsConfigError
from webhook.keys.kms.base import KeyContext, Kms
from webhook.keys.kms.resilient import ResilientKms, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

PROVIDERS: Mapping[str, tuple[str, str]] = {
    "local": ("webhook.keys.kms.local", "LocalKms"),
    "vault": ("webhook.keys.kms.vault", "VaultKms"),
    "aws": ("webhook.keys.kms.aws", "AwsKms"),
    "gcp": ("webhook.keys.kms.gcp", "GcpKms"),
    "azure": ("webhook.keys.kms.azure", "AzureKms"),
    "pkcs11": ("webhook.keys.kms.pkcs11", "Pkcs11Kms"),
}

_PRODUCTION_AWARE = frozenset({"local", "vault"})  # providers with configurations that production must reject
_URL = re.compile(r"([a-z0-9]+)://([^\x00-\x20\x7f]{1,1000})")


def open_kms(url: str, *, production: bool = False, policy: RetryPolicy | None = None) -> ResilientKms:
    """Create a client for the KMS at ``url`` with timeouts, retries and a circuit breaker. It does not connect yet.

    Raises:
        KmsConfigError: the URL names no provider, its package is missing, or production does not allow it.
    """
    match = _URL.fullmatch(url)
    if match is None or match[1] not in PROVIDERS:
        schemes = ", ".join(f"{name}://" for name in PROVIDERS)
        raise KmsConfigError(f"{url[:200]!r} is not the URL of a KMS: it must begin with one of {schemes}")
    module, name = PROVIDERS[match[1]]
    provider = getattr(importlib.import_module(module), name)
    options = {"production": production} if match[1] in _PRODUCTION_AWARE else {}
    inner: Kms = provider(match[2], **options)
    return ResilientKms(inner, url, policy or RetryPolicy())


__all__ = ["PROVIDERS", "KeyContext", "Kms", "ResilientKms", "RetryPolicy", "open_kms"]
