"""The progress of long commands: a bar on a terminal, plain lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import builtins
import io
import subprocess
import sys

import pytest

from webhook.cli.progress import ProgressBar, byte_size, duration


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_plain_line_has_share_amount_rate_and_time_left():
    clock = Clock()
    bar = ProgressBar(io.StringIO(), clock=clock)
    bar.start("sealing", 4 << 30, 3)
    clock.now += 2
    bar.advance(1 << 30)
    assert bar.line() == "sealing: 25%, 1.0 GiB of 4.0 GiB, 512.0 MiB/s, 6 s left"
    bar.advance(3 << 30)
    clock.now += 2
    assert bar.line() == "sealing: 100%, 4.0 GiB of 4.0 GiB, 1.0 GiB/s"


def test_an_empty_phase_is_complete():
    bar = ProgressBar(io.StringIO(), clock=Clock())
    bar.start("sealing", 0, 1)
    assert "100%" in bar.line()


def test_elsewhere_a_line_appears_every_ten_seconds():
    clock, stream = Clock(), io.StringIO()
    with ProgressBar(stream, clock=clock) as bar:
        bar.start("sealing", 100, 1)
        for _ in range(25):
            clock.now += 1
            bar.advance(1)
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == ["sealing: 10%", "sealing: 20%"]


def test_a_terminal_gets_a_bar_that_is_removed_at_the_end(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with ProgressBar(stream) as bar:
        bar.start("sealing", 1 << 20, 1)
        bar.advance(1 << 19)
        bar.start("verifying", 1 << 20, 1)
    assert "verifying" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("\x1b[2K")


def test_no_colour_where_it_is_not_wanted(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with ProgressBar(stream) as bar:
        bar.start("sealing", 1 << 20, 1)
        bar.advance(1 << 19)
    assert "\x1b[3" not in stream.getvalue().replace("\x1b[32m", "")


def test_without_rich_a_terminal_gets_plain_lines(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("rich"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    clock, stream = Clock(), Terminal()
    with ProgressBar(stream, clock=clock) as bar:
        bar.start("sealing", 10, 1)
        clock.now += 11
        bar.advance(5)
    assert stream.getvalue() == "sealing: 50%, 5 B of 10 B, 0 B/s, 11 s left\n"


def test_quiet_and_short_runs_write_nothing():
    for stream, options in ((Terminal(), {"quiet": True}), (io.StringIO(), {})):
        with ProgressBar(stream, **options) as bar:
            bar.start("sealing", 10, 1)
            bar.advance(10)
        assert stream.getvalue() == ""


def test_an_interrupt_stops_the_run_at_the_next_segment():
    bar = ProgressBar(io.StringIO())
    bar.start("sealing", 10, 1)
    bar.advance(1)
    bar.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        bar.advance(1)


def test_commands_that_print_no_bar_do_not_import_rich():
    code = "import sys, webhook.cli.main, webhook.cli.weights.commands, webhook.cli.key; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (5 << 60, "5120.0 PiB")],
)
def test_byte_sizes(size, text):
    assert byte_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (59.6, "60 s"), (99, "99 s"), (130, "2 min"), (5900, "98 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
