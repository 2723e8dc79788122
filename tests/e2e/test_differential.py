"""Weightlock against the API server's own ValidatingAdmissionPolicy: the same policy, object and user, the same answer.

Policies of both sides are the same documents. A case agrees where the outcome is the same, and with it the message, the
reason and the warnings; every difference is named in `differential.expected` and explained in docs/differences.md.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from differential import (
    authorizer_cases,
    field_cases,
    library_cases,
    match_cases,
    offline,
    operation_cases,
    shipped,
)
from differential.case import NAMESPACE, Case
from differential.expected import DIFFERENCES
from differential.native import Native, denial_of, with_audit
from differential.verdict import Said, difference
from harness.controlplane import ControlPlane, Options
from harness.programs import ROOT

EXPLAINED = ROOT / "docs" / "differences.md"
MODULES = (library_cases, authorizer_cases, match_cases, field_cases)
if os.environ.get("WEIGHTLOCK_E2E_LONG") == "1":
    MODULES += (operation_cases,)
CASES: dict[str, Case] = {case.name: case for module in MODULES for case in module.cases()}
NAMES = CASES.keys() | {case.name for case in operation_cases.cases()}
SPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": NAMESPACE,
        "labels": {"team": "a", "tier": "gold"},
        "annotations": {"example.com/note": "kept"},
    },
}
STATE: tuple[Mapping[str, Any], ...] = (*authorizer_cases.rbac(), *field_cases.state())


@dataclass(frozen=True, slots=True)
class NativeRun:
    """The API server's verdict of each case, and the objects that it would have sent to a webhook."""

    said: Mapping[str, Said]
    objects: Mapping[str, tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]
    space: Mapping[str, Any]


@pytest.fixture(scope="module")
def cluster(new_control_plane: Callable[[Options], ControlPlane]) -> ControlPlane:
    """A control plane of our own: hundreds of policies are nothing to have beside other tests."""
    cluster = new_control_plane(Options(controllers=False))
    cluster.apply(SPACE, operation_cases.CRD, *shipped.STATE[:2])
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").ok()
    cluster.apply(*STATE, *shipped.STATE[2:])
    for namespace in (NAMESPACE, shipped.SHELTER):
        cluster._default_account(namespace)
    return cluster


@pytest.fixture(scope="module")
def native_run(cluster: ControlPlane) -> NativeRun:
    """All cases, evaluated by an API server with the policies of all of them in force."""
    native = Native(cluster)
    native.prepare(CASES.values())
    objects = {case.name: native.admitted(case) for case in CASES.values()}
    native.install(CASES.values())
    said = {case.name: native.ask(case) for case in CASES.values()}
    notes = native.audited()
    said = {name: with_audit(it, CASES[name], notes.get(name, {})) for name, it in said.items()}
    native.close()
    space = cluster.client().get(f"/api/v1/namespaces/{NAMESPACE}").ok()
    return NativeRun(said, objects, space)


def test_every_difference_is_explained_and_belongs_to_a_case() -> None:
    headings = {line.lstrip("# ") for line in EXPLAINED.read_text().splitlines() if line.startswith("#")}
    assert set(DIFFERENCES.values()) <= headings
    assert DIFFERENCES.keys() <= NAMES


def test_no_difference_admits_a_denied_request(native_run: NativeRun) -> None:
    """An allowance of ours against a denial of theirs is a case that the API server could not evaluate."""
    lenient = [
        name
        for name in DIFFERENCES.keys() & CASES.keys()
        if not {"denied", "error"}.isdisjoint(native_run.said[name].outcomes)
        and "allowed" in ours(native_run, CASES[name]).outcomes
    ]
    assert lenient == ["authorizer-wrong-5"]


def ours(native_run: NativeRun, case: Case) -> Said:
    """What Weightlock says of a case."""
    return offline.ask(case, [native_run.space, *STATE], *native_run.objects[case.name])


def test_both_judge_alike(native_run: NativeRun, capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[str] = []
    agreed = 0
    for name, case in CASES.items():
        theirs = native_run.said[name]
        own = ours(native_run, case)
        matches = difference(theirs, own)
        agreed += not matches
        if bool(matches) != (name in DIFFERENCES):
            wrong.append(
                f"{name}: {matches or 'no difference'}\n  {case.spec}\n  there: {theirs}\n  here:  {own}"
            )
    with capsys.disabled():
        print(f"\ndifferential: {len(CASES)} triples, {agreed} agree, {len(DIFFERENCES)} listed differences")
    assert not wrong, "\n".join([f"{len(wrong)} differ", *wrong])


def test_every_policy_that_native_cel_can_express_is_compared() -> None:
    files = [
        file.name.removesuffix(".yaml")
        for file in shipped.POLICIES.glob("*.yaml")
        if file.name.count(".") == 1
    ]
    policies = {
        name: document
        for name in files
        for document in shipped.documents(name)
        if document["kind"] == "WeightPolicy"
    }
    assert sorted(name for name, policy in policies.items() if shipped.native(policy)) == sorted(
        shipped.EXPORTED
    )


def compare(cluster: ControlPlane, native: Native) -> tuple[int, list[str], int]:
    """Judge every object by the shipped policies on both sides: how many, what differs, how many are denied."""
    own = [
        document for name in (*shipped.EXPORTED, *shipped.REWORDED) for document in shipped.documents(name)
    ]
    inputs = [
        shipped.reworded(document) if document["metadata"]["name"] in shipped.REWORDED else document
        for document in own
        if document["kind"] == "WeightPolicy"
    ]
    objects = [native.create(document).ok() for document in (*shipped.pods(), *shipped.NETWORK_POLICIES)]
    cluster.apply(*(document for document in own if document["kind"] != "WeightPolicy"))
    cluster.apply(*(manifest for policy in inputs for manifest in shipped.native(policy)))
    native.install((), "sentinel-of-shipped")
    source = offline.source_of([*shipped.STATE, *own])
    wrong: list[str] = []
    denied = 0
    for document in objects:
        theirs = denial_of(native.create(document))
        denied += theirs is not None
        said = offline.denials(source, document)
        if theirs not in said if theirs is not None else bool(said):
            wrong.append(
                f"{document['kind']} {document['metadata']['name']}\n  there: {theirs}\n  here: {said}"
            )
    return len(objects), wrong, denied


def test_shipped_policies_judge_alike(cluster: ControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Native(cluster)) as native:
        objects, wrong, denied = compare(cluster, native)
    with capsys.disabled():
        print(f"\ndifferential, shipped policies: {objects} objects, {denied} denied, {len(wrong)} differ")
    assert not wrong, "\n".join(wrong)
