"""The egress budget against odd quantities, forged stamps and changed annotations."""

from __future__ import annotations

from itertools import product

import pytest

from webhook.api.quantity import BitRate, ByteCount, whole
from webhook.core.admission.egress import replicas_of, tampering
from webhook.core.egress import stamp
from webhook.core.egress.budget import Budget
from webhook.core.egress.readers import KIND, Readers, slim
from webhook.core.kube.objects import ObjectKey

ATLAS = Budget("atlas", 810 << 30, 30 * 86400, 2_000_000)


def pod(rate="2000000", mark=None, namespace="n", name="p", **status):
    annotations = {} if rate is None else {stamp.BANDWIDTH: rate}
    if mark is not None:
        annotations[stamp.STAMP] = mark
    return {
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations,
        "labels": {stamp.LABEL: "limited"}},
        "status": status,
    }  # fmt: skip


def mark(*models, rate=2_000_000):
    return stamp.Stamp(rate, models).text()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1k", 1000), ("+1k", 1000), ("1e3", 1000), ("1E3", 1000), ("1E", 10**18), ("1.5M", 1_500_000), (".5M",
        500_000),
        ("1000.0001", 1001), ("1000000m", 1000), ("1Ki", 1024), ("0.0000000001Ei", 115_292_151), ("1e-0", 1), ("0", 0),
        ("999999999999999999999999999999E", (10**30 - 1) * 10**18),
    ],
)  # fmt: skip
def test_spellings(text, value):
    assert whole(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " 1M", "1M ", "1M\n", "-1M", "1 M", "1mi", "1KI", "1K", "0x10", "1e", "1e100", "\u0661M", "1_000", "nan",
    "inf", "1" * 31,
     "1.1.1", "1kM", "1" * 65, "∞"],
)  # fmt: skip
def test_invalid_quantities_are_errors(text):
    with pytest.raises(ValueError, match="quantity"):
        whole(text)


@pytest.mark.parametrize("text", ["0", "-1", "999", "1E", "1e99", "1000001G", "0.1m", True, -5, 10**16])
def test_rates_out_of_bounds(text):
    with pytest.raises(ValueError, match=r"bounds|quantity"):
        BitRate(text)


@pytest.mark.parametrize("text", [0, "0", "-1", "8Ei", "9223372036854775808", False])
def test_sizes_out_of_bounds(text):
    with pytest.raises(ValueError, match=r"bounds|quantity"):
        ByteCount(text)


@pytest.mark.parametrize(
    "own", ["0", "-1", "1e99", "999", "x", "", None, 5, ["1M"], {"a": 1}, "3M", "2000001"]
)
def test_a_limit_that_is_invalid_or_too_high_is_replaced(own):
    document = pod(own)
    expected = stamp.expected(document, [ATLAS])
    assert expected is not None
    assert expected.rate == ATLAS.per_pod
    assert stamp.entries(document, expected)["annotations"][stamp.BANDWIDTH] == "2000000"
    assert not stamp.is_stamped(document, expected)


@pytest.mark.parametrize("own", ["1M", "1e6", "1000k", "999999.1", "1000000000m"])
def test_a_lower_limit_stays_in_its_spelling(own):
    expected = stamp.expected(pod(own), [ATLAS])
    assert expected is not None
    assert expected.rate == 1_000_000
    assert stamp.BANDWIDTH not in stamp.entries(pod(own), expected)["annotations"]


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "null", "x", '{"bitsPerSecond": 1}', '{"bitsPerSecond": "1000", "models": ["a"]}',
        '{"bitsPerSecond": true, "models": ["a"]}', '{"bitsPerSecond": 1000.5, "models": ["a"]}',
        '{"bitsPerSecond": -1, "models": ["a"]}', '{"bitsPerSecond": 0, "models": ["a"]}',
        '{"bitsPerSecond": 10000000000000000, "models": ["a"]}', '{"bitsPerSecond": 1000, "models": []}',
        '{"bitsPerSecond": 1000, "models": [1]}', '{"bitsPerSecond": 1000, "models": "a"}',
        '{"bitsPerSecond": 1000, "models": ["a", "a"]}', "[" * 100_000, '{"bitsPerSecond": 1e999, "models": ["a"]}',
    ],
)  # fmt: skip
def test_a_forged_stamp_counts_for_no_reader_and_breaks_nothing(text):
    document = pod(mark=text)
    assert stamp.parse(document) is None
    readers = Readers()
    readers.put(slim(document))
    readers.put(slim(document))
    readers.remove(ObjectKey(KIND, "n", "p"))
    assert len(readers) == 0


