"""What the access commands print, word for word: each story has a golden file."""

import pytest

from webhook.cli.access import view
from webhook.core.access import Phase


def pending(office):
    office.request("r", reason="evals\x1b[31m for\nthe release")
    office.vote("r", "bob", comment="fine by me")


def active(office):
    office.request("r")
    office.vote("r", "bob", minutes=-20)
    office.vote("r", "carol", minutes=-10)


def expired(office):
    office.request("r", minutes=-1000, duration="1h")
    office.vote("r", "bob", minutes=-990)
    office.vote("r", "carol", minutes=-980)


def denied(office):
    office.request("r")
    office.vote("r", "bob", "Deny", comment="ask for the smaller model")


def revoked(office):
    active(office)
    office.vote("r", "alice", "Revoke", minutes=-1)


def lapsed(office):
    office.request("r", minutes=-60 * 24 * 8)


def invalid(office):
    office.request("r", model="borealis")


def for_a_user(office):
    office.request("r", subject={"kind": "User", "name": "alice"}, namespaces=["research", "evals", "lab"])


def change(office):
    digest = "sha256:" + "0" * 64
    office.request(
        "r",
        model=None,
        subject=None,
        namespaces=None,
        change={"kind": "ModelWeights", "name": "atlas-70b", "digest": digest},
    )


def waiver(office):
    office.request(
        "r",
        model=None,
        subject=None,
        namespaces=None,
        waiver={"code": "WL201", "namespace": "research", "podSelector": {}},
        status={"state": "Pending", "approvals": "0/1"},
    )


def emergency(office):
    status = {"state": "Active", "begins": "2026-11-02T08:30:00Z", "ends": "2026-11-02T09:30:00Z"}
    office.request("r", duration="1h", breakGlass=True, status=status)


def unsigned(office):
    office.request("r", status={"state": "Invalid", "reason": "it is not signed"})


STORIES = [
    pending,
    active,
    expired,
    denied,
    revoked,
    lapsed,
    invalid,
    for_a_user,
    change,
    waiver,
    emergency,
    unsigned,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_one_request_in_full(office, golden, story):
    story(office)
    golden(f"access/show-{story.__name__}.txt", view.detail(office.ledger.entry("r"), office.now))


def test_the_table_of_all(office, golden):
    for number, story in enumerate(STORIES[:5]):
        story(office)
        office.requests[-1]["metadata"] |= {"name": f"r{number}", "uid": f"uid-r{number}"}
        for vote in office.approvals:
            if vote["spec"]["request"]["name"] == "r":
                vote["spec"]["request"] = {"name": f"r{number}", "uid": f"uid-r{number}"}
    office.requests.append({"kind": "AccessRequest", "metadata": {"name": "broken"}, "spec": 7})
    golden("access/list.txt", view.listing(office.ledger.entries(), office.now))


def test_an_empty_table_says_how_to_begin(office, golden):
    golden("access/list-empty.txt", view.listing([], office.now))


@pytest.mark.parametrize("story", [pending, active, invalid], ids=lambda story: story.__name__)
def test_after_asking(office, golden, story):
    story(office)
    golden(f"access/asked-{story.__name__}.txt", view.made(office.ledger.entry("r"), office.now))


@pytest.mark.parametrize(
    ("story", "decision"), [(pending, "Approve"), (active, "Approve"), (denied, "Deny"), (revoked, "Revoke")]
)
def test_after_a_decision(office, golden, story, decision):
    story(office)
    golden(
        f"access/decided-{story.__name__}.txt",
        view.voted(office.ledger.entry("r"), decision, office.now),
    )


def test_the_controllers_state_is_shown_and_moves_on_with_time(office):
    office.request("r", status={"state": "Active", "approvals": "2/2", "ends": "2026-11-02T08:59:00Z"})
    office.request("s", status={"state": "Active", "approvals": "x/y", "ends": "2026-11-02T09:01:00Z"})
    office.request("t", status={"state": "Invented"})
    phases = {entry.name: entry.state.phase for entry in office.ledger.entries()}
    assert phases == {"r": Phase.EXPIRED, "s": Phase.ACTIVE, "t": Phase.PENDING}
