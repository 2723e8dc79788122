"""The list of codes is that of docs/denied.md, and each is in one group."""

import re
from pathlib import Path

from webhook.core.admission import codes

PAGE = (Path(__file__).parents[4] / "docs" / "denied.md").read_text()


def test_the_list_is_complete_and_holds_nothing_else():
    assert set(re.findall(r"^## (WL\d{3}) ", PAGE, flags=re.MULTILINE)) == codes.KNOWN


def test_refusals_are_those_of_the_broker():
    source = (Path(codes.__file__).parents[2] / "keys" / "broker" / "refusal.py").read_text()
    assert sorted(re.findall(r'"(WL\d{3})"', source)) == sorted((*codes.REFUSALS, *codes.UNAVAILABLE))


def test_admission_never_gives_a_code_of_the_broker():
    assert not {*codes.REFUSALS, *codes.UNAVAILABLE} & {*codes.ADMISSION}
    assert set(codes.FAULTS) < set(codes.ADMISSION)
