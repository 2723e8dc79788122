"""Log lines: one JSON object each, with facts and places and never the text of an exception."""

import asyncio
import io
import logging
import sys
from datetime import UTC, datetime

import orjson
import pytest

from webhook.server import logs
from webhook.server.logs import JsonFormatter, ReviewLog


def line_of(record):
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return orjson.loads(text)


def record(message="hello %s", arguments=("you",), **extra):
    produced = logging.getLogger("webhook.x").makeRecord(
        "webhook.x", logging.WARNING, "f.py", 1, message, arguments, extra.pop("exc_info", None), extra=extra
    )
    return line_of(produced)


def test_a_line_has_time_level_logger_and_message():
    line = record()
    assert (line["level"], line["logger"], line["message"]) == ("warning", "webhook.x", "hello you")
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_facts_are_fields():
    assert record(fields={"uid": "u-1", "codes": ["WL101"]})["codes"] == ["WL101"]


def test_a_line_cannot_be_forged():
    assert record("a\n{}", ())["message"] == "a\n{}"


def test_an_exception_is_logged_with_type_and_location_but_not_its_text():
    try:
        raise ValueError("token s3cret")
    except ValueError:
        line = record(exc_info=sys.exc_info())
    assert line["exception"] == "ValueError"
    assert any(frame.startswith("test_logs.py:") for frame in line["frames"])
    assert "s3cret" not in str(line)


class Stderr:
    """Counts writes."""

    def __init__(self):
        self.buffer = self
        self.written = io.BytesIO()
        self.writes = 0

    def write(self, content):
        self.writes += 1
        self.written.write(content)

    def flush(self):
        pass


async def test_reviews_of_one_turn_are_written_at_once(monkeypatch):
    stderr = Stderr()
    monkeypatch.setattr(logs.sys, "stderr", stderr)
    log = ReviewLog(logging.getLogger("webhook.y"), asyncio.get_running_loop())
    for number in range(3):
        log.write("review", datetime.now(UTC), {"number": number})
    assert stderr.writes == 0
    await asyncio.sleep(0)
    assert stderr.writes == 1
    lines = [orjson.loads(line) for line in stderr.written.getvalue().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2]
    assert {line["logger"] for line in lines} == {"webhook.y"}


@pytest.mark.parametrize(("level", "expected"), [("info", True), ("warning", False)])
async def test_reviews_are_of_level_info(level, expected):
    logger = logging.getLogger(f"webhook.level.{level}")
    logger.setLevel(level.upper())
    assert ReviewLog(logger, asyncio.get_running_loop()).wanted() is expected
