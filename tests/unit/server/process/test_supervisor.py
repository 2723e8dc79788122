"""The parent of the process that judges: what it does when that hangs, dies, grows, or cannot start at all.

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

HEAD = """
import logging, os, signal, socket, sys, time
from webhook.server.process import supervisor
from webhook.server.process.supervisor import SupervisorPipe, Supervisor
supervisor.BEAT_SECONDS = 0.05
logging.basicConfig(stream=sys.stderr, format="%(message)s", level="INFO")

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def keep(lifeline, seconds=0.5):
    # What is listened on: that of the child before, or something new.
    if not lifeline.sockets:
        lifeline.keep([socket.create_server(("127.0.0.1", 0))], seconds)

def serve(lifeline, seconds=30, ask=False):
    told = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda got, frame: told.append(got))
    keep(lifeline)
    lifeline.ready()
    say("up", os.getpid(), lifeline.restarts)
    if ask:
        lifeline.ask_to_be_replaced()
    end = time.monotonic() + seconds
    while not told and time.monotonic() < end:
        lifeline.beat()
        time.sleep(0.02)
    say("down", os.getpid(), *told)
    return 0
"""


class Program:
    def __init__(self, path, source):
        path.write_text(HEAD + textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self):
        """The next words the children say."""
        line = self.process.stdout.readline().split()
        assert line, self.process.stderr.read()
        return line

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=10)
        return output, errors


@pytest.fixture
def program(tmp_path):
    started = []

    def start(source):
        started.append(Program(tmp_path / "program.py", source))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def gone(pid, seconds=5.0):
    """Whether a process that is no child of ours ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


SERVE = "sys.exit(Supervisor(serve).run())"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_child_is_told_to_stop_and_waited_for(program, number):
    parent = program(SERVE)
    _, pid, _ = parent.line()
    output, errors = parent.end(number)
    assert output.split() == ["down", pid, str(int(number))]
    assert errors == ""
    assert parent.process.returncode == 0


def test_a_child_that_dies_is_replaced(program):
    parent = program(SERVE)
    pids = set()
    for restarts in range(3):
        _, pid, told = parent.line()
        assert int(told) == restarts
        pids.add(pid)
        os.kill(int(pid), signal.SIGKILL)
    _, last, _ = parent.line()
    assert len(pids | {last}) == 4
    _, errors = parent.end()
    assert errors.count("the worker ended; starting another") == 3


def test_a_child_that_hangs_is_replaced(program):
    parent = program(SERVE)
    _, pid, _ = parent.line()
    begun = time.monotonic()
    os.kill(int(pid), signal.SIGSTOP)
    _, other, restarts = parent.line()
    assert time.monotonic() - begun < 5
    assert (other != pid, restarts) == (True, "1")
    _, errors = parent.end()
    assert "ending a worker that hangs" in errors


def test_a_child_that_takes_long_to_start_is_not_taken_for_hung(program):
    parent = program(
        """
        def slow(lifeline):
            keep(lifeline, 0.2)
            time.sleep(1.5)
            return serve(lifeline)
        sys.exit(Supervisor(slow).run())
        """
    )
    assert parent.line()[2] == "0"


def test_bad_input_ends_it_all(program):
    parent = program("sys.exit(Supervisor(lambda lifeline: 2).run())")
    parent.process.wait(10)
    assert parent.process.returncode == 2


def test_a_child_that_cannot_live_is_tried_ever_more_slowly(program):
    parent = program(
        """
        def fail(lifeline):
            say("try", time.monotonic())
            raise RuntimeError("never")
        sys.exit(Supervisor(fail).run())
        """
    )
    times = [float(parent.line()[1]) for _ in range(5)]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[-1] > 2 * pauses[0]


def test_the_child_of_a_parent_that_was_killed_ends(program):
    parent = program(SERVE)
    _, pid, _ = parent.line()
    parent.process.kill()
    parent.process.wait()
    assert gone(int(pid))


def test_a_child_that_asks_is_replaced_once_another_is_ready(program):
    parent = program(
        """
        def large(lifeline):
            first = not os.path.exists(sys.argv[0] + ".asked")
            open(sys.argv[0] + ".asked", "w").close()
            return serve(lifeline, ask=first)
        sys.exit(Supervisor(large).run())
        """
    )
    said = [parent.line() for _ in range(3)]
    (first, second) = [words[1] for words in said if words[0] == "up"]
    assert first != second
    (down,) = [words for words in said if words[0] == "down"]
    assert down == ["down", first, str(int(signal.SIGUSR1))]
    output, _ = parent.end()
    assert output.split()[:2] == ["down", second]


def test_a_child_that_does_not_stop_is_ended(program):
    parent = program(
        """
        supervisor._LAST_SECONDS = 0.2
        def stubborn(lifeline):
            first = not os.path.exists(sys.argv[0] + ".asked")
            open(sys.argv[0] + ".asked", "w").close()
            if not first:
                return serve(lifeline)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            say("up", os.getpid(), 0)
            lifeline.ready()
            lifeline.ask_to_be_replaced()
            while True:
                lifeline.beat()
                time.sleep(0.02)
        sys.exit(Supervisor(stubborn).run())
        """
    )
    _, first, _ = parent.line()
    assert parent.line()[0] == "up"
    assert gone(int(first))


def test_connections_wait_for_the_next_child(program):
    parent = program(
        """
        def answer(lifeline):
            if lifeline.sockets:
                (listening,) = lifeline.sockets
            else:
                listening = socket.create_server(("127.0.0.1", 0))
                lifeline.keep([listening], 0.5)
            lifeline.ready()
            listening.settimeout(0.05)
            say("up", listening.getsockname()[1], os.getpid())
            while True:
                lifeline.beat()
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                connection.sendall(str(os.getpid()).encode())
                connection.close()
        sys.exit(Supervisor(answer).run())
        """
    )
    import socket

    _, port, pid = parent.line()
    os.kill(int(pid), signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as connection:
        answered_by = connection.recv(100).decode()
    assert answered_by != pid
