"""The CRDs are what the types say, and what the API server accepts as structural."""

import subprocess
import sys
from pathlib import Path

import pytest

from webhook.api.crds import definitions

ROOT = Path(__file__).resolve().parents[3]
FORBIDDEN = {"$ref", "$defs", "anyOf", "allOf", "oneOf", "const", "default", "title", "exclusiveMinimum"}


def schemas(node):
    """Every schema in a tree of properties, items and additionalProperties."""
    yield node
    for child in node.get("properties", {}).values():
        yield from schemas(child)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from schemas(node[key])


@pytest.mark.parametrize("definition", definitions(), ids=lambda each: each["spec"]["names"]["kind"])
def test_schemas_are_structural(definition):
    root = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for schema in schemas(root):
        assert FORBIDDEN.isdisjoint(schema)
        assert (
            schema.get("type")
            or schema.get("x-kubernetes-preserve-unknown-fields")
            or schema.get("x-kubernetes-int-or-string")
        )
        assert not ("properties" in schema and "additionalProperties" in schema)


def test_names_are_those_users_type():
    names = {entry["spec"]["names"]["kind"]: entry["spec"]["names"] for entry in definitions()}
    assert {kind: (each["plural"], each["shortNames"]) for kind, each in names.items()} == {
        "ModelWeights": ("modelweights", ["mw"]),
        "WeightPolicy": ("weightpolicies", ["wpol"]),
        "AccessRequest": ("accessrequests", ["areq"]),
        "AccessApproval": ("accessapprovals", ["aapp"]),
        "ImageTrust": ("imagetrusts", ["itrust"]),
        "ImageVerification": ("imageverifications", ["iver"]),
    }


def test_the_chart_holds_them():
    check = [sys.executable, ROOT / "scripts" / "generate.py", "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
