from __future__ import annotations

import io
import time

import pytest

from webhook.cli.progress import Bar, byte_size, duration


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_line_says_how_far_how_fast_how_long():
    clock = Clock()
    bar = Bar(Terminal(), clock=clock)
    assert bar.line() == ""
    bar.start("sealing", 4 << 30, 3)
    assert bar.line() == "sealing ░░░░░░░░░░░░░░░░░░░░░░░░   0%  0 B of 4.0 GiB  0 B/s"
    clock.now += 2
    bar.advance(1 << 30)
    assert bar.line() == "sealing ██████░░░░░░░░░░░░░░░░░░  25%  1.0 GiB of 4.0 GiB  512.0 MiB/s  6 s left"
    bar.advance(3 << 30)
    clock.now += 2
    assert bar.line() == "sealing ████████████████████████ 100%  4.0 GiB of 4.0 GiB  1.0 GiB/s"


def test_the_rate_is_that_of_the_last_seconds():
    clock = Clock()
    bar = Bar(Terminal(), clock=clock)
    bar.start("sealing", 100 << 20, 1)
    bar.advance(50 << 20)
    for _ in range(30):
        clock.now += 1
        bar.advance(1 << 20)
        line = bar.line()
    assert "1.0 MiB/s  20 s left" in line


def test_an_empty_stretch_is_complete():
    bar = Bar(Terminal(), clock=Clock())
    bar.start("sealing", 0, 1)
    assert "100%" in bar.line()


def test_without_unicode_it_draws_with_ascii():
    class Plain(Terminal):
        encoding = "ascii"

    bar = Bar(Plain(), clock=Clock())
    bar.start("sealing", 10, 1)
    assert "........................" in bar.line()


def test_a_terminal_gets_one_line_that_is_wiped_at_the_end():
    stream = Terminal()
    with Bar(stream) as bar:
        bar.start("sealing", 10, 1)
        deadline = time.monotonic() + 10
        while "sealing" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_quiet_and_short_runs_write_nothing():
    for stream, options in ((Terminal(), {"quiet": True}), (io.StringIO(), {})):
        with Bar(stream, **options) as bar:
            bar.start("sealing", 10, 1)
            bar.advance(10)
        assert stream.getvalue() == ""


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
