"""Write an assessment as OSCAL 1.1: assessment results, and a plan of action and milestones.

All identifiers are UUIDv5 of their content, so that the same log gives the same document, byte by byte.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from webhook.core.audit.evidence.assess import exceptions, sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.core.audit.evidence.assess import Assessment, Part, Scope
    from webhook.core.audit.evidence.profiles import Profile
    from webhook.core.audit.evidence.timeline import Ref, Timeline

OSCAL_VERSION = "1.1.3"
NAMESPACE = "https://weightlock.dev/ns/oscal"
SAMPLE_SIZE = 25
_ROOT = uuid.UUID("8a6f3c1e-54a0-5a0e-9d5b-0d7f0b6d2f11")
_MAX_EVIDENCE = 20

Json = dict[str, Any]


def identifier(*parts: object) -> str:
    """Return a UUIDv5 of the parts."""
    return str(uuid.uuid5(_ROOT, "\0".join(map(str, parts))))


def proof_link(ref: Ref) -> str:
    """Return the link of an entry's proof, relative to the document."""
    return f"proofs/{ref.name}.tlog-proof"


def results(
    timeline: Timeline,
    profile_name: str,
    profile: Profile,
    scope: Scope,
    assessments: Sequence[Assessment],
    *,
    size: int = SAMPLE_SIZE,
    seed: int = 1,
) -> Json:
    """Return the assessment results."""
    builder = _Builder(profile_name, scope)
    findings = [builder.finding(each) for each in assessments if each.state != "not-assessed"]
    risks = builder.risks(timeline)
    observations = builder.observations(timeline)
    result: Json = {
        "uuid": identifier("result", profile_name, scope.start, scope.end, scope.logs),
        "title": f"{profile.title}, from {scope.start} to {scope.end}",
        "description": "Recomputed from the audit log alone.",
        "start": scope.start,
        "end": scope.end,
        "props": [
            *_scope_props(scope, size, seed),
            *_population(timeline, scope, size, seed),
            *_unassessed(assessments),
        ],
        "reviewed-controls": {
            "control-selections": [
                {"include-controls": [{"control-id": each.control.id} for each in assessments]}
            ]
        },
        "observations": [*builder.made, *observations],
        "findings": findings,
    }
    if risks:
        result["risks"] = risks
    if not findings:
        del result["findings"]
    if not result["observations"]:
        del result["observations"]
    return {
        "assessment-results": {
            "uuid": identifier("assessment-results", profile_name, scope.start, scope.end, scope.logs),
            "metadata": metadata(f"Weightlock evidence: {profile.title}", scope.end, profile_name),
            "import-ap": {"href": "#weightlock-log", "remarks": "The plan is the profile and the period."},
            "results": [result],
        }
    }


def plan(
    timeline: Timeline, profile_name: str, profile: Profile, scope: Scope, assessments: Sequence[Assessment]
) -> Json:
    """Return the plan of action and milestones: exceptions, and controls that are not satisfied."""
    items = [
        {
            "uuid": identifier("poam", kind, ref),
            "title": sentence,
            "description": f"Recorded in {ref.origin}, entry {ref.entry}, at {ref.time}.",
        }
        for kind, sentence, ref, _ in exceptions(timeline, scope)
    ]
    for each in assessments:
        if each.state == "not-satisfied":
            reasons = [reason for part in each.parts for reason, _ in part.against]
            items.append(
                {
                    "uuid": identifier("poam", each.control.id, scope.start, scope.end),
                    "title": f"Control {each.control.id} is not satisfied",
                    "description": "; ".join(reasons[:_MAX_EVIDENCE]),
                }
            )
    nothing = {
        "uuid": identifier("poam", "none", scope.start, scope.end),
        "title": "No open item",
        "description": "No exception and no unsatisfied control in the period.",
    }
    return {
        "plan-of-action-and-milestones": {
            "uuid": identifier("poam", profile_name, scope.start, scope.end, scope.logs),
            "metadata": metadata(f"Weightlock plan of action: {profile.title}", scope.end, profile_name),
            "system-id": {"identifier-type": NAMESPACE, "id": "weightlock"},
            "poam-items": items or [nothing],
        }
    }


