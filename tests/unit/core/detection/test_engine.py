"""The engine: an event of the API server is the same event in its own log and in a joined one."""

from __future__ import annotations

import pytest

from tests.unit.core.audit.test_kubernetes import EXEC, entry
from webhook.core.audit.kubernetes import event_data
from webhook.core.detection.engine import Engine
from webhook.manifests.detections import load_rules
from webhook.manifests.shipped import shipped_detections


@pytest.fixture(scope="module")
def rules():
    return load_rules(sorted(shipped_detections().glob("*.yml")))


@pytest.mark.parametrize("event", [EXEC, entry(event_data(EXEC))], ids=["file", "joined"])
def test_an_exec_by_get_raises_its_alert(rules, event):
    (alert, *_) = Engine(rules).feed(event, "cluster/apiserver/a", 0)
    assert alert.rule == "exec-by-get"
