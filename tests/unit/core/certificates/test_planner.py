"""What is done next about our own certificates: step by step, and whatever crashes, lags or runs twice.

The world of these tests holds no certificate: who trusts whom is all that matters here.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webhook.core.certificates.model import (
    CA,
    Create,
    Issue,
    PublishCAs,
    RecordState,
    ServingCert,
    SetCABundle,
    State,
    Times,
)
from webhook.core.certificates.planner import next_step, signer

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PARTS = ("broker", "webhook")
NAMES = {part: frozenset({f"weightlock-{part}.weightlock-system.svc"}) for part in PARTS}
TIMES = Times(
    authority=timedelta(seconds=1000),
    authority_renew=timedelta(seconds=600),
    leaf=timedelta(seconds=300),
    leaf_renew=timedelta(seconds=200),
    propagation=timedelta(seconds=50),
)
SLACK = timedelta(seconds=5)


class ConflictError(Exception):
    """Another client wrote first."""


class Stored:
    """One object of an API server: a value, a version, and what it was before."""

    def __init__(self, value, now):
        self.value, self.version, self.history = value, 0, [(now, value)]

    def write(self, value, version, now):
        if version != self.version:
            raise ConflictError
        self.value, self.version = value, version + 1
        self.history.append((now, value))

    def lately(self, since):
        """Every value it had after ``since``."""
        matches = []
        for moment, value in reversed(self.history):
            matches.append(value)
            if moment <= since:
                break
        return matches


class World:
    """Secrets, webhook configurations, and replicas that serve what they last saw."""

    def __init__(self):
        self.now = BEGIN
        self.state = Stored((), self.now)
        self.leaves = {part: Stored((None, frozenset()), self.now) for part in PARTS}
        self.bundles = [Stored(frozenset(), self.now) for _ in range(2)]
        self.served = {(part, pod): None for part in PARTS for pod in range(2)}
        self.made = 0
        self.hurried = set()

    def authority(self, now):
        self.made += 1
        return CA(f"authority-{self.made}", now - SLACK, now + TIMES.authority, signs=True)

    def sync(self, part, pod):
        self.served[part, pod] = self.leaves[part].value[0] or self.served[part, pod]

    def check(self):
        """Every certificate that is served and valid is trusted by all, however late they are."""
        since = self.now - TIMES.propagation
        for leaf in {leaf for leaf in self.served.values() if leaf is not None}:
            if not leaf.not_before <= self.now < leaf.not_after:
                continue
            messages = [saved.value[1] for saved in self.leaves.values()]
            trusted = [saved.value for saved in self.bundles]
            if leaf not in self.hurried:
                messages += [value for saved in self.leaves.values() for _, value in saved.lately(since)]
                trusted += [value for saved in self.bundles for value in saved.lately(since)]
            assert all(leaf.authority in one for one in (*messages, *trusted)), leaf

    def view(self):
        return State(
            self.state.value,
            {part: saved.value[0] for part, saved in self.leaves.items()},
            NAMES,
            tuple(saved.value for saved in self.bundles),
            tuple(saved.value[1] for saved in self.leaves.values()),
        )


class Actor:
    """A controller: looks, decides, and then writes, one write at a time; others may write in between."""

    def __init__(self, world):
        self.world, self.pending = world, []

    def look(self):
        world = self.world
        view, now = world.view(), world.now
        versions = {id(saved): saved.version for saved in self._all()}
        step = next_step(view, TIMES, now)
        self.pending = list(self._writes(step, view, now))
        self.versions = versions
        return step

    def act(self):
        """The next write of what was decided; what was overtaken is given up."""
        if not self.pending:
            return
        saved, change, after = self.pending.pop(0)
        version = self.versions[id(saved)]
        try:
            saved.write(change(saved.value), version, self.world.now)
        except ConflictError:
            self.pending = []
            return
        self.versions[id(saved)] = version + 1
        after()

    def run(self, most=40):
        """Look and write until nothing is left to be done."""
        for _ in range(most):
            if self.look() is None:
                return
            while self.pending:
                self.act()
                self.world.check()
        raise AssertionError("there is always another step")

    def _all(self):
        world = self.world
        return [world.state, *world.leaves.values(), *world.bundles]

    def _writes(self, step, view, now):
        """What a step writes: the object, what becomes of it, and what to do then."""
        world = self.world
        secrets = world.leaves.values()
        match step:
            case Create():
                yield world.state, lambda old: (*old, world.authority(now)), _nothing
            case RecordState(authorities=authorities):
                yield world.state, lambda _: authorities, _nothing
            case PublishCAs(authorities=known):
                late = [saved for saved in secrets if saved.value[1] != known]
                yield from ((saved, lambda old: (old[0], known), _nothing) for saved in late)
            case SetCABundle(authorities=trusted):
                late = [saved for saved in world.bundles if saved.value != trusted]
                yield from ((saved, lambda _: trusted, _nothing) for saved in late)
            case Issue(part=part, authority=by, not_after=end):
                yield world.state, lambda old: _signs_until(old, by, end), _nothing
                leaf = ServingCert(by, now - SLACK, end, NAMES[part])
                note = _nothing if signer(view, TIMES, now) else lambda: world.hurried.add(leaf)
                yield world.leaves[part], lambda old: (leaf, old[1]), note


def _nothing():
    pass


def _signs_until(authorities, by, end):
    return tuple(
        replace(a, signed_until=max(a.signed_until or end, end)) if a.id == by else a for a in authorities
    )


EVENT = st.one_of(
    st.tuples(st.just("tick"), st.integers(1, 400)),
    st.tuples(st.just("look"), st.integers(0, 1)),
    st.tuples(st.just("act"), st.integers(0, 1)),
    st.tuples(st.just("run"), st.integers(0, 1)),
    st.tuples(st.just("crash"), st.integers(0, 1)),
    st.tuples(st.just("sync"), st.tuples(st.sampled_from(PARTS), st.integers(0, 1))),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENT, max_size=80))
@example([("run", 0), ("tick", 60), ("run", 0), ("sync", ("webhook", 0)), ("tick", 400), ("run", 1)])
def test_served_certificates_are_always_trusted(events):
    world = World()
    actors = [Actor(world), Actor(world)]
    for name, detail in events:
        match name:
            case "tick":
                world.now += timedelta(seconds=detail)
            case "look":
                actors[detail].look()
            case "act":
                actors[detail].act()
            case "run":
                actors[detail].run()
            case "crash":
                actors[detail] = Actor(world)
            case "sync":
                world.sync(*detail)
        world.check()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)), min_size=60, max_size=100))
def test_a_running_controller_renews_each_certificate_before_it_expires(pace):
    world = World()
    actor = Actor(world)
    actor.run()
    for seconds, crash_after in pace:
        world.now += timedelta(seconds=seconds)
        # A crash after some writes, then another controller.
        actor.look()
        for _ in range(crash_after):
            actor.act()
        actor = Actor(world)
        actor.run()
        for part in PARTS:
            leaf = world.leaves[part].value[0]
            assert leaf.not_before <= world.now < leaf.not_after - TIMES.leaf_renew + timedelta(seconds=50)
            world.sync(part, 0)
            if crash_after == 6:
                # A replica on a node that hears of changes now and then.
                world.sync(part, 1)
        world.check()
        assert len(world.state.value) <= 4
    # Only the first certificates, before any client trusted a CA, did not wait.
    assert len(world.hurried) == len(PARTS)
    elapsed = (world.now - BEGIN).total_seconds()
    assert world.made >= elapsed // 460
    assert all(not a.signs for a in world.state.value[: world.state.value.index(_current(world))])


def _current(world):
    return signer(world.view(), TIMES, world.now)


def settled(seconds=60):
    """A world in which all certificates exist and every client trusts them."""
    world = World()
    actor = Actor(world)
    actor.run()
    world.now += timedelta(seconds=seconds)
    actor.run()
    return world, actor


def test_the_first_steps_come_in_this_order():
    world = World()
    actor = Actor(world)
    steps = []
    while (step := actor.look()) is not None:
        steps.append(type(step).__name__)
        while actor.pending:
            actor.act()
    assert steps == ["Create", "PublishCAs", "SetCABundle", "RecordState", "Issue", "Issue"]


def test_nothing_is_done_while_nothing_is_due():
    _, actor = settled()
    assert actor.look() is None


def test_a_new_ca_signs_only_after_all_clients_had_time():
    world, actor = settled()
    (old,) = world.state.value
    world.now = old.not_after - TIMES.authority_renew
    assert isinstance(actor.look(), Create)
    actor.run()
    _, new = world.state.value
    assert all(saved.value == {old.id, new.id} for saved in world.bundles)
    assert world.leaves["webhook"].value[0].authority == old.id
    world.now += TIMES.propagation
    actor.run()
    assert {saved.value[0].authority for saved in world.leaves.values()} == {new.id}
    first, _ = world.state.value
    assert (first.signs, first.retired) == (False, None)


def test_an_authority_stays_until_all_that_it_signed_has_ended():
    world, actor = settled()
    (old,) = world.state.value
    world.now = old.not_after - TIMES.authority_renew
    actor.run()
    world.now += TIMES.propagation
    actor.run()
    end = world.state.value[0].signed_until
    world.now = end - timedelta(seconds=1)
    actor.run()
    assert all(old.id in saved.value for saved in world.bundles)
    world.now = end
    actor.run()
    assert not any(old.id in saved.value for saved in world.bundles)
    # And so do pods that were given it, until it ends.
    world.now = old.not_after - timedelta(seconds=1)
    actor.run()
    assert all(old.id in saved.value[1] for saved in world.leaves.values())
    world.now = old.not_after
    actor.run()
    assert old.id not in {a.id for a in world.state.value}
    assert not any(old.id in saved.value[1] for saved in world.leaves.values())


@pytest.mark.parametrize(
    "spoiled",
    [
        None,
        {"authority": "somebody"},
        {"names": frozenset({"other"})},
        {"not_before": BEGIN + timedelta(days=1)},
        {"not_after": BEGIN},
    ],
)
def test_an_unusable_certificate_is_replaced_immediately(spoiled):
    world, actor = settled()
    saved = world.leaves["webhook"]
    leaf = None if spoiled is None else replace(saved.value[0], **spoiled)
    saved.write((leaf, saved.value[1]), saved.version, world.now)
    step = actor.look()
    assert isinstance(step, Issue)
    assert (step.part, step.authority) == ("webhook", "authority-1")


def test_nothing_is_signed_while_a_webhook_configuration_is_not_as_it_should_be():
    world, _ = settled()
    view = replace(world.view(), leaves=dict.fromkeys(PARTS), bundles=(None, world.bundles[0].value))
    assert next_step(view, TIMES, world.now) is None


def test_after_all_certificates_expired_new_ones_are_issued():
    world, actor = settled()
    world.now += timedelta(days=400)
    actor.run()
    assert {saved.value[0].authority for saved in world.leaves.values()} == {"authority-2"}


def test_an_authority_from_the_future_is_followed_by_another():
    world, actor = settled()
    world.now += timedelta(seconds=-3600)
    actor.run()
    assert {saved.value[0].authority for saved in world.leaves.values()} == {"authority-2"}


def test_strangers_stay_for_a_while():
    world = World()
    stranger = CA("stranger", BEGIN, BEGIN + timedelta(days=3650), signs=False)
    step = next_step(replace(world.view(), foreign_cas=(stranger,)), TIMES, world.now)
    assert isinstance(step, RecordState)
    (remaining,) = step.authorities
    assert (remaining.published, remaining.signed_until) == (BEGIN, BEGIN + 3 * TIMES.propagation)
    world.state.write(step.authorities, 0, world.now)
    actor = Actor(world)
    actor.run()
    assert world.bundles[0].value == {"stranger", "authority-1"}
    world.now = remaining.signed_until
    actor.run()
    assert world.bundles[0].value == {"authority-1"}
