"""NIST's JSON schema of OSCAL accepts every document: the evidence of a log, and the documents in docs/oscal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from jsonschema import Draft7Validator

from tests.unit.core.audit.test_evidence import REMOVALS, STORY, states
from webhook.core.audit.evidence import oscal
from webhook.core.audit.evidence.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[4]
TOOL = ROOT / "tests" / "tools" / "oscalschema.py"
# Python has no classes of letters and digits by \p. These have the same members.
CLASSES = {r"(\p{L}|_)(\p{L}|\p{N}|[.\-_])*": r"([^\W\d]|_)(\w|[.\-_])*"}


@pytest.fixture(scope="module")
def validator():
    result = subprocess.run([sys.executable, TOOL, "--find"], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(result.stderr.strip())
    schema = orjson.loads(Path(result.stdout.strip()).read_bytes())
    for pattern in patterns(schema):
        for old, new in CLASSES.items():
            pattern["pattern"] = pattern["pattern"].replace(old, new)
    assert not [each for each in patterns(schema) if r"\p" in each["pattern"]]
    return Draft7Validator(schema)


def patterns(node):
    """Yield every schema with a pattern."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node
        node = list(node.values())
    for each in node if isinstance(node, list) else ():
        yield from patterns(each)


def faults(validator, document):
    """Return the places that the schema rejects. The document may be of any model, so the deepest ones count."""
    errors = validator.iter_errors(orjson.loads(orjson.dumps(document)))
    return [
        f"{list(each.absolute_path)}: {each.message[:200]}"
        for error in errors
        for each in sorted(error.context or [error], key=lambda each: -len(each.absolute_path))[:3]
    ]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "story", [STORY, REMOVALS["break-glass"][0], []], ids=["whole", "exceptions", "empty"]
)
def test_evidence(validator, profile, story):
    """Assessment results and the plan of action of a log with all kinds of entries, with exceptions, and without."""
    _, timeline, results, scope = states(story, profile)
    for build in (oscal.results, oscal.plan):
        assert faults(validator, build(timeline, profile, PROFILES[profile], scope, results)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "oscal").glob("*.json")), ids=lambda path: path.stem)
def test_documents(validator, path):
    assert faults(validator, orjson.loads(path.read_bytes())) == []


def test_the_schema_rejects_other_documents(validator):
    """The validation itself is tested: an unknown field, an invalid UUID and an empty list are faults."""
    document = orjson.loads((ROOT / "docs" / "oscal" / "component-definition.json").read_bytes())
    content = document["component-definition"]
    for change in ({"uuid": "1"}, {"components": []}, {"unknown": "x"}, {"metadata": {}}):
        assert faults(validator, {"component-definition": {**content, **change}})
