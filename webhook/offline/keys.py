"""The signing keys of a state directory. With keys, access objects must be signed. Without, they count as admitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm

from webhook.core.access import Verifier
from webhook.manifests.reader import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from webhook.manifests.reader import Manifest

SIGNING_KEYS = "weightlock-signing-keys"


def signing_keys(manifests: Iterable[Manifest]) -> Verifier | None:
    """Return the keys of each ConfigMap ``weightlock-signing-keys``: public keys in PEM. None without such a ConfigMap.

    Raises `ManifestError` if one contains anything else: an invalid key must not disable the signature check.
    """
    maps = [manifest for manifest in manifests if _is_key_map(manifest)]
    keys: dict[str, Ed25519PublicKey] = {}
    for manifest in maps:
        data = manifest.document.get("data")
        if not isinstance(data, dict) or not data:
            raise ManifestError(f"{manifest.source}: ConfigMap {SIGNING_KEYS} contains no keys")
        for entry, pem in data.items():
            try:
                keys.update(Verifier.from_pem(str(pem).encode()).keys)
            except (ValueError, UnsupportedAlgorithm) as error:
                raise ManifestError(
                    f"{manifest.source}: ConfigMap {SIGNING_KEYS}, {entry}: {error}"
                ) from None
    return Verifier(keys) if maps else None


def _is_key_map(manifest: Manifest) -> bool:
    document = manifest.document
    metadata = document.get("metadata")
    is_map = (document.get("apiVersion"), document.get("kind")) == ("v1", "ConfigMap")
    return is_map and isinstance(metadata, dict) and metadata.get("name") == SIGNING_KEYS
