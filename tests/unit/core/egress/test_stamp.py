"""The stamp survives every spelling, and nothing else passes for one."""

import jsonpatch
import pytest

from webhook.core.egress import stamp
from webhook.core.egress.budget import Budget
from webhook.core.egress.readers import KIND, Readers, slim
from webhook.core.kube.metadata import patch_entries
from webhook.core.kube.objects import ObjectKey

ATLAS = Budget("atlas", 810 << 30, 30 * 86400, 2_000_000)
SMALL = Budget("small", 1 << 30, 86400, 1_000_000)


def pod(**annotations):
    return {"metadata": {"name": "p", "namespace": "n", "annotations": annotations}, "spec": {}}


def stamped(document, *budgets):
    expected = stamp.expected(document, budgets)
    for field, entries in stamp.entries(document, expected).items():
        document = jsonpatch.apply_patch(document, list(patch_entries(document, field, entries)))
    return document, expected


@pytest.mark.parametrize(
    "metadata", [{}, {"annotations": None}, {"annotations": {"a": "b"}, "labels": {"c": "d"}}]
)
def test_a_stamped_pod_needs_no_further_patch(metadata):
    document, expected = stamped({"metadata": {"name": "p", **metadata}}, ATLAS, SMALL)
    assert document["metadata"]["annotations"][stamp.BANDWIDTH] == "1000000"
    assert document["metadata"]["labels"][stamp.LABEL] == "limited"
    assert stamp.parse(document) == expected == stamp.Stamp(1_000_000, ("atlas", "small"))
    assert stamp.is_stamped(document, expected)
    assert stamp.is_stamped(document, stamp.expected(document, [ATLAS, SMALL]))


@pytest.mark.parametrize(
    ("own", "rate"),
    [
        ("1M", 1_000_000),
        ("1e6", 1_000_000),
        ("3M", 2_000_000),
        ("", 2_000_000),
        ("-1", 2_000_000),
        ("1", 2_000_000),
    ],
)
def test_a_user_may_set_a_lower_limit_only(own, rate):
    document, expected = stamped(pod(**{stamp.BANDWIDTH: own}), ATLAS)
    assert expected.rate == rate
    assert stamp.limit(document) == rate
    assert document["metadata"]["annotations"][stamp.BANDWIDTH] in (own, str(rate))


@pytest.mark.parametrize(
    "change",
    [
        {stamp.BANDWIDTH: "3M"},
        {stamp.BANDWIDTH: "1M"},
        {stamp.BANDWIDTH: None},
        {stamp.STAMP: None},
        {stamp.STAMP: '{"bitsPerSecond":1000,"models":["atlas"]}'},
    ],
)
def test_every_change_is_tampering(change):
    old, expected = stamped(pod(), ATLAS)
    new = jsonpatch.apply_patch(old, list(patch_entries(old, "annotations", change)))
    assert stamp.is_changed(new, old)
    assert not stamp.is_stamped(new, expected)
    assert not stamp.is_changed(old, old)
    removed = jsonpatch.apply_patch(old, list(patch_entries(old, "labels", {stamp.LABEL: None})))
    assert stamp.is_changed(removed, old)


def test_a_pod_without_a_budget_keeps_its_own_bandwidth():
    old, new = pod(**{stamp.BANDWIDTH: "5M"}), pod(**{stamp.BANDWIDTH: "9M"})
    assert not stamp.is_changed(new, old)
    assert stamp.is_stamped(new, None)
    assert not stamp.is_stamped(stamped(pod(), ATLAS)[0], None)


@pytest.mark.parametrize(
    "value",
    ["", "{", "[]", "3", '{"bitsPerSecond":true,"models":["a"]}', '{"bitsPerSecond":0,"models":["a"]}',
     '{"bitsPerSecond":5,"models":[]}', '{"bitsPerSecond":5,"models":[1]}', '{"bitsPerSecond":5}', "x" * 70_000],
)  # fmt: skip
def test_a_malformed_stamp_is_none(value):
    assert stamp.parse(pod(**{stamp.STAMP: value})) is None


def reader(name, created, *budgets, phase="Running", namespace="n"):
    document, _ = stamped(pod(), *budgets)
    document["metadata"] |= {
        "name": name,
        "namespace": namespace,
        "uid": f"u-{name}",
        "creationTimestamp": created,
    }
    return slim({**document, "status": {"phase": phase}})


def test_the_index_follows_pods():
    readers = Readers()
    readers.put(reader("a", "2026-01-01T00:00:00Z", ATLAS))
    readers.put(reader("b", "2026-01-01T00:00:01Z", ATLAS, SMALL))
    readers.put(reader("c", "2026-01-01T00:00:02Z", ATLAS, phase="Succeeded"))
    readers.put(reader("d", "2026-01-01T00:00:02Z", ATLAS, namespace="kube-system"))
    exempt = {"kube-system"}
    assert sorted(each.name for each in readers.of("atlas", exempt)) == ["a", "b"]
    assert [each.name for each in readers.of("small", exempt)] == ["b"]

    def others(name, *, before):
        return [each.name for each in readers.others("atlas", "n", name, exempt, before=before)]

    assert others("new", before=False) == ["a", "b"]
    assert others("a", before=True) == []
    assert others("b", before=True) == ["a"]
    assert sorted(others("unknown", before=True)) == ["a", "b"]
    readers.put(reader("b", "2026-01-01T00:00:01Z", ATLAS, SMALL, phase="Failed"))
    assert list(readers.of("small")) == []
    readers.remove(ObjectKey(KIND, "n", "a"))
    readers.remove(ObjectKey(KIND, "n", "a"))
    assert others("new", before=False) == []
