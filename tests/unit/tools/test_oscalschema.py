"""tests/tools/oscalschema.py with a go that only pretends: nothing is fetched by --find, and no other file is used."""

from functools import partial

import pytest

PATH = "src/internal/schemas/oscal_complete_schema-1-1-3.json"


@pytest.fixture
def run(run_with_go):
    return partial(run_with_go, "oscalschema.py")


def test_find_does_not_fetch(run, tmp_path):
    answer = run("--find")
    assert (answer.returncode, "not fetched yet" in answer.stderr) == (3, True)
    assert not (tmp_path / "log").exists()


def test_a_failed_fetch_leaves_no_files(run, tmp_path):
    answer = run(GO_ERROR="no such host")
    assert (answer.returncode, answer.stderr.splitlines()[-1].endswith("no such host")) == (3, True)
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_file_is_rejected(run, tmp_path):
    file = tmp_path / "modules" / PATH
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    answer = run()
    assert (answer.returncode, "is not the file that was expected" in answer.stderr) == (3, True)
    assert list((tmp_path / "cache").iterdir()) == []
