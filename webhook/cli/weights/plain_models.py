"""``weightlock agent --verify-model``: the check of unsealed model files on the node, before their readers start.

It reads and hashes every file once at each start of the pod. Sealed models need no such check: their signature is
verified when they are sealed, and every read is authenticated.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from webhook.cli.images.signatures import signed_content, trust_of
from webhook.keys.errors import BadInputError, KeysError, StorageError
from webhook.keys.rawio import storage_error
from webhook.keys.sealed.hashing import compare
from webhook.keys.sealed.sealing import plain_items
from webhook.keys.sealed.transfer import NoProgress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from webhook.provenance.models import ModelTrust

_MAX_JOBS = 8


def verify_models(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Check every model. Returns the exit code: 0 all are signed, 1 one is not, 2 bad options, 3 cannot be read."""
    try:
        trust = trust_of(options)
        signatures = [*options.model_signature, *(None for _ in options.verify_model)]
        if len(options.model_signature) > len(options.verify_model):
            raise BadInputError("there are more --model-signature than --verify-model")
        for directory, signature in zip(options.verify_model, signatures, strict=False):
            _verify(directory, signature or directory / "model.sig", trust, say)
    except (BadInputError, StorageError) as error:
        say(str(error))
        return 3 if isinstance(error, StorageError) else 2
    except OSError as error:
        say(str(storage_error(error, "")))
        return 3
    except KeysError as error:
        say(str(error))
        return 1
    return 0


def _verify(directory: Path, signature: Path, trust: ModelTrust, say: Callable[[str], None]) -> None:
    start = time.monotonic()
    content, _ = signed_content(signature, trust, [], directory)
    items, excluded = content.admit(plain_items(directory))
    jobs = min(os.cpu_count() or 1, _MAX_JOBS)
    compare(items, content, jobs, NoProgress())
    size = sum(item.size for item in items) / (1 << 30)
    seconds = time.monotonic() - start
    say(
        f"{directory}: {len(items)} files, {size:.2f} GiB, are signed by {content.provenance.signature.signer} "
        f"({seconds:.1f} s)"
    )
    if excluded:
        say(f"{directory}: the signature excludes {len(excluded)} files, which were not checked")
