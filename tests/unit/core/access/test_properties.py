"""Any history of requests, votes, rule changes and time: a grant exists exactly when an independent reading says so.

The oracle below is written from the rules in words, by brute force over people, and shares no code with the index.
"""

from datetime import UTC, datetime, timedelta
from itertools import permutations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from webhook.api.access import AccessApproval, AccessRequest, AccessSettings
from webhook.api.modelweights import ModelWeights
from webhook.core.access import GrantIndex, Phase
from webhook.core.kube.time import format_time

PEOPLE = ["alice", "Alice", "bob", "carol", "dave", "system:serviceaccount:research:trainer"]
GROUPS = ["security", "owners", "guests"]
MEMBERSHIPS = st.sampled_from(
    [(), ("security",), ("security",), ("security", "owners"), ("owners",), ("guests",)]
)
UIDS = {"alice": "1", "Alice": "", "bob": "2", "carol": "3", "dave": "2"}
SKEW = timedelta(minutes=2)
PENDING = timedelta(days=1)


def build_model(rules):
    spec = {"sensitivity": "frontier", "volumes": [{"nfs": {"server": "s", "path": "/p"}}], "access": rules}
    return ModelWeights.model_validate(
        {
            "apiVersion": "weightlock.dev/v1alpha1",
            "kind": "ModelWeights",
            "metadata": {"name": "m"},
            "spec": spec,
        }
    )


