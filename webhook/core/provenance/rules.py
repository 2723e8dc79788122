"""The requirement of a ModelWeights for its provenance: accepted signers, and a CEL rule.

Nothing is hashed and no signature is verified here: both happened when the model was sealed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from webhook.cel import Bindings, CompileError, EvaluationError, Program, environment
from webhook.core.kube.names import compile_glob
from webhook.core.kube.strict_json import DocumentError, check

if TYPE_CHECKING:
    from webhook.api.modelweights import ModelSigner, Provenance
    from webhook.core.provenance.models import ModelProvenance, Signer


class RuleError(ValueError):
    """A rule does not compile."""


@lru_cache(maxsize=256)
def compile_rule(rule: str) -> Program | None:
    """Compile the CEL rule of a ModelWeights; None for an empty one.

    Raises:
        RuleError: it does not compile. The message has the position.
    """
    if not rule:
        return None
    try:
        return environment(authorizer=False, params=False, weightlock=False).compile(rule)
    except CompileError as error:
        raise RuleError(str(error)) from None


def fault_of(provenance: ModelProvenance, required: Provenance) -> str:
    """Return why ``provenance`` does not satisfy a ModelWeights' requirement; empty if it does."""
    signer = provenance.signature.signer
    if required.signers and not any(_matches(signer, allowed_signer) for allowed_signer in required.signers):
        return f"its signer is not in spec.provenance.signers: {signer}"
    try:
        rule = compile_rule(required.rule)
    except RuleError as error:
        return f"spec.provenance.rule does not compile: {error}"
    if rule is None:
        return ""
    document = provenance.document()
    try:
        check(document)
        satisfied = rule.evaluate(Bindings({"object": document}))
    except (EvaluationError, DocumentError) as error:
        return f"spec.provenance.rule cannot be evaluated: {error}"
    return "" if satisfied is True else "it does not satisfy spec.provenance.rule"


def _matches(signer: Signer, accepted: ModelSigner) -> bool:
    """Whether every field that is set matches; an absent field accepts any value of its kind only."""
    if accepted.key:
        return accepted.key == signer.key and signer.kind == "key"
    if accepted.ca:
        return (
            signer.kind == "certificate"
            and accepted.ca == signer.ca
            and (not accepted.subject or _glob(accepted.subject, signer.subject))
        )
    return (
        signer.kind == "sigstore"
        and accepted.issuer == signer.issuer
        and _glob(accepted.subject, signer.subject)
    )


def _glob(pattern: str, text: str) -> bool:
    return compile_glob(pattern).fullmatch(text) is not None
