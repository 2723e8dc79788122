"""Whose turn it is."""

from webhook.core.reports.schedule import Agenda, Turn


def drain(agenda, now):
    turns = []
    while (turn := agenda.take(now)) is not None:
        turns.append((turn.namespace, turn.whole))
    return turns


def test_everything_is_due_at_first_and_again_after_the_interval():
    agenda = Agenda(interval=100, settle=10)
    assert agenda.keep(["b", "a"], 0) == set()
    assert agenda.waiting(0) == 2
    assert drain(agenda, 0) == [("a", True), ("b", True)]
    assert drain(agenda, 99) == []
    assert drain(agenda, 100) == [("a", True), ("b", True)]


def test_touched_items_are_due_once_after_the_quiet_time():
    agenda = Agenda(100, 10)
    agenda.keep(["a", "b"], 0)
    drain(agenda, 0)
    for now in (1, 2, 3):
        agenda.touch("b", now)
    assert drain(agenda, 10) == []
    assert drain(agenda, 11) == [("b", False)]
    assert drain(agenda, 99) == []


def test_touched_while_it_is_looked_at_it_comes_back():
    agenda = Agenda(100, 10)
    agenda.keep(["a"], 0)
    assert agenda.take(0) == Turn("a", True)
    agenda.touch("a", 0.5)
    assert drain(agenda, 10.5) == [("a", False)]


def test_a_busy_namespace_takes_no_other_namespaces_turn():
    agenda = Agenda(100, 10)
    agenda.keep([f"n{number}" for number in range(5)], 0)
    seen = []
    for now in range(0, 400, 20):
        agenda.touch("n0", now)
        turn = agenda.take(now + 10)
        seen.append(turn.namespace if turn else "")
    assert set(seen) >= {f"n{number}" for number in range(5)}


def test_a_touch_does_not_delay_pending_items():
    agenda = Agenda(100, 10)
    agenda.keep(["a"], 0)
    agenda.touch("a", 5)
    agenda.touch_all(5)
    assert drain(agenda, 5) == [("a", True)]


def test_namespaces_come_and_go():
    agenda = Agenda(100, 10)
    agenda.keep(["a", "b"], 0)
    drain(agenda, 0)
    assert agenda.keep(["b", "c"], 5) == {"a"}
    agenda.touch("a", 5)
    agenda.retry("a", 5, 1)
    assert drain(agenda, 50) == [("c", True)]


def test_failed_items_are_retried_soon():
    agenda = Agenda(100, 10)
    agenda.keep(["a"], 0)
    drain(agenda, 0)
    agenda.retry("a", 0, 30)
    assert drain(agenda, 29) == []
    assert [name for name, _ in drain(agenda, 30)] == ["a"]


def test_an_empty_schedule_has_no_item():
    assert Agenda(1, 1).take(5) is None
