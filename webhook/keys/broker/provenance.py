"""Whether a model's provenance allows a release: the requirement of the ModelWeights, evaluated over its statement.

Pure. Everything comes from the ModelWeights object and its pinned signers, and nothing from the pod. So a pod, a
sidecar or a node cannot choose a better statement than the admin's.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import TYPE_CHECKING

from webhook.api.codes import PROVENANCE
from webhook.core.provenance.rules import fault_of
from webhook.keys.broker.refusal import RefusedError
from webhook.keys.sealed.format.statement import Statement, read_statement

if TYPE_CHECKING:
    from webhook.api.modelweights import ModelWeights, WrappedKey

_FIX = "Fix: seal the model with --verify-signature and --signing-key, and copy the printed statement"


def accepted_statement(model: ModelWeights) -> Statement | None:
    """Return the statement that satisfies the model's requirement; None if it requires no provenance.

    Raises:
        RefusedError: no statement satisfies it.
    """
    required, manifest = model.spec.provenance, model.spec.manifest
    if required is None:
        return None
    name = model.metadata.name
    if not manifest.statement:
        raise _refusal(name, f"spec.manifest.statement is empty. {_FIX}")
    try:
        statement = _read(manifest.statement, tuple(manifest.signers))
    except ValueError as error:
        raise _refusal(name, f"the statement {error}") from None
    if statement.model != name:
        raise _refusal(name, f'the statement is about model "{statement.model}"')
    if statement.generation < model.spec.min_generation:
        raise _refusal(
            name,
            f"the statement is about generation {statement.generation}, but minGeneration is "
            f"{model.spec.min_generation}",
        )
    if manifest.digest and not hmac.compare_digest(manifest.digest.encode(), statement.manifest.encode()):
        raise _refusal(name, "the statement is about another manifest than spec.manifest.digest")
    fault = fault_of(statement.provenance, required)
    if fault:
        raise _refusal(name, fault)
    return statement


def proven_keys(
    model: ModelWeights, statement: Statement | None, keys: tuple[WrappedKey, ...]
) -> tuple[WrappedKey, ...]:
    """Return the keys that may be released: with a statement, only the key of its manifest.

    Raises:
        RefusedError: none of ``keys`` is that key.
    """
    if statement is None:
        return keys
    proven = tuple(key for key in keys if key.id == statement.key_id)
    if not proven:
        raise _refusal(
            model.metadata.name,
            f'the statement is about files sealed with key "{statement.key_id}", which is not the requested key',
        )
    return proven


@lru_cache(maxsize=256)
def _read(text: str, signers: tuple[str, ...]) -> Statement:
    return read_statement(text, signers)


def _refusal(model: str, why: str) -> RefusedError:
    return RefusedError(PROVENANCE, f'the provenance of model "{model}" is not accepted: {why}')