def test_a_reader_with_a_repeated_model_can_be_removed():
    """A pod of an exempt namespace has no verdict, so its stamp can have any content."""
    readers = Readers()
    document = slim(pod(mark=mark("a", "b"))) | {"models": ["a", "a", "b"]}
    readers.put(document)
    readers.put(document)
    assert len(list(readers.of("a"))) == 1
    readers.remove(ObjectKey("Pod", "n", "p"))
    assert [*readers.of("a"), *readers.of("b")] == []


def test_an_exempt_namespace_and_an_ended_pod_use_no_budget():
    readers = Readers()
    readers.put(slim(pod(mark=mark("atlas"), namespace="kube-system")))
    readers.put(slim(pod(mark=mark("atlas"), name="done", phase="Succeeded")))
    readers.put(slim(pod(mark=mark("atlas"), name="other")))
    assert [reader.name for reader in readers.of("atlas", {"kube-system"})] == ["other"]


def test_of_two_pods_admitted_at_once_exactly_one_is_over():
    readers, budget = Readers(), Budget("atlas", 1 << 30, 86400, 90_000)
    for name, uid in (("a", "2"), ("b", "1")):
        document = pod(mark=mark("atlas", rate=90_000), name=name)
        document["metadata"] |= {"uid": uid, "creationTimestamp": "2026-11-29T08:00:00Z"}
        readers.put(slim(document))
    over = {
        name: not budget.holds(90_000 + sum(each.rate for each in readers.others("atlas", "n", name, before=True)))
        for name in ("a", "b")
    }  # fmt: skip
    assert over == {"a": True, "b": False}


@pytest.mark.parametrize("change", [None, "1M", "2M", "99G", ""])
def test_an_update_of_the_annotation_or_the_stamp_is_denied(change):
    """Also by server-side apply: the webhook receives the merged object."""
    old = pod(mark=mark("atlas"))
    assert tampering(pod(change, mark("atlas")), old)
    assert tampering(pod("2000000", change), old)
    assert tampering(pod("2000000"), old)
    assert not tampering(pod(mark=mark("atlas")), old)
    assert tampering(old, pod())


@pytest.mark.parametrize(
    "metadata", [None, [], {}, {"annotations": []}, {"annotations": None}, {"labels": "x"}]
)
def test_metadata_of_any_form(metadata):
    document = {"metadata": metadata}
    assert stamp.limit(document) is None
    assert stamp.parse(document) is None
    assert not stamp.is_marked(document)
    assert not stamp.is_sufficient(document, [ATLAS])
    assert tampering(document, pod(mark=mark("atlas")))


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ({"replicas": None}, 1), ({"replicas": 0}, 0), ({"replicas": "7"}, 1), ({"replicas": -3}, 0),
        ({"replicas": True}, 1),
        ({"replicas": 1 << 70}, 100_000), ({"parallelism": 4}, 4), ({"jobTemplate": {"spec": {"parallelism": 5}}}, 5),
        ({"jobTemplate": {"spec": None}}, 1), ({"jobTemplate": None, "replicas": 2}, 2), (None, 1), ([], 1), ("x",
        1), ({}, 1),
        ({"replicas": 1.5}, 1),
    ],
)  # fmt: skip
def test_replicas_of_any_form(spec, count):
    assert replicas_of({"spec": spec}) == count


def test_the_arithmetic_has_no_overflow_and_no_rounding_in_favour_of_the_reader():
    sizes, times, rates = (1, 1 << 30, (1 << 63) - 1), (1, 86400, 86_400_000_000), (1000, 2_000_000, 10**15)
    for size, minimum, rate in product(sizes, times, rates):
        budget = Budget("m", size, minimum, rate)
        assert budget.holds(budget.allowed)
        assert not budget.holds(budget.allowed + 1)
        assert budget.left(10**18 * 1000) == 0
        assert budget.arithmetic([rate] * 3, rate)
