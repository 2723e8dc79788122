"""Runs the components of a cluster as child processes, and makes sure that none outlives the test run.

A process is known by its id and stopped by it; nothing here ever looks for processes by name. A small reaper
process holds a pipe to us and ends what we leave behind if we are killed.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.waiting import eventually

REAPER = """
import os, shutil, signal, sys
pids, directories = set(), set()
signal.signal(signal.SIGINT, signal.SIG_IGN)
for line in sys.stdin:
    verb, _, rest = line.rstrip("\\n").partition(" ")
    {"pid": lambda: pids.add(int(rest)), "done": lambda: pids.discard(int(rest)),
     "directory": lambda: directories.add(rest), "gone": lambda: directories.discard(rest)}[verb]()
for pid in pids:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
for directory in directories:
    shutil.rmtree(directory, ignore_errors=True)
"""


class Reaper:
    """Ends our child processes and removes our directories should we be killed before we could."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", REAPER],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def tell(self, verb: str, what: object) -> None:
        """Say one of `pid`, `done`, `directory`, `gone` about a process id or a directory."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            pipe.write(f"{verb} {what}\n")
            pipe.flush()

    def close(self) -> None:
        """Let the reaper end; it ends whatever it was not told is done."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


class Component:
    """One program of the cluster: its process, its log file, and the words for when it fails."""

    def __init__(self, name: str, log: Path, reaper: Reaper) -> None:
        self.name = name
        self.log = log
        self._reaper = reaper
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises AssertionError when the component is not running."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start the process; its output is appended to the log. It sees only `environment` if given."""
        assert not self.running, f"{self.name} is running already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=self.log.parent,
                # A Ctrl-C at the terminal is ours to handle: components are stopped in order.
                start_new_session=True,
            )
        self._reaper.tell("pid", self._process.pid)

    def wait_ready(self, probe: Callable[[], object], seconds: float) -> None:
        """Wait until `probe` returns something true. Raises AssertionError with the end of the log."""
        try:
            eventually(probe, f"{self.name} ready", seconds=seconds, give_up=self._exited)
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n--- the end of {self.log}\n{self.tail()}") from None

    def _exited(self) -> str | None:
        if self.running:
            return None
        return f"it exited with status {self._process.returncode if self._process else 'unknown'}"

    def tail(self, lines: int = 25) -> str:
        """The last lines of the log."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def stop(self, grace: float = 10.0) -> None:
        """End the process: politely, then, after `grace` seconds, not. Does nothing if it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            # A paused process would not see SIGTERM.
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._ended()

    def kill(self) -> None:
        """End the process and its children with SIGKILL, as the end of a container does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                # `start` makes the process the leader of its group.
                os.killpg(self._process.pid, signal.SIGKILL)
            self._ended()

    def _ended(self) -> None:
        assert self._process is not None
        self._process.wait()
        self._reaper.tell("done", self._process.pid)
        self._process = None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago and that no outgoing connection will be given."""
    # Below the range that Linux gives to outgoing connections, so that none takes it meanwhile.
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free TCP port between 20000 and 32000")


def remove_directory(directory: Path) -> None:
    """Remove a directory and its content; missing files are ignored."""
    shutil.rmtree(directory, ignore_errors=True)
