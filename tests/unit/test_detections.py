"""The shipped detection rules: the cases beside them, and pySigma as an independent reader of the same files."""

import json
import re
import sqlite3
from pathlib import Path

import pytest
import yaml

from webhook.core.detection.engine import Engine
from webhook.manifests.detections import load_rules, read_documents, rule_files
from webhook.offline.detectiontest import events_of, read_cases, run_case
from webhook.offline.sigma import FORMATS, compile_rules

ROOT = Path(__file__).parents[2]
DETECTIONS = ROOT / "detections"
FILES = rule_files(DETECTIONS)
CASES = [
    pytest.param(file, cases, case, id=f"{file.stem}: {case.name}")
    for file in FILES
    for cases in (read_cases(file.with_name(f"{file.stem}.test.yaml")),)
    for case in cases.cases
]
RULES = load_rules(FILES)


@pytest.mark.parametrize(("file", "cases", "case"), CASES)
def test_case(file, cases, case):
    assert run_case(file, cases, case).problems == ()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_rule_has_cases_that_fire_and_that_do_not(file):
    cases = read_cases(file.with_name(f"{file.stem}.test.yaml")).cases
    fired = {name for case in cases for name in case.fires}
    assert fired == set(load_rules([file]).names)
    assert any(not case.fires for case in cases)


@pytest.mark.parametrize("name", RULES.names)
def test_an_alert_is_mapped_to_techniques_and_controls(name):
    about = RULES.about(name)
    assert any(tag.startswith("attack.t") for tag in about.techniques)
    assert (
        any(re.fullmatch(r"atlas\.aml\.t\d{4}", tag) for tag in about.tags) or about.level == "informational"
    )
    assert about.extension.controls or about.level == "informational"


@pytest.mark.parametrize("name", RULES.names)
def test_an_alert_has_a_section_in_the_runbook(name):
    about = RULES.about(name)
    sections = re.findall(r"^### (.+)$", (ROOT / "docs" / "detection.md").read_text(), re.MULTILINE)
    assert (about.extension.runbook or name) in sections


def test_pysigma_parses_every_file():
    collection = pytest.importorskip("sigma.collection")
    for file in FILES:
        parsed = collection.SigmaCollection.from_yaml(file.read_text())
        assert [rule.errors for rule in parsed.rules if rule.errors] == []
        assert {rule.name for rule in parsed.rules} == {each["name"] for each in read_documents(file)}


@pytest.mark.parametrize("target", FORMATS)
def test_every_rule_is_compiled_or_reported(target):
    pytest.importorskip("sigma.backends.sqlite")
    queries = compile_rules(FILES, target)
    assert {query.name for query in queries} == set(RULES.names)
    assert all(bool(query.query) != bool(query.fault) for query in queries)
    assert {query.name for query in queries if query.fault} <= {
        "probing",
        "weakened-model-requested",
        "weakened-policy-requested",
    }
    if target == "sqlite":
        assert not any(query.fault for query in queries)


COMPARED = [
    pytest.param(file, cases, case, id=f"{file.stem}: {case.name}")
    for file in FILES
    if not any((each.get("weightlock") or {}).get("statistic") for each in read_documents(file))
    for cases in (read_cases(file.with_name(f"{file.stem}.test.yaml")),)
    for case in cases.cases
]


@pytest.mark.parametrize(("file", "cases", "case"), COMPARED)
def test_sqlite_agrees(file, cases, case):
    """The query that pySigma compiles gives a row exactly where the engine raises an alert."""
    pytest.importorskip("sigma.backends.sqlite")
    events = list(events_of(cases, case))
    queries = compile_rules([file], "sqlite")
    database = table([row for event in events for row in rows_of(flat(event))], queries)
    engine = Engine(load_rules([file]))
    fired = {alert.rule for index, event in enumerate(events) for alert in engine.feed(event, "o", index)}
    assert {query.name for query in queries if database.execute(query.query).fetchall()} == fired


def flat(event, prefix=""):
    row = {}
    for key, value in event.items():
        if isinstance(value, dict):
            row |= flat(value, f"{prefix}{key}.")
        else:
            row[f"{prefix}{key}"] = value
    return row


def rows_of(row):
    """A list becomes one row for each item, as SQL has no lists."""
    lists = [key for key, value in row.items() if isinstance(value, list)]
    if not lists:
        return [row]
    return [inner for item in row[lists[0]] for inner in rows_of({**row, lists[0]: item})]


def table(rows, queries):
    columns = {"timestamp", *(key for row in rows for key in row)}
    columns |= set(re.findall(r"`([A-Za-z.]+)`", " ".join(query.query for query in queries)))
    columns |= set(re.findall(r"\b(verb|requestURI|type)\b", " ".join(query.query for query in queries)))
    columns -= {"rowid"}
    database = sqlite3.connect(":memory:")
    database.create_function("REGEXP", 2, lambda pattern, text: re.search(pattern, text or "") is not None)
    names = sorted(columns)
    database.execute(f"CREATE TABLE logs ({', '.join(f'`{name}`' for name in names)})")
    for row in rows:
        values = {"timestamp": row.get("time") or row.get("requestReceivedTimestamp"), **row}
        database.execute(
            f"INSERT INTO logs VALUES ({', '.join('?' * len(names))})", [values.get(name) for name in names]
        )
    return database


def test_the_rules_are_yaml_that_other_tools_read():
    for file in FILES:
        assert list(yaml.safe_load_all(file.read_text()))
        assert json.dumps(read_documents(file), default=str)
