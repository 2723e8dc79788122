"""The report for readers: one HTML file without scripts and without requests, printable and accessible."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from webhook.core.audit.evidence.assess import exceptions, grant_faults, sample
from webhook.core.audit.evidence.oscal import proof_link

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.core.audit.evidence.assess import Assessment, Scope
    from webhook.core.audit.evidence.profiles import Profile
    from webhook.core.audit.evidence.timeline import Timeline

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;"
    "background:#fff}table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{border:1px solid #767676;"
    "padding:.4rem .6rem;text-align:left;vertical-align:top}th{background:#f0f0f0}caption{text-align:left;"
    "font-weight:600;padding:.3rem 0}code{font-size:.9em;overflow-wrap:anywhere}.satisfied{color:#0b5d1e}"
    ".not-satisfied{color:#8b0000;font-weight:600}.not-assessed{color:#444}@media print{body{margin:0;max-width:none}"
    "tr{break-inside:avoid}a{color:inherit}}"
)


def report(
    timeline: Timeline,
    profile: Profile,
    scope: Scope,
    assessments: Sequence[Assessment],
    *,
    size: int,
    seed: int,
) -> str:
    """Return the HTML document. Exceptions come first."""
    grants = [record for record in timeline.grants if record.kind == "grant" and record.ref.time < scope.end]
    selection = sample(grants, size, seed)
    counts = {state: sum(each.state == state for each in assessments) for state in _STATES}
    body = [
        f"<h1>Evidence: {escape(profile.title)}</h1>",
        (
            f"<p>From <time>{escape(scope.start)}</time> to <time>{escape(scope.end)}</time>. "
            f"{counts['satisfied']} controls satisfied, {counts['not-satisfied']} not satisfied, "
            f"{counts['not-assessed']} not assessed.</p>"
        ),
        "<h2>Exceptions</h2>",
        _table(
            "Break-glass access and waivers",
            ("Exception", "Expires", "Proof"),
            (
                (sentence, data.get("expires", ""), _link(ref))
                for _, sentence, ref, data in exceptions(timeline, scope)
            ),
        ),
        _table(
            "Controls that are not satisfied",
            ("Control", "Reason"),
            (
                (each.control.id, "; ".join(reason for part in each.parts for reason, _ in part.against[:10]))
                for each in assessments
                if each.state == "not-satisfied"
            ),
        ),
        "<h2>Controls</h2>",
        _table(
            "All controls of the profile",
            ("Control", "Result", "Contribution", "Evidence"),
            map(_row, assessments),
        ),
        "<h2>Population and sample</h2>",
        f"<p>{len(selection)} of {len(grants)} grants, seed {seed}.</p>",
        _table(
            "Sampled grants",
            ("Request", "Model", "Approvers", "Result", "Proof"),
            (
                (
                    record.data.get("request", ""),
                    record.data.get("model", ""),
                    ", ".join(record.data.get("approvers", ())),
                    "; ".join(grant_faults(timeline, record)) or "approved",
                    _link(record.ref),
                )
                for record in selection
            ),
        ),
        "<h2>Logs</h2>",
        _table("The logs that this report follows from", ("Log", "Entries", "Root"), scope.logs),
        (
            "<p>Recompute this report with <code>weightlock evidence verify</code>. Verify a proof with "
            "<code>weightlock audit verify FILE --keys KEYS</code>.</p>"
        ),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Weightlock evidence: {escape(profile.title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


class _Markup(str):
    """A text that is markup already."""

    __slots__ = ()


def _link(ref: object) -> _Markup:
    link = proof_link(ref)  # type: ignore[arg-type]
    return _Markup(f'<a href="{escape(link)}">{escape(link.removeprefix("proofs/"))}</a>')


def _row(assessment: Assessment) -> tuple[object, ...]:
    links = [_link(ref) for part in assessment.parts for _, ref in part.positive[:2]][:6]
    state = _Markup(f'<span class="{assessment.state}">{assessment.state.replace("-", " ")}</span>')
    return (assessment.control.id, state, assessment.control.words, _Markup("<br>".join(links)))


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [
        "".join(f"<td>{cell if isinstance(cell, _Markup) else escape(str(cell))}</td>" for cell in row)
        for row in rows
    ]
    if not cells:
        return f"<p>{escape(caption)}: none.</p>"
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in cells)}</tbody></table>"
    )


_STATES = ("satisfied", "not-satisfied", "not-assessed")
