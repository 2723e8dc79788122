"""A generated month of a research cluster without a theft: the entries that its logs would have.

200 people in 20 teams, 5,000 Jobs a day of which some read one of 12 models, approvals, on-call incidents, releases of
models, replaced nodes, rollouts of policies and mistakes in manifests. The same seed gives the same month.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush

from webhook.core.audit.entries import envelope, timestamp

START = datetime(2026, 10, 5, tzinfo=UTC)  # a Monday
MODELS = [f"atlas-{size}" for size in ("7b", "34b", "70b", "400b")] + [
    f"borea-{number}" for number in range(8)
]
APPROVERS = [f"lead-{number}@example.com" for number in range(12)]
_MISTAKES = [["WL101"], ["WL102"], ["WL201"], ["WL502"], ["WL503"], ["WL504"]]


@dataclass
class Team:
    """A team, its habits and its models."""

    number: int
    people: list[str]
    models: list[str]
    first_hour: int
    nights: bool
    share: float

    @property
    def namespace(self):
        return f"team-{self.number}"


class Month:
    """Yields (time, origin, data kind, data) in the order of time. ``plain`` scales the Jobs that read no model."""

    def __init__(self, seed=1, days=30, plain=1.0):
        self.random = random.Random(seed)
        self.days, self.plain = days, plain
        self.queue, self.count = [], 0
        self.teams = [self._team(number) for number in range(20)]
        # Each model runs on a pool of 16 nodes.
        self.pools = [[f"gpu-{pool}-{node}" for node in range(16)] for pool in range(4)]
        self.grants = {}
        self.releases = dict.fromkeys(MODELS, 0)

    def _team(self, number):
        pick = self.random
        people = [f"user-{number}-{each}@example.com" for each in range(10)]
        models = pick.sample(MODELS, pick.choice([1, 2, 2, 3]))
        return Team(
            number, people, models, pick.choice([7, 8, 16]), pick.random() < 0.5, pick.uniform(0.5, 2)
        )

    def entries(self):
        """Yield all entries in the order of their time."""
        for day in range(self.days):
            self._day(day)
            end = START + timedelta(days=day + 1)
            while self.queue and self.queue[0][0] < end:
                moment, number, origin, kind, data = heappop(self.queue)
                yield entry(moment, number, origin, kind, data)
        while self.queue:
            moment, number, origin, kind, data = heappop(self.queue)
            yield entry(moment, number, origin, kind, data)

    def add(self, moment, origin, kind, data):
        self.count += 1
        heappush(self.queue, (moment, self.count, origin, kind, data))

    def _day(self, day):
        midnight = START + timedelta(days=day)
        weekend = midnight.weekday() >= 5
        if day == 0:
            self._log_start(midnight)
        for team in self.teams:
            self._work(team, midnight, weekend)
        self._plain_jobs(midnight, weekend)
        if day in (9, 20):
            self._replace_node(day)
        if day in (12, 26):
            self._release_campaign(midnight, day)
        if day == 17:
            self._incident(midnight, break_glass=True)
        if day in (5, 13, 23):
            self._incident(midnight, break_glass=False)
        if day == 15:
            # A rollout: a new policy warns first and denies later.
            self.add(midnight + timedelta(hours=10), "webhook", "policy",
                     {"name": "new-policy", "change": "added", "actions": ["Warn"]})  # fmt: skip
        if day == 19:
            self.add(midnight + timedelta(hours=10), "webhook", "policy",
                     {"name": "new-policy", "change": "changed", "actions": ["Deny"]})  # fmt: skip

    def _log_start(self, midnight):
        for component in ("webhook", "broker", "controller"):
            self.add(midnight, component, "log", {"event": "start", "version": "0.2.0"})

    def _moment(self, team, midnight):
        """A time of work: around noon of the team, or at night for teams with queued Jobs."""
        pick = self.random
        hour = (
            pick.uniform(0, 24)
            if team.nights and pick.random() < 0.3
            else team.first_hour + min(max(pick.gauss(4.5, 2), 0), 10)
        )
        return midnight + timedelta(hours=hour)

    def _work(self, team, midnight, weekend):
        pick = self.random
        for model in team.models:
            if weekend and pick.random() < 0.7:
                continue
            requester = pick.choice(team.people)
            begins = midnight + timedelta(hours=team.first_hour - 1, minutes=pick.uniform(0, 50))
            name = self._request(team, model, requester, begins)
            jobs = max(int(pick.gauss(8, 3) * team.share * (0.3 if weekend else 1)), 0)
            if pick.random() < 0.03:
                jobs = 0
            for _ in range(jobs):
                self._weights_job(team, model, name, pick.choice(team.people), self._moment(team, midnight))
            self.add(
                begins + timedelta(hours=23, minutes=30), "controller", "grant",
                {**self.grants[name], "state": "ended"},
            )  # fmt: skip

    def _request(self, team, model, requester, begins, *, wait=None):
        pick = self.random
        self.count += 1
        name = f"areq-{self.count}"
        account = {"kind": "ServiceAccount", "namespace": team.namespace, "name": "train"}
        subject = account if team.number % 3 else {"kind": "User", "name": requester}
        self.add(begins, "controller", "request", {
            "name": name, "uid": name, "model": model, "subject": subject,
            "requester": {"username": requester}, "seconds": 86_400,
        })  # fmt: skip
        approvers = pick.sample([each for each in APPROVERS if each != requester], 2)
        last = begins
        for approver in approvers:
            seconds = wait or max(pick.lognormvariate(6, 1), 5 if pick.random() < 0.01 else 25)
            vote = begins + timedelta(seconds=seconds)
            last = max(last, vote)
            self.add(vote, "controller", "approval", {
                "name": f"{name}-{approver}", "request": name, "decision": "Approve", "model": model,
                "approver": {"username": approver}, "requester": {"username": requester}, "seconds": int(seconds),
            })  # fmt: skip
        grant = {
            "request": name, "requestUid": name, "state": "active", "model": model, "subject": subject,
            "begins": timestamp(last), "expires": timestamp(begins + timedelta(hours=23)), "approvers": approvers,
            "requester": {"username": requester},
        }  # fmt: skip
        self.grants[name] = grant
        self.add(last, "controller", "grant", grant)
        return name

    def _weights_job(self, team, model, grant, user, moment, account="train"):
        pick = self.random
        active = datetime.fromisoformat(self.grants[grant]["begins"])
        moment = max(moment, active + timedelta(minutes=1))
        pool = self.pools[MODELS.index(model) % 4]
        index = pick.randrange(len(pool))
        pod = {
            "namespace": team.namespace, "name": f"job-{self.count}", "uid": f"u-{self.count}",
            "node": pool[index], "zone": f"eu-1{'ab'[index % 2]}", "serviceAccount": account,
        }  # fmt: skip
        for resource, who in (("jobs", user), ("pods", "system:serviceaccount:kube-system:job-controller")):
            self.add(moment, "webhook", "verdict", verdict(
                who, resource, team.namespace, pod["name"], models=[model], routes=["persistentVolumeClaim"]
            ))  # fmt: skip
        image = f"registry.example.com/team-{team.number}/{'train' if pick.random() < 0.8 else 'eval'}"
        data = {
            "decision": "released", "model": model, "pod": pod, "keys": ["1"], "seconds": 900, "grant": grant,
            "images": [f"{image}@sha256:{pick.randrange(9)}"], "subject": self.grants[grant]["subject"]["kind"],
            "credential": f"JTI={self.count}",
        }  # fmt: skip
        self.releases[model] += 1
        self.add(moment + timedelta(seconds=20), "broker", "release", data)
        for renewal in range(pick.choice([0, 2, 4])):
            self.add(moment + timedelta(minutes=7 * (renewal + 1)), "broker", "renewal",
                     {**data, "decision": "renewed", "images": []})  # fmt: skip
        if pick.random() < 0.02:
            # The pod ends while its sidecar renews.
            self.add(moment + timedelta(minutes=40), "broker", "renewal",
                     {"decision": "denied", "model": model, "pod": pod, "code": "WL324"})  # fmt: skip

    def _plain_jobs(self, midnight, weekend):
        pick = self.random
        for _ in range(int(5_000 * self.plain * (0.4 if weekend else 1))):
            team = pick.choice(self.teams)
            user, moment = pick.choice(team.people), self._moment(team, midnight)
            name = f"job-{self.count}"
            if pick.random() < 0.03:
                # A mistake is corrected after one to three denials.
                for attempt in range(pick.choice([1, 1, 2, 3])):
                    when = moment - timedelta(minutes=3 * (attempt + 1))
                    codes = pick.choice(_MISTAKES)
                    self.add(when, "webhook", "verdict", verdict(user, "jobs", team.namespace, name, codes))
            self.add(moment, "webhook", "verdict", verdict(user, "jobs", team.namespace, name))
            escapes = ["hostPath"] if team.number == 3 else []
            who = "system:serviceaccount:kube-system:job-controller"
            self.add(moment + timedelta(seconds=1), "webhook", "verdict",
                     verdict(who, "pods", team.namespace, name, escapes=escapes))  # fmt: skip

    def _replace_node(self, day):
        pool = self.pools[day % 4]
        pool[self.random.randrange(len(pool))] = f"gpu-{day % 4}-new-{day}"

    def _release_campaign(self, midnight, day):
        """The evaluation of a release: many Jobs of one team within a few hours."""
        team = self.teams[day % 20]
        model = team.models[0]
        begins = midnight + timedelta(hours=team.first_hour)
        name = self._request(team, model, team.people[0], begins)
        for number in range(12):
            self._weights_job(
                team, model, name, team.people[number % 10], begins + timedelta(hours=1, minutes=25 * number)
            )

    def _incident(self, midnight, *, break_glass):
        """An incident at night: the on-call engineer gets access, by approval or by break-glass access."""
        team, begins = self.teams[7], midnight + timedelta(hours=2, minutes=13)
        model = team.models[0]
        if break_glass:
            self.count += 1
            name = f"areq-{self.count}"
            grant = {
                "request": name, "requestUid": name, "state": "active", "model": model,
                "subject": {"kind": "User", "name": "oncall@example.com"}, "begins": timestamp(begins),
                "expires": timestamp(begins + timedelta(hours=2)), "reason": "incident 4711",
            }  # fmt: skip
            self.add(begins, "controller", "breakglass", grant)
            self.add(begins + timedelta(hours=2), "controller", "breakglass", {**grant, "state": "ended"})
        else:
            name = self._request(team, model, "oncall@example.com", begins, wait=70)
            self._weights_job(team, model, name, "oncall@example.com", begins + timedelta(minutes=5))


def verdict(user, resource, namespace, name, codes=(), **more):
    return {
        "decision": "denied" if codes else "allowed", "phase": "validate", "operation": "CREATE",
        "resource": resource, "namespace": namespace, "name": name, "user": {"username": user},
        "codes": list(codes), "microseconds": 700, **more,
    }  # fmt: skip


def entry(moment, number, origin, kind, data):
    """Return (origin, index, entry), as the components write it."""
    source = f"cluster/{origin}/{origin}-1"
    return source, number, envelope(kind, source, f"e-{number}", timestamp(moment), data)
