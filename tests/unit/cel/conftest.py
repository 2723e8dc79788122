"""What the tests of the CEL engine share: an environment, a short way to a value, the second opinion, the corpora."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from webhook.cel import Bindings, environment

_SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture
def env():
    """The environment with every variable."""
    return environment()


@pytest.fixture
def value(env):
    """Evaluate a source: value(source, params=…, variables={…}, object=…, …)."""

    def evaluate(source, *, params=None, variables=(), expect="any", **data):
        scope = env.variables()
        for name, text in dict(variables).items():
            scope.define(name, text)
        return env.compile(source, expect=expect, variables=scope).evaluate(Bindings(data), params)

    return evaluate


@pytest.fixture(scope="session")
def second_opinion():
    """``opinion(source, data)`` of cel-python: an Opinion, or None where it cannot read the source."""
    spec = importlib.util.spec_from_file_location("second_opinion", _SUPPORT / "second_opinion.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["second_opinion"] = module
    spec.loader.exec_module(module)
    return module.opinion


@pytest.fixture(scope="session")
def conformance_cases():
    """The conformance cases of cel-spec, one dict a case."""
    root = os.environ.get("WEIGHTLOCK_CORPORA")
    path = Path(root or "/nonexistent", "cel-spec", "cases.jsonl")
    if not path.exists():
        pytest.skip("WEIGHTLOCK_CORPORA holds no cel-spec/cases.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def isolated():
    """Run Python code in a process of its own, which may crash; gives the completed process."""

    def run(code):
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
        )

    return run