def build(kind, name, uid, time, spec):
    model = AccessRequest if kind == "AccessRequest" else AccessApproval
    metadata = {"name": name, "uid": uid, "creationTimestamp": format_time(time)}
    return model.model_validate(
        {"apiVersion": "weightlock.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    )


def same_person(one, other):
    return one["username"].lower() == other["username"].lower() or bool(
        one["uid"] and one["uid"] == other["uid"]
    )


class Oracle:
    """The rules of a grant, read naively."""

    def __init__(self, rules, requests, votes, now):
        self.rules, self.requests, self.votes, self.now = rules, requests, votes, now

    def eligible(self, person, request):
        name = person["username"]
        if name.startswith("system:") or same_person(person, request["by"]) or name.lower() == "alice":
            return False  # alice is the User subject of every request of this machine
        expectation = {*self.rules["approvers"]["groups"], *(entry["group"] for entry in self.rules["rules"])}
        return name in self.rules["approvers"]["users"] or bool(expectation & set(person["groups"]))

    def enough(self, people):
        places = [entry["group"] for entry in self.rules["rules"] for _ in range(entry["count"])]
        if len(people) < max(self.rules["approvals"], len(places)):
            return False
        return any(
            all(group in person["groups"] for group, person in zip(places, selection, strict=True))
            for selection in permutations(people, len(places))
        )

    def interval(self, request):
        """(begins, ends) or None. A voter who shares a mark with an earlier voter is the same person."""
        mine = [
            vote for vote in self.votes if vote["uid"] == request["uid"] and vote["name"] == request["name"]
        ]
        if any(vote["decision"] != "Approve" for vote in mine):
            return None
        if not timedelta(0) < request["duration"] <= timedelta(hours=self.rules["max"]):
            return None
        begins = request["time"] if self.enough([]) else None
        people, voters = [], []
        for vote in sorted(mine, key=lambda vote: (vote["time"], vote["id"])):
            late = vote["time"] < request["time"] or vote["time"] > request["time"] + PENDING
            if begins is not None or late or not self.eligible(vote["by"], request):
                continue
            if not any(same_person(vote["by"], earlier) for earlier in voters):
                people.append(vote["by"])
            voters.append(vote["by"])
            if self.enough(people):
                begins = vote["time"]
        return None if begins is None else (begins, begins + request["duration"])

    def holds(self, request):
        interval = self.interval(request)
        return interval is not None and interval[0] <= self.now + SKEW and self.now < interval[1]


class Histories(RuleBasedStateMachine):
    """Everything that can be written, in any order, while time goes on."""

    @initialize(approvals=st.sampled_from([0, 1, 2, 2, 3]))
    def begin(self, approvals):
        self.now = datetime(2026, 11, 2, 9, tzinfo=UTC)
        self.rules = {
            "approvals": approvals,
            "approvers": {"groups": ["security"], "users": ["carol"]},
            "rules": [],
            "max": 8,
        }
        self.requests, self.votes, self.lost, self.count = {}, {}, set(), 0
        access = AccessSettings(pending_lifetime="1d")
        self.index = GrantIndex.build(models=[self.model()], settings=access)

    def model(self):
        rules = {key: self.rules[key] for key in ("approvals", "approvers", "rules")}
        return build_model({**rules, "maxDuration": f"{self.rules['max']}h"})

    def person(self, name, groups):
        return {"username": name, "uid": UIDS.get(name, ""), "groups": sorted(groups)}

    @rule(
        name=st.sampled_from(["r1", "r2"]),
        by=st.sampled_from(PEOPLE),
        hours=st.sampled_from([0, 1, 4, 4, 8, 9]),
    )
    def parsed(self, name, by, hours):
        if name in self.requests:
            return
        self.count += 1
        duration = timedelta(hours=hours)
        request = {
            "name": name,
            "uid": f"u{self.count}",
            "time": self.now,
            "by": self.person(by, ()),
            "duration": duration,
        }
        self.requests[name] = request
        spec = {
            "model": "m",
            "subject": {"kind": "User", "name": "alice"},
            "namespaces": ["research"],
            "duration": f"{hours}h",
            "reason": "r",
            "requester": request["by"],
        }
        self.index = self.index.with_changes([build("AccessRequest", name, request["uid"], self.now, spec)])

    @precondition(lambda self: self.requests)
    @rule(
        data=st.data(),
        voters=st.lists(st.tuples(st.sampled_from(PEOPLE), MEMBERSHIPS), min_size=1, max_size=4),
        skew=st.sampled_from([0, 0, 0, -30, 60, 300]),
        right=st.sampled_from([True, True, True, False]),
    )
    def approve(self, data, voters, skew, right):
        request = self.requests[data.draw(st.sampled_from(sorted(self.requests)))]
        for by, groups in voters:
            self.write_vote(request, self.person(by, groups), "Approve", skew, right)

    @precondition(lambda self: self.requests)
    @rule(
        data=st.data(),
        by=st.sampled_from(PEOPLE),
        decision=st.sampled_from(["Deny", "Revoke"]),
        hours=st.sampled_from([0, 0, 20]),
    )
    def stop(self, data, by, decision, hours):
        request = self.requests[data.draw(st.sampled_from(sorted(self.requests)))]
        self.write_vote(request, self.person(by, ["security"]), decision, hours * 3600, right=True)

    def write_vote(self, request, by, decision, skew, right):
        self.count += 1
        vote = {
            "id": f"v{self.count:04}",
            "name": request["name"],
            "uid": request["uid"] if right else "u0",
            "time": self.now + timedelta(seconds=skew),
            "by": by,
            "decision": decision,
        }
        self.votes[vote["id"]] = vote
        spec = {
            "request": {"name": vote["name"], "uid": vote["uid"]},
            "decision": decision,
            "approver": vote["by"],
        }
        self.index = self.index.with_changes(
            [build("AccessApproval", vote["id"], vote["id"], vote["time"], spec)]
        )

    @precondition(lambda self: self.votes)
    @rule(data=st.data())
    def a_vote_is_deleted(self, data):
        name = data.draw(st.sampled_from(sorted(self.votes)))
        if name in self.lost:
            return
        vote = self.votes[name]
        request = self.requests.get(vote["name"])
        if vote["decision"] != "Approve" and request is not None and request["uid"] == vote["uid"]:
            # A stop counts as long as its request exists.
            self.lost.add(name)
        else:
            del self.votes[name]
        self.index = self.index.with_changes(remove=[("AccessApproval", name)])

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def withdraw(self, data):
        name = data.draw(st.sampled_from(sorted(self.requests)))
        del self.requests[name]
        for vote in [vote for vote in self.lost if self.votes[vote]["name"] == name]:
            self.lost.discard(vote)
            del self.votes[vote]
        self.index = self.index.with_changes(remove=[("AccessRequest", name)])

    @rule(
        approvals=st.sampled_from([0, 1, 1, 2, 2, 3]),
        groups=st.sampled_from([("security",), ("security", "owners"), ()]),
        users=st.sets(st.sampled_from(["carol", "bob"])),
        rules=st.lists(st.tuples(st.sampled_from(GROUPS), st.integers(1, 2)), max_size=2),
        longest=st.sampled_from([4, 8]),
    )
    def change_rules(self, approvals, groups, users, rules, longest):
        self.rules = {
            "approvals": approvals,
            "approvers": {"groups": sorted(groups), "users": sorted(users)},
            "rules": [{"group": group, "count": count} for group, count in rules],
            "max": longest,
        }
        self.index = self.index.with_changes(models={"m": self.model().spec.access})

    @rule(minutes=st.sampled_from([0, 1, 3, 59, 60, 239, 240, 60 * 25]))
    def pass_time(self, minutes):
        self.now += timedelta(minutes=minutes)

    @invariant()
    def grants_equal_the_oracle(self):
        oracle = Oracle(self.rules, self.requests, list(self.votes.values()), self.now)
        expected = sorted(name for name, request in self.requests.items() if oracle.holds(request))
        assert sorted(grant.request for grant in self.index.active(self.now)) == expected
        mine = self.index.for_subject("alice", None, "research", self.now)
        assert sorted(grant.request for grant in mine) == expected
        assert self.index.for_subject("alice", None, "default", self.now) == ()
        for name in self.requests:
            assert (self.index.state(name, self.now).phase is Phase.ACTIVE) == (name in expected)

    @invariant()
    def a_book_grown_step_by_step_is_the_book_built_at_once(self):
        requests = [
            build(
                "AccessRequest",
                request["name"],
                request["uid"],
                request["time"],
                {
                    "model": "m",
                    "subject": {"kind": "User", "name": "alice"},
                    "namespaces": ["research"],
                    "duration": f"{int(request['duration'].total_seconds() // 3600)}h",
                    "reason": "r",
                    "requester": request["by"],
                },
            )
            for request in self.requests.values()
        ]
        votes = [
            build(
                "AccessApproval",
                vote["id"],
                vote["id"],
                vote["time"],
                {
                    "request": {"name": vote["name"], "uid": vote["uid"]},
                    "decision": vote["decision"],
                    "approver": vote["by"],
                },
            )
            for vote in self.votes.values()
        ]
        whole = GrantIndex.build(requests, votes, [self.model()], self.index.settings)
        assert whole.active(self.now) == self.index.active(self.now)
        for name in self.requests:
            assert whole.state(name, self.now) == self.index.state(name, self.now)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=100, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
