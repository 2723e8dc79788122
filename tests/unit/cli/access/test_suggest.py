"""Suggestions: the smallest request, read out of a denial."""

from datetime import timedelta

from webhook.cli.access.suggest import rendered, requests_in, suggest

DENIAL = (
    'Error from server (Forbidden): error when creating "pod.yaml": admission webhook "validate.weightlock.dev" denied '
    "the request: any sentence in any words [WL101]\n"
    "Fix: weightlock access request atlas-70b --for 8h --service-account research/default   (its approvers decide)"
)


def test_model_and_account_come_from_the_command_of_the_fix():
    assert requests_in([DENIAL]) == [("atlas-70b", "research/default")]
    assert requests_in(["Fix: weightlock access request atlas-70b --for 8h"]) == [("atlas-70b", "")]
    assert requests_in(["Fix: weightlock access request a --for 8h --service-account n/s"]) == [("a", "n/s")]


def test_two_requests_and_a_line_break_in_the_middle():
    text = "weightlock access request\n atlas-70b --for 8h; or weightlock access request borealis --for 1h"
    assert requests_in([text, text]) == [("atlas-70b", ""), ("borealis", "")]


def test_other_denials_name_no_model():
    assert requests_in(['Pod research/x requests "nvidia.com/gpu" without entitlement', ""]) == []
    assert rendered([]) != ""


def test_a_huge_text_is_cut():
    assert requests_in(["x" * 70000 + DENIAL]) == []


def test_the_duration_is_the_usual_one_up_to_the_limit(office):
    for number, duration in enumerate(["2h", "2h", "4h"]):
        office.request(f"r{number}", duration=duration)
    office.request("other", duration="1h", subject={"kind": "User", "name": "zoe"})
    (item,) = suggest([("atlas-70b", "research/trainer")], office.ledger)
    assert item.duration == timedelta(hours=2)
    assert (
        item.command
        == "weightlock access request atlas-70b --for 2h --service-account research/trainer --reason TEXT"
    )
    (stranger,) = suggest([("atlas-70b", "research/new")], office.ledger)
    assert stranger.duration == timedelta(hours=2)
    office.models[0]["spec"]["access"]["maxDuration"] = "90m"
    (short,) = suggest([("atlas-70b", "")], office.ledger)
    assert rendered([short]) == (
        "atlas-70b for yourself, 1 h 30 min (the maximum for this model):\n"
        "  weightlock access request atlas-70b --for 1h30m --reason TEXT"
    )


def test_without_a_ledger_a_working_day_is_suggested():
    (item,) = suggest([("atlas-70b", "")], None)
    assert item.duration == timedelta(hours=8)
