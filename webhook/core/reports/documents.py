"""Reports as documents of the two report APIs, and documents as reports.

The older is ``wgpolicyk8s.io/v1alpha2`` (PolicyReport, ClusterPolicyReport), whose repository is archived; the newer,
which took its place, is ``openreports.io/v1alpha1`` (Report, ClusterReport). Their fields differ in little but names
(config/crd of github.com/openreports/reports-api). A namespace has one report, and the cluster one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from webhook.core.reports.results import (
    ACTIONS,
    MAX_POLICIES,
    MAX_RESULTS,
    OUTCOMES,
    WAIVED,
    Counts,
    Resource,
    Result,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from webhook.core.kube.fields import Document

NAME = "weightlock"
SOURCE = "weightlock"
MANAGED_BY = {"app.kubernetes.io/managed-by": NAME}
SELECTOR = f"app.kubernetes.io/managed-by={NAME}"
_OPEN = "openreports.io"
_COUNTS = "weightlock.dev/counts"
_DIGEST = "weightlock.dev/digest"
_SCANNED = "weightlock.dev/scanned"
_ACTIONS = "actions"


@dataclass(frozen=True, slots=True)
class ReportApi:
    """One of the two APIs."""

    group: str
    version: str
    kind: str
    resource: str
    cluster_kind: str
    cluster_resource: str

    @property
    def api_version(self) -> str:
        """The group and version, as in ``apiVersion``."""
        return f"{self.group}/{self.version}"

    def path(self, namespace: str | None = None) -> str:
        """Return the path of the reports of one namespace, of all (None), or of the cluster (empty)."""
        root = f"/apis/{self.api_version}"
        if namespace is None:
            return f"{root}/{self.resource}"
        return (
            f"{root}/namespaces/{namespace}/{self.resource}"
            if namespace
            else f"{root}/{self.cluster_resource}"
        )


APIS = (
    ReportApi(_OPEN, "v1alpha1", "Report", "reports", "ClusterReport", "clusterreports"),
    ReportApi(
        "wgpolicyk8s.io",
        "v1alpha2",
        "PolicyReport",
        "policyreports",
        "ClusterPolicyReport",
        "clusterpolicyreports",
    ),
)


def namespace_report(
    api: ReportApi, namespace: str, results: Sequence[Result], counts: Counts, now: datetime
) -> Document:
    """Return the report of one namespace: violations by resource, and the number of passes."""
    entries = [_entry(item) for item in results]
    summary: dict[str, int] = {outcome: counts.outcomes[outcome] for outcome in OUTCOMES}
    summary |= {"pass": counts.passed, "skip": counts.skipped}
    scope = {"apiVersion": "v1", "kind": "Namespace", "name": namespace}
    report: Document = {"scope": scope, "summary": summary, "results": entries}
    if api.group == _OPEN:
        limits = {"maxResults": MAX_RESULTS, "statusFilter": list(OUTCOMES)}
        report["configuration"] = {"limits": limits}
    return _report(api, namespace, report, counts, now)


def cluster_report(
    api: ReportApi,
    policies: Mapping[str, Iterable[str]],
    counts: Mapping[str, Counts],
    problems: Mapping[str, str],
    now: datetime,
) -> Document:
    """Return the report of the cluster: one result per policy over all namespaces, and one per object that cannot
    be used as it is.

    ``policies`` has the actions of each; ``counts`` are by namespace; ``problems`` are by object.
    """
    total = Counts()
    places: Counter[str] = Counter()
    for each in counts.values():
        total.add(each)
        places.update({policy for policy, _ in each.broken})
    violations: dict[str, Counter[str]] = {}
    for (policy, how), number in total.broken.items():
        violations.setdefault(policy, Counter())[how] += number
    entries = [_problem(name, text) for name, text in sorted(problems.items())]
    names = sorted({*policies, *violations}, key=lambda name: (-sum(violations.get(name, {}).values()), name))
    for name in names:
        entry = _of_policy(name, violations.get(name, Counter()), places[name])
        actions = ",".join(action for action in ACTIONS if action in policies.get(name, ()))
        entries.append(
            {**entry, "properties": {**entry["properties"], _ACTIONS: actions}} if actions else entry
        )
    entries = entries[:MAX_POLICIES]
    summary: dict[str, int] = {"pass": 0, "skip": 0, **dict.fromkeys(OUTCOMES, 0)}
    for entry in entries:
        summary[entry["result"]] += 1
    return _report(api, "", {"summary": summary, "results": entries}, total, now)


def digest_of(document: Document) -> str:
    """Return a digest of a report without its times; empty for a report that Weightlock did not write."""
    return str(_annotations(document).get(_DIGEST, ""))


def scanned_at(document: Document) -> str:
    """Return when it was written, as RFC 3339; empty if it is not stated."""
    return str(_annotations(document).get(_SCANNED, ""))


def counts_of(document: Document) -> Counts:
    """Return the counts of a report; all zero if it has none, or unreadable ones."""
    try:
        stored = orjson.loads(_annotations(document).get(_COUNTS, "{}"))
        violations = {
            (str(policy), str(how)): int(number) for policy, how, number in stored.get("broken", ())
        }
        outcomes = {str(name): int(number) for name, number in stored.get("outcomes", {}).items()}
        numbers = [
            int(stored.get(name, 0)) for name in ("resources", "passed", "skipped", "leftOut", "newly")
        ]
    except (ValueError, TypeError, AttributeError):
        return Counts()
    resources, passed, skipped, left_out, newly = numbers
    return Counts(resources, passed, skipped, Counter(outcomes), Counter(violations), left_out, newly)


def results_in(document: Document) -> list[Result]:
    """Return the results of a namespace's report, without entries that Weightlock did not write."""
    results = []
    for entry in document.get("results") or ():
        if not isinstance(entry, dict) or entry.get("source") != SOURCE:
            continue
        properties = entry.get("properties") or {}
        for reference in entry.get("resources") or ():
            outcome = entry.get("result")
            if outcome in OUTCOMES:
                results.append(
                    Result(
                        resource=Resource(
                            str(reference.get("namespace", "")),
                            str(reference.get("name", "")),
                            str(reference.get("kind", "")),
                            str(reference.get("apiVersion", "")),
                            str(reference.get("uid", "")),
                        ),
                        policy=str(entry.get("policy", "")),
                        code=str(entry.get("rule", "")),
                        outcome=outcome,
                        message=str(entry.get("message", "")),
                        fix=str(properties.get("fix", "")),
                        actions=_actions(str(properties.get(_ACTIONS, "")).split(",")),
                        severity=str(entry.get("severity", "")),
                        controls=tuple(filter(None, str(properties.get("controls", "")).split(","))),
                        waiver=str(properties.get("waiver", "")),
                    )
                )
    return results


