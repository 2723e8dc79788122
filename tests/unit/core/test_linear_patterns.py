"""No regular expression of core backtracks on what a requester writes: time grows with the length, not faster."""

import importlib
import pkgutil
import re
import time
from pathlib import Path

import pytest

import webhook.api
import webhook.core

UNITS = [
    "a",
    "A",
    "1",
    "-",
    ".",
    "/",
    " ",
    "=",
    "\\",
    "(",
    "a.",
    "a/",
    "a-",
    "a=",
    "'a",
    '"a',
    "x,",
    "!has(",
    "a b",
]
UNITS += ["k8s:", "_a", "device . driver == '", "device.driver=='a' || "]
TAILS = ["", "!", "\n"]
SECONDS = 0.05
# How modules use a pattern, and the method that takes as long.
METHODS = {
    "search": "search",
    "fullmatch": "fullmatch",
    "match": "match",
    "findall": "findall",
    "finditer": "findall",
    "sub": "findall",
    "split": "findall",
}
# Patterns whose text is bounded before they see it: name, and the bound of its length.
BOUNDED = {"webhook.core.facts.devices._CDI_KIND": 4096}


def patterns():
    for package in (webhook.core, webhook.api):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern):
                    source = Path(importlib.import_module(module.name).__file__).read_text(encoding="utf-8")
                    used = {method for method in METHODS if f"{name}.{method}(" in source}
                    yield pytest.param(value, used or set(METHODS), id=f"{module.name}.{name}")


def seconds(match, text):
    begun = time.process_time()
    match(text)
    return time.process_time() - begun


@pytest.mark.parametrize(("pattern", "methods"), list(patterns()))
def test_time_grows_no_faster_than_the_text(pattern, methods, request):
    length = BOUNDED.get(request.node.callspec.id, 8_000)
    for unit in UNITS:
        for tail in TAILS:
            text = unit * (length // len(unit)) + tail
            if isinstance(pattern.pattern, bytes):
                text = text.encode()
            for match in (getattr(pattern, METHODS[method]) for method in methods):
                # The least of three: other processes of the machine take time, too.
                if seconds(match, text) > SECONDS:
                    assert min(seconds(match, text) for _ in range(3)) < SECONDS, (unit, tail)
