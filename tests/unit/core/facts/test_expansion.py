"""Texts with variables filled in: the kubelet's, a shell's, and the bound on the work."""

import pytest

from webhook.core.facts.expansion import container_variables, expanded
from webhook.core.kube.budget import Budget, BudgetExceededError
from webhook.core.kube.objects import Lookup, ObjectStore


def lookup(steps=10_000):
    return Lookup(ObjectStore(complete=True), budget=Budget(steps))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://$(B)/x", "s3://weights/x"),
        ("s3://$B/x", "s3://weights/x"),
        ("s3://${B}/x", "s3://weights/x"),
        ("s3://${B:-other}/x", "s3://weights/x"),
        ("s3://${MISSING:-weights}/x", "s3://weights/x"),
        ("s3://$MISSING/$(MISSING)", "s3://$MISSING/$(MISSING)"),
        ("P=atlas; cp s3://$B/$P", "P=atlas; cp s3://weights/atlas"),
        ("export U='s3://weights' && cp $U/atlas", "export U='s3://weights' && cp s3://weights/atlas"),
        ("A=$B; cp s3://$A", "A=weights; cp s3://weights"),
        ("price: 5$", "price: 5$"),
    ],
)
def test_variables_are_filled_in(text, expected):
    assert expanded(text, {"B": "weights"}, lookup()) == expected


def test_variables_of_a_container_refer_to_the_ones_before():
    env = [
        {"name": "B", "value": "weights"},
        {"name": "U", "value": "s3://$(B)/$(LATER)"},
        {"name": "LATER", "value": "x"},
        {"name": "S", "valueFrom": {"secretKeyRef": {}}},
    ]
    values = container_variables({"env": env}, "spec", lookup())
    assert values == {"B": "weights", "U": "s3://weights/$(LATER)", "LATER": "x"}


def test_variables_that_grow_each_other_exceed_the_budget():
    env = [{"name": "A0", "value": "x" * 10}]
    env += [{"name": f"A{index}", "value": f"$(A{index - 1})" * 10} for index in range(1, 30)]
    with pytest.raises(BudgetExceededError, match="variables in texts"):
        container_variables({"env": env}, "spec", lookup())


def test_a_long_script_is_read_to_its_end():
    text = "# filler\n" * 20_000 + "cp s3://$B/atlas"
    assert expanded(text, {"B": "weights"}, lookup()).endswith("cp s3://weights/atlas")