class _Builder:
    """Observations, findings and risks of one result."""

    def __init__(self, profile_name: str, scope: Scope) -> None:
        self._profile, self._scope = profile_name, scope
        self.made: list[Json] = []
        self._uuids: dict[str, str] = {}

    def finding(self, assessment: Assessment) -> Json:
        """Return the finding of one control, and keep its observations."""
        control = assessment.control
        related = [self._observation(part) for part in assessment.parts]
        reasons = [reason for part in assessment.parts for reason, _ in part.against]
        satisfied = assessment.state == "satisfied"
        finding: Json = {
            "uuid": identifier("finding", self._profile, control.id, self._scope.start, self._scope.end),
            "title": f"{control.id}: {assessment.state}",
            "description": control.words,
            "target": {
                "type": "objective-id",
                "target-id": control.id,
                "status": {"state": "satisfied" if satisfied else "not-satisfied"},
            },
            "related-observations": [{"observation-uuid": each} for each in dict.fromkeys(related)],
        }
        if reasons:
            finding["target"]["status"]["reason"] = "fail"
            finding["target"]["status"]["remarks"] = "\n".join(reasons[:_MAX_EVIDENCE])
        return finding

    def _observation(self, part: Part) -> str:
        if part.title in self._uuids:
            return self._uuids[part.title]
        uid = identifier(
            "observation", part.title, self._scope.start, self._scope.end, part.positive, part.against
        )
        self._uuids[part.title] = uid
        links = [*part.positive, *((reason, ref) for reason, ref in part.against if ref is not None)]
        observation: Json = {
            "uuid": uid,
            "title": part.title,
            "description": f"{len(part.positive)} observations for, {len(part.against)} against.",
            "methods": ["EXAMINE"],
            "collected": self._scope.end,
        }
        if links:
            observation["relevant-evidence"] = [
                {"href": proof_link(ref), "description": sentence}
                for sentence, ref in links[:_MAX_EVIDENCE]
                if ref
            ]
        if part.against:
            observation["remarks"] = "\n".join(reason for reason, _ in part.against[:_MAX_EVIDENCE])
        self.made.append(observation)
        return uid

    def observations(self, timeline: Timeline) -> list[Json]:
        """Return drills and detections of the period."""
        return [
            {
                "uuid": identifier("observation", kind, ref),
                "title": f"{kind} {data.get('name')}: {data.get('result')}",
                "description": str(data.get("detail") or f"A {kind} of the period."),
                "methods": ["TEST"],
                "collected": ref.time,
                "relevant-evidence": [{"href": proof_link(ref), "description": f"{kind} in the log"}],
            }
            for kind in ("drill", "detection")
            for ref, data in timeline.others.get(kind, ())
            if self._scope.start <= ref.time < self._scope.end
        ]

    def risks(self, timeline: Timeline) -> list[Json]:
        """Return the exceptions of the period."""
        return [
            {
                "uuid": identifier("risk", kind, ref),
                "title": sentence,
                "description": f"Recorded in {ref.origin}, entry {ref.entry}, at {ref.time}.",
                "statement": f"{sentence}, until {data.get('expires', 'unknown')}.",
                "status": "open",
                "links": [{"href": proof_link(ref), "rel": "evidence"}],
            }
            for kind, sentence, ref, data in exceptions(timeline, self._scope)
        ]


def prop(name: str, value: object, remarks: str = "") -> Json:
    """Return a property in Weightlock's namespace."""
    item: Json = {"name": name, "ns": NAMESPACE, "value": str(value)}
    if remarks:
        item["remarks"] = remarks
    return item


def _scope_props(scope: Scope, size: int, seed: int) -> list[Json]:
    logs = [prop("log", origin, f"{count} entries, root {root}") for origin, count, root in scope.logs]
    return [*logs, prop("sample-size", size), prop("sample-seed", seed)]


def _population(timeline: Timeline, scope: Scope, size: int, seed: int) -> list[Json]:
    grants = [record for record in timeline.grants if record.kind == "grant" and record.ref.time < scope.end]
    released = [
        ref
        for ref, data in timeline.releases
        if data.get("decision") == "released" and scope.start <= ref.time < scope.end
    ]
    counts = {
        "grants": len(grants),
        "releases": len(released),
        **{f"verdicts-{decision}": count for decision, count in sorted(timeline.verdicts.items())},
    }
    selection = sample(grants, size, seed)
    return [
        *(prop(f"population-{name}", count) for name, count in counts.items()),
        *(
            prop("sample", proof_link(record.ref), f"grant {record.data.get('request')}")
            for record in selection
        ),
    ]


def _unassessed(assessments: Sequence[Assessment]) -> list[Json]:
    return [
        prop(
            "not-assessed",
            each.control.id,
            "no observation in the period"
            if each.parts
            else f"not served by Weightlock: {each.control.words}",
        )
        for each in assessments
        if each.state == "not-assessed"
    ]


def metadata(title: str, modified: str, version: str) -> Json:
    """Return the metadata of a document."""
    return {"title": title, "last-modified": modified, "version": version, "oscal-version": OSCAL_VERSION}
