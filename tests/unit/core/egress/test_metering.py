"""A pod may have sent what its rate and its age allow, and no more."""

from datetime import UTC, datetime, timedelta

import pytest

from webhook.api.config import EgressSettings
from webhook.core.egress import stamp
from webhook.core.egress.metering import allowance, excess

START = datetime(2026, 11, 23, tzinfo=UTC)
SETTINGS = EgressSettings(burst_bytes=1000, tolerance_percent=10)
POD = {
    "metadata": {"annotations": {stamp.STAMP: stamp.Stamp(8000, ("atlas",)).text()}},
    "status": {"startTime": "2026-11-23T00:00:00Z"},
}


@pytest.mark.parametrize(("seconds", "allowed"), [(0, 1000), (10, 12_000), (-5, 1000), (86400, 95_041_000)])
def test_the_allowance_grows_with_age(seconds, allowed):
    assert allowance(8000, seconds, SETTINGS) == allowed
    now = START + timedelta(seconds=seconds)
    assert excess(POD, allowed, now, SETTINGS) == ""
    assert "it sent" in excess(POD, allowed + 1, now, SETTINGS)


def test_without_a_report_or_a_stamp_a_pod_gets_nothing():
    assert "reports no egress" in excess(POD, None, START, SETTINGS)
    assert "missing" in excess({"metadata": {}}, 0, START, SETTINGS)
    assert "no start time" in excess({**POD, "status": {}}, 0, START, SETTINGS)
