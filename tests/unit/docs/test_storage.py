"""docs/storage.md lists every driver with the fields that are compared."""

from pathlib import Path

import pytest

from webhook.core.storage.drivers import DRIVERS

PAGE = (Path(__file__).parents[3] / "docs" / "storage.md").read_text()


@pytest.mark.parametrize("name", DRIVERS)
def test_each_driver_is_listed_with_its_fields(name):
    entry = DRIVERS[name]
    repository = entry.source.partition(" ")[0]
    row = f"| `{name}` | {entry.fields} | {', '.join(entry.spaces)} | `{repository}` |"
    assert row in PAGE


def test_no_other_driver_is_listed():
    section = PAGE[PAGE.index("## Drivers") : PAGE.index("In-tree volume types")]
    assert section.count("\n| `") == len(DRIVERS)
