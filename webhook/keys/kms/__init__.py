"""Key management services by URL: ``<provider>://<path>``.

A provider's module, and the package behind it, is imported only when its URL is opened.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

from webhook.keys.errors import KmsConfigError
from webhook.keys.kms.base import KeyContext, Kms
from webhook.keys.kms.resilient import GuardedKms, Patience

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

_MIND_PRODUCTION = frozenset(
    {"local", "vault"}
)  # those that can be set up so that production must refuse them
_URL = re.compile(r"([a-z0-9]+)://([^\x00-\x20\x7f]{1,1000})")


def open_kms(url: str, *, production: bool = False, patience: Patience | None = None) -> GuardedKms:
    """The service that ``url`` names, behind time limits, retries and a circuit breaker. Nothing is asked of it yet.

    Raises:
        KmsConfigError: the URL names no provider, its package is missing, or it may not be used in production.
    """
    match = _URL.fullmatch(url)
    if match is None or match[1] not in PROVIDERS:
        known = ", ".join(f"{name}://" for name in PROVIDERS)
        raise KmsConfigError(f"{url[:200]!r} names no key management service; it begins with one of {known}")
    module, name = PROVIDERS[match[1]]
    provider = getattr(importlib.import_module(module), name)
    options = {"production": production} if match[1] in _MIND_PRODUCTION else {}
    inner: Kms = provider(match[2], **options)
    return GuardedKms(inner, url, patience or Patience())


__all__ = ["PROVIDERS", "GuardedKms", "KeyContext", "Kms", "Patience", "open_kms"]
