"""Each file in golden/ is one manifest, the request that carries it, and the facts it must give.

The cluster they all share is golden/cluster.yaml. Every way to weights, devices and out of the sandbox has a file,
written as an attacker would write it. ``--update-golden`` rewrites what follows ``facts:``.
"""

from pathlib import Path

import pytest
import yaml

from webhook.api.config import Settings
from webhook.api.modelweights import ModelWeights
from webhook.core.facts import gather_request
from webhook.core.kube.objects import Lookup, ObjectStore
from webhook.core.kube.review import parse_request
from webhook.core.storage.catalog import Catalog
from webhook.core.storage.protected import with_volumes
from webhook.core.workloads.templates import WorkloadTable

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.glob("*/*.yaml"))


def build_request(case):
    document, fields = case.get("object"), dict(case.get("request", {}))
    subject = document or case.get("old") or {"apiVersion": "v1", "kind": "Pod", "metadata": {}}
    group, _, version = subject["apiVersion"].rpartition("/")
    kind = fields.pop("kind", subject["kind"])
    resource = fields.pop("resource", f"{subject['kind'].lower()}s")
    raw = {
        "uid": "1f0c",
        "operation": "CREATE",
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": group, "version": version, "resource": resource},
        "name": subject["metadata"].get("name", ""),
        "namespace": subject["metadata"].get("namespace", ""),
        "object": document,
        "oldObject": case.get("old"),
        **fields,
    }
    return parse_request({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": raw})


def judge(case):
    shared = list(yaml.safe_load_all((GOLDEN / "cluster.yaml").read_text()))
    store, models = ObjectStore(complete=True), []
    for document in [*shared, *case.get("state", [])]:
        store.put(document)
        if document["kind"] == "ModelWeights":
            models.append(ModelWeights.model_validate(document))
    settings = Settings.model_validate(case.get("settings", {}))
    return gather_request(
        build_request(case),
        Lookup(store),
        with_volumes(Catalog(models), store),
        settings,
        WorkloadTable(settings.workloads),
    )


def is_usual(key, value, fact):
    """Whether a golden file leaves a field out: it is empty, or what most facts have."""
    if key in ("shared", "exclusiveDevices", "forbidden"):
        return value is False
    return value in ("", []) or (key == "exceptions" and value == [fact.get("kind", fact.get("vendor"))])


def readable(found):
    """The facts as they stand in a golden file: what is empty is left out."""
    template = {"path": found.path}
    if found.unchanged:
        template["unchanged"] = True
    for name in ("weights", "devices", "escapes"):
        facts = [fact.as_cel() for fact in getattr(found.facts, name)]
        if facts:
            template[name] = [
                {key: value for key, value in fact.items() if not is_usual(key, value, fact)}
                for fact in facts
            ]
    return template


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden(path, update_golden):
    text = path.read_text()
    case = yaml.safe_load(text)
    facts = [readable(found) for found in judge(case)]
    if update_golden:
        output = yaml.safe_dump({"facts": facts}, sort_keys=False, width=110)
        path.write_text(text[: text.index("\nfacts:") + 1] + output)
    assert case.get("facts") == facts or update_golden


def test_every_case_begins_with_a_comment():
    assert CASES
    for path in CASES:
        assert path.read_text().startswith("# "), path
