"""From findings to a response: allow, deny or warn, and the messages for users.

A denial is at most 1,024 bytes long: the essential sentence first and on one line, then the fix, then the other
violations as far as they fit, then the help. Errors of Weightlock have a different wording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from webhook.api.codes import RETRY_AFTER_SECONDS
from webhook.core.admission.messages import causes, denial, warnings
from webhook.core.kube.review import AdmissionResponse
from webhook.core.kube.text import clip

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from webhook.core.kube.fields import Document
    from webhook.core.policies.policy import Finding


class Reach(NamedTuple):
    """The protected models that an object reads or copies, the routes to them, and its sandbox escapes."""

    models: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    escapes: tuple[str, ...] = ()


NOTHING_REACHED = Reach()


class Verdict(NamedTuple):
    """The decision about one request, before it becomes a response.

    ``timings`` contains (policy, result, seconds) for each evaluated policy. ``seconds`` is None if it was not timed.
    ``reach`` is what the evaluation gathered, for the audit log.
    """

    uid: str
    denials: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    audits: tuple[Finding, ...]
    audit_annotations: tuple[tuple[str, str], ...] = ()
    patch: tuple[Document, ...] = ()
    injected: bool = False
    timings: tuple[tuple[str, str, float | None], ...] = ()
    reach: Reach = NOTHING_REACHED

    @classmethod
    def of(
        cls,
        uid: str,
        findings: Collection[Finding],
        audit_annotations: Sequence[tuple[str, str]] = (),
        *,
        patch: tuple[Document, ...] = (),
        injected: bool = False,
        timings: Sequence[tuple[str, str, float | None]] = (),
        reach: Reach = NOTHING_REACHED,
    ) -> Self:
        """Sort findings by their effect. The order is stable: by code, policy, place and message, without repeats."""
        denials: tuple[Finding, ...] = ()
        warnings, audits = denials, denials
        if findings:
            ordered = sorted(set(findings))
            denials = tuple(finding for finding in ordered if finding.action == "Deny")
            warnings = tuple(finding for finding in ordered if finding.action == "Warn")
            audits = tuple(finding for finding in ordered if finding.action == "Audit")
        return cls(
            uid, denials, warnings, audits, tuple(audit_annotations), patch, injected, tuple(timings), reach
        )

    @property
    def allowed(self) -> bool:
        """Report whether no finding denies."""
        return not self.denials


def to_response(verdict: Verdict, help_url: str = "") -> AdmissionResponse:
    """Convert a verdict to the response for the API server. ``help_url`` is the page that explains reason codes."""
    annotations = _joined(verdict.audit_annotations) if verdict.audit_annotations else {}
    if not (verdict.denials or verdict.warnings or verdict.audits):
        return AdmissionResponse(
            verdict.uid, allowed=True, audit_annotations=annotations, patch=verdict.patch
        )
    codes = sorted({finding.code for finding in (*verdict.denials, *verdict.warnings, *verdict.audits)})
    if codes:
        annotations["codes"] = ",".join(codes)
    if verdict.audits:
        annotations["would-deny"] = clip("; ".join(f"{f.message} [{f.code}]" for f in verdict.audits), 1024)
    return AdmissionResponse(
        uid=verdict.uid,
        allowed=verdict.allowed,
        message=denial(verdict.denials, verdict.uid, help_url) if verdict.denials else "",
        causes=causes(verdict.denials),
        retry_after_seconds=max((RETRY_AFTER_SECONDS.get(f.code, 0) for f in verdict.denials), default=0)
        if all(f.code in RETRY_AFTER_SECONDS for f in verdict.denials)
        else 0,
        warnings=tuple(warnings(verdict.warnings)),
        audit_annotations=annotations,
        patch=verdict.patch,
    )


def _joined(notes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Merge the texts of each key: several params or templates may each provide one (validating/dispatcher.go)."""
    texts: dict[str, dict[str, None]] = {}
    for key, text in notes:
        texts.setdefault(key, {})[text] = None
    return {key: ", ".join(values) for key, values in texts.items()}