def unbroken_in(document: Document) -> dict[str, tuple[str, ...]]:
    """Return the policies without violations in the cluster's report, with their actions."""
    return {
        str(entry.get("policy", "")): _actions(
            str((entry.get("properties") or {}).get(_ACTIONS, "")).split(",")
        )
        for entry in document.get("results") or ()
        if isinstance(entry, dict) and entry.get("result") == "pass"
    }


def problems_in(document: Document) -> dict[str, str]:
    """Return the objects that cannot be used as written, with the reason, from the cluster's report."""
    return {
        str(entry.get("policy", "")): str(entry.get("message", ""))
        for entry in document.get("results") or ()
        if isinstance(entry, dict) and entry.get("result") == "error"
    }


def _actions(actions: Iterable[str]) -> tuple[str, ...]:
    return tuple(action for action in actions if action in ACTIONS) or ("Deny",)


def _entry(item: Result) -> Document:
    resource = item.resource
    reference = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "namespace": resource.namespace,
        "name": resource.name,
        "uid": resource.uid,
    }
    properties = {
        _ACTIONS: ",".join(item.actions),
        "fix": item.fix,
        "controls": ",".join(item.controls),
        "waiver": item.waiver,
    }
    return {
        "source": SOURCE,
        "policy": item.policy,
        "rule": item.code,
        "category": item.category,
        "severity": item.severity,
        "result": item.outcome,
        "scored": item.outcome != "warn",
        "message": item.message,
        "resources": [{name: value for name, value in reference.items() if value}],
        "properties": {name: value for name, value in properties.items() if value},
    }


def _of_policy(name: str, ways: Counter[str], namespaces: int) -> Document:
    total = sum(ways.values())
    message = "nothing that runs breaks it"
    if total:
        order = (*ACTIONS, WAIVED)
        parts = ", ".join(f"{ways[how]} {_way(how)}" for how in order if ways[how])
        things, places = _plural(total, "resource"), _plural(namespaces, "namespace")
        message = f"{things} in {places} {'breaks' if total == 1 else 'break'} it: {parts}"
    serious = ways["Deny"] + ways["Audit"]
    return {
        "source": SOURCE,
        "policy": name,
        "result": "fail" if serious else "warn" if total else "pass",
        "scored": bool(serious or not total),
        "message": message,
        "properties": {how: str(number) for how, number in sorted(ways.items()) if number},
    }


def _way(how: str) -> str:
    return how if how == WAIVED else f"at {how}"


def _plural(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _problem(name: str, text: str) -> Document:
    return {"source": SOURCE, "policy": name, "result": "error", "scored": True, "message": text[:512]}


def _report(api: ReportApi, namespace: str, report: Document, counts: Counts, now: datetime) -> Document:
    common = {"apiVersion": api.api_version, "kind": api.kind if namespace else api.cluster_kind}
    if api.group == _OPEN:
        report = {**report, "source": SOURCE}
    digest = hashlib.sha256(orjson.dumps([common, report, _stored(counts)], option=orjson.OPT_SORT_KEYS))
    moment = {"seconds": int(now.timestamp()), "nanos": 0}
    timed = [{**entry, "timestamp": moment} for entry in report["results"]]
    annotations = {
        _DIGEST: digest.hexdigest(),
        _COUNTS: orjson.dumps(_stored(counts)).decode(),
        _SCANNED: now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    metadata: Document = {"name": NAME, "labels": dict(MANAGED_BY), "annotations": annotations}
    if namespace:
        metadata["namespace"] = namespace
    return {**common, "metadata": metadata, **report, "results": timed}


def _stored(counts: Counts) -> Document:
    """Return the counts for the annotation, bounded: all annotations together may have 256 KiB."""
    most = sorted(counts.broken.items(), key=lambda item: (-item[1], item[0]))[:MAX_POLICIES]
    return {
        "resources": counts.resources,
        "passed": counts.passed,
        "skipped": counts.skipped,
        "leftOut": counts.left_out,
        "newly": counts.newly,
        "outcomes": dict(sorted(counts.outcomes.items())),
        "broken": sorted([policy, how, number] for (policy, how), number in most),
    }


def _annotations(document: Document) -> dict[str, Any]:
    metadata = document.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return annotations if isinstance(annotations, dict) else {}
