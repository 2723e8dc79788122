"""The parent of frontend and workers: what it does when one hangs, crashes, grows, or cannot start at all.

Each test runs a small program of its own, since a supervisor forks and takes the signals of its process.
"""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from harness.waiting import slowness

HEAD = """
import logging, os, select, signal, socket, sys, time
from webhook.server.process import supervisor
from webhook.server.process.supervisor import Supervisor
supervisor.BEAT_SECONDS = 0.05
supervisor.SUSPECT_SECONDS = 0.3
logging.basicConfig(stream=sys.stderr, format="%(message)s", level="INFO")

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def live(role, pipe, seconds=30, ask=False):
    stopped = []
    if role == "frontend":
        signal.signal(signal.SIGTERM, lambda got, frame: stopped.append(got))
        signal.signal(signal.SIGINT, lambda got, frame: stopped.append(got))
    pipe.ready()
    say(role, "up", os.getpid())
    if ask:
        pipe.request_replacement()
    peers, end = [], time.monotonic() + seconds
    while not stopped and time.monotonic() < end:
        pipe.beat()
        readable = select.select([pipe, *(peer.end for peer in peers)], [], [], 0.02)[0]
        try:
            for peer in pipe.peers() if pipe in readable else ():
                if peer is None:
                    stopped.append(0)
                else:
                    peers.append(peer)
                    say(role, "peer", peer.restarts)
                    if role == "frontend":
                        peer.end.send(b"hello")
        except EOFError:
            say(role, "orphan")
            stopped.append(-1)
        for peer in list(peers):
            if peer.end in readable:
                heard = peer.end.recv(100)
                if role == "worker" and heard:
                    say(role, "heard", heard.decode())
                if not heard:
                    peers.remove(peer)
    say(role, "down", os.getpid(), *map(int, stopped))
    return 0

def frontend(pipe):
    return live("frontend", pipe)

def worker(pipe):
    return live("worker", pipe)

def supervise(frontend=frontend, worker=worker, sockets=(), hang=0.8):
    sys.exit(Supervisor(frontend, worker, sockets, hang).run())
"""


class Program:
    def __init__(self, path, source):
        path.write_text(HEAD + textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def next(self, *start):
        """The rest of the next line that starts so; others are skipped."""
        while True:
            line = self.process.stdout.readline().split()
            assert line, self.process.stderr.read()
            if line[: len(start)] == list(start):
                return line[len(start) :]

    def pid(self, role):
        return int(self.next(role, "up")[0])

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.communicate(timeout=20 * slowness())


@pytest.fixture
def program(tmp_path):
    started = []

    def start(source="supervise()"):
        started.append(Program(tmp_path / "program.py", source))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def is_gone(pid, seconds=10.0):
    """Whether a process that is not a child of ours ends."""
    deadline = time.monotonic() + seconds * slowness()
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_frontend_stops_first_and_then_the_workers(program, number):
    parent = program()
    parent.next("frontend", "peer")
    parent.next("worker", "heard", "hello")
    output, errors = parent.end(number)
    assert [line.split()[:2] for line in output.splitlines()] == [["frontend", "down"], ["worker", "down"]]
    assert errors == ""
    assert parent.process.returncode == 0


@pytest.mark.parametrize("role", ["worker", "frontend"])
def test_a_child_that_dies_is_replaced_and_gets_a_channel(program, role):
    parent = program()
    parent.next("worker", "heard")
    pid = {"worker": None, "frontend": None}
    parent.process.send_signal(0)
    del pid
    for restarts in (1, 2):
        children = subprocess.run(
            ["pgrep", "-P", str(parent.process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        # The worker is started first, so its number is lower until one of them is replaced.
        victims = sorted(map(int, children))
        victim = victims[0] if (role == "worker") == (restarts == 1) else victims[-1]
        os.kill(victim, signal.SIGKILL)
        assert parent.next("frontend", "peer") == [str(restarts)]
        parent.next("worker", "heard", "hello")
    _, errors = parent.end()
    assert errors.count("a process ended; starting another") == 2


def test_a_worker_that_hangs_has_a_successor_before_it_is_killed(program):
    parent = program()
    first = parent.pid("worker")
    os.kill(first, signal.SIGSTOP)
    begun = time.monotonic()
    second = parent.pid("worker")
    assert second != first
    assert time.monotonic() - begun < 5 * slowness()
    assert is_gone(first)
    _, errors = parent.end()
    assert "a worker does not respond; starting another" in errors


def test_a_child_that_starts_slowly_is_not_taken_for_hung(program):
    parent = program(
        """
        def slow(pipe):
            time.sleep(1.5)
            return worker(pipe)
        supervise(worker=slow)
        """
    )
    parent.pid("worker")
    _, errors = parent.end()
    assert errors == ""


def test_bad_input_ends_everything(program):
    parent = program("supervise(worker=lambda pipe: 2)")
    parent.process.wait(10 * slowness())
    assert parent.process.returncode == 2


def test_a_child_that_cannot_live_is_tried_ever_more_slowly(program):
    parent = program(
        """
        def fail(pipe):
            say("try", time.monotonic())
            raise RuntimeError("never")
        supervise(worker=fail)
        """
    )
    times = [float(parent.next("try")[0]) for _ in range(5)]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[-1] > 2 * pauses[0]


def test_children_notice_that_the_parent_was_killed(program):
    parent = program()
    parent.next("worker", "heard")
    parent.process.kill()
    text = {
        parent.next()[0]: None,
    }
    lines = [parent.process.stdout.readline().split()[:2] for _ in range(3)]
    assert {("frontend", "down"), ("worker", "down")} <= {tuple(line) for line in lines} | {
        (name, "orphan") for name in text
    }


def test_a_worker_that_requests_a_successor_finishes_once_that_is_ready(program):
    parent = program(
        """
        def large(pipe):
            first = not os.path.exists(sys.argv[0] + ".asked")
            open(sys.argv[0] + ".asked", "w").close()
            return live("worker", pipe, ask=first, seconds=1.0 if first else 30)
        supervise(worker=large)
        """
    )
    first, second = parent.pid("worker"), parent.pid("worker")
    assert first != second
    assert parent.next("worker", "down")[0] == str(first)
    _, errors = parent.end()
    assert "a process ended" not in errors


def test_a_worker_that_does_not_finish_is_killed(program):
    parent = program(
        """
        supervisor._LAST_SECONDS = 0.2
        def stubborn(pipe):
            first = not os.path.exists(sys.argv[0] + ".asked")
            open(sys.argv[0] + ".asked", "w").close()
            return live("worker", pipe, ask=first)
        supervise(worker=stubborn)
        """
    )
    first = parent.pid("worker")
    parent.pid("worker")
    assert is_gone(first)


def test_only_the_frontend_keeps_the_sockets(program):
    parent = program(
        """
        listening = socket.create_server(("127.0.0.1", 0))
        def dies(pipe):
            say("port", listening.getsockname()[1])
            return live("frontend", pipe)
        def looks(pipe):
            say("worker", "closed", listening.fileno() == -1)
            return worker(pipe)
        supervise(dies, looks, [listening])
        """
    )
    assert parent.next("worker", "closed") == ["True"]
    parent.next("port")
