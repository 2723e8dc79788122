"""Suggestions: the smallest request, read out of a denial."""

from datetime import timedelta

from webhook.cli.access.suggest import rendered, suggest, wanted

DENIAL = (
    'Error from server (Forbidden): error when creating "pod.yaml": admission webhook "validate.weightlock.dev" denied '
    'the request: Pod research/train-7 is not allowed to read model "atlas-70b": service account research/default has no '
    "active grant [WL101]\nFix: weightlock access request atlas-70b --for 8h --service-account research/default"
)


def test_model_and_account_come_from_the_sentence():
    assert wanted([DENIAL]) == [("atlas-70b", "research/default")]


def test_two_models_and_a_line_break_in_the_middle():
    text = (
        'Job a/b is not allowed to read\n model "atlas-70b", "borealis": no\nservice account research/train'
    )
    assert wanted([text, text]) == [("atlas-70b", "research/train"), ("borealis", "research/train")]


def test_only_the_fix_is_known():
    assert wanted(["Fix: weightlock access request atlas-70b --for 8h"]) == [("atlas-70b", "")]
    assert wanted(["Fix: weightlock access request a --for 8h --service-account n/s"]) == [("a", "n/s")]


def test_other_denials_name_no_model():
    assert wanted(['Pod research/x asks for "nvidia.com/gpu" without entitlement', ""]) == []
    assert "not denied for want of access" in rendered([])


def test_a_huge_text_is_cut():
    assert wanted(["x" * 70000 + DENIAL]) == []
    assert wanted(["is not allowed to read model " + '"a", ' * 20000]) != []


def test_the_duration_is_what_was_asked_before_and_at_most_the_limit(office):
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
        "atlas-70b for yourself, 1 h 30 min (the longest this model allows):\n"
        "  weightlock access request atlas-70b --for 1h30m --reason TEXT"
    )


def test_without_a_ledger_a_working_day_is_suggested():
    (item,) = suggest([("atlas-70b", "")], None)
    assert item.duration == timedelta(hours=8)
