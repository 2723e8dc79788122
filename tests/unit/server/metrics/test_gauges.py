"""Gauges of access: grants, grants that expire soon, break-glass grants, and ignored objects."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from webhook.server.metrics.gauges import of_access

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def grant(minutes, break_glass=False):
    return SimpleNamespace(expires=NOW + timedelta(minutes=minutes), break_glass=break_glass)


def test_grants_are_counted_by_kind():
    grants = [grant(10), grant(60), grant(61), grant(600, break_glass=True)]
    access = SimpleNamespace(active=lambda now: grants if now == NOW else [], problems=["p", "q"])
    matches = of_access(SimpleNamespace(access=access, problems=["r"]), NOW)
    assert matches == {
        "weightlock_grants_active": 4,
        "weightlock_grants_expiring_soon": 2,
        "weightlock_break_glass_grants_active": 1,
        "weightlock_access_objects_ignored": 2,
        "weightlock_snapshot_problems": 1,
    }
