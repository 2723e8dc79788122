"""The verdicts of ``weightlock review`` in the formats of other tools: JSON, JUnit, SARIF and GitHub annotations.

Each format is a pure function from entries to text. An entry is one document with its verdict, or one document that
could not be read. Messages come from policies and manifests, so every format escapes them by its own rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as Xml

import orjson

from webhook.api.links import help_link
from webhook.core.admission.messages import denial, fix_of, sentence, warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from webhook.core.policies.policy import Finding
    from webhook.manifests.reader import Manifest, ManifestError
    from webhook.offline.review import Outcome

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
UNREADABLE = "unreadable-document"
_LEVELS = {"Deny": "error", "Warn": "warning", "Audit": "note"}
# Characters that XML 1.0 does not have, and neither do messages for a terminal.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One document: where it is, and its verdict or the reason why it has none."""

    file: str
    line: int
    outcome: Outcome | None = None
    error: ManifestError | None = None
    manifest: Manifest | None = None

    def line_of(self, finding: Finding) -> int:
        """Return the line of the field that a finding names; the first line of the document otherwise."""
        if self.manifest is None or not finding.path:
            return max(self.line, 1)
        field = finding.path
        document = self.manifest.document
        if document.get("kind") == "AdmissionReview":
            request = document.get("request")
            has_object = isinstance(request, dict) and request.get("object") is not None
            field = f"request.{'object' if has_object else 'oldObject'}.{field}"
        return max(self.manifest.line_of(field), 1)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Render one verdict in the form that other programs depend on."""
    verdict = outcome.verdict
    return {
        "resource": outcome.resource,
        "allowed": verdict.allowed,
        "reasons": [
            {"code": item.code, "policy": item.policy, "message": item.message, "fix": item.fix}
            for item in verdict.denials
        ],
        "warnings": list(warnings(verdict.warnings)),
        "patch": list(verdict.patch),
    }


def render_json(entries: Sequence[Entry], help_url: str = "") -> str:
    """Render the list of verdicts. Documents without one are reported on standard error only."""
    del help_url
    answers = [as_json(entry.outcome) for entry in entries if entry.outcome is not None]
    return orjson.dumps(answers, option=orjson.OPT_INDENT_2).decode() + "\n"


def render_text(entries: Sequence[Entry], help_url: str = "") -> str:
    """Render the verdicts for a terminal."""
    return "".join(f"{line}\n" for entry in entries for line in _text_lines(entry, help_url))


def render_junit(entries: Sequence[Entry], help_url: str = "") -> str:
    """Render JUnit XML: a suite for each file, a case for each document, a failure for each denial."""
    root = Xml.Element("testsuites", name="weightlock review")
    for file in dict.fromkeys(entry.file for entry in entries):
        of_file = [entry for entry in entries if entry.file == file]
        suite = Xml.SubElement(
            root,
            "testsuite",
            name=_xml(file),
            tests=str(len(of_file)),
            failures=str(
                sum(entry.outcome is not None and not entry.outcome.verdict.allowed for entry in of_file)
            ),
            errors=str(sum(entry.error is not None for entry in of_file)),
        )
        for entry in of_file:
            _junit_case(suite, entry, help_url)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def render_sarif(entries: Sequence[Entry], help_url: str = "") -> str:
    """Render SARIF 2.1.0 (OASIS): a rule for each code, a result for each finding, at the file and line."""
    from importlib.metadata import version  # noqa: PLC0415 - only this format needs it

    results = [result for entry in entries for result in _sarif_results(entry)]
    codes = dict.fromkeys(result["ruleId"] for result in results)
    driver = {
        "name": "weightlock",
        "version": version("weightlock"),
        "informationUri": "https://github.com/weightlock/weightlock",
        "rules": [{"id": code, "helpUri": help_link(help_url, code)} for code in codes],
    }
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return orjson.dumps(log, option=orjson.OPT_INDENT_2).decode() + "\n"


def render_github(entries: Sequence[Entry], help_url: str = "") -> str:
    """Render workflow commands that GitHub Actions shows as annotations of the file."""
    del help_url
    return "".join(f"{line}\n" for entry in entries for line in _github_lines(entry))


RENDERERS: dict[str, Callable[[Sequence[Entry], str], str]] = {
    "text": render_text,
    "json": render_json,
    "junit": render_junit,
    "sarif": render_sarif,
    "github": render_github,
}


def _text_lines(entry: Entry, help_url: str) -> Iterator[str]:
    if entry.outcome is None:
        return
    verdict = entry.outcome.verdict
    injected = "  (key sidecar injected)" if verdict.injected else ""
    yield f"{'allowed' if verdict.allowed else 'denied '}  {entry.outcome.resource}{injected}"
    for warning in warnings(verdict.warnings):
        yield f"  Warning: {warning}"
    if verdict.denials:
        for line in denial(verdict.denials, verdict.uid, help_url).splitlines():
            yield f"  {line}"


def _findings(entry: Entry) -> Iterable[Finding]:
    if entry.outcome is None:
        return ()
    verdict = entry.outcome.verdict
    return (*verdict.denials, *verdict.warnings, *verdict.audits)


def _junit_case(suite: Xml.Element, entry: Entry, help_url: str) -> None:
    if entry.outcome is None:
        case = Xml.SubElement(suite, "testcase", classname=_xml(entry.file), name=f"line {entry.line}")
        Xml.SubElement(case, "error", message=_xml(str(entry.error)), type=UNREADABLE)
        return
    verdict = entry.outcome.verdict
    case = Xml.SubElement(
        suite, "testcase", classname=_xml(entry.file), name=_xml(entry.outcome.resource), line=str(entry.line)
    )
    if verdict.denials:
        first = verdict.denials[0]
        failure = Xml.SubElement(case, "failure", message=_xml(sentence(first)), type=first.code)
        failure.text = _xml(denial(verdict.denials, verdict.uid, help_url))
    if verdict.warnings:
        Xml.SubElement(case, "system-out").text = _xml("\n".join(warnings(verdict.warnings)))


def _sarif_results(entry: Entry) -> Iterator[dict[str, Any]]:
    if entry.outcome is None:
        yield {
            "ruleId": UNREADABLE,
            "level": "error",
            "message": {"text": str(entry.error)},
            "locations": [_location(entry.file, max(entry.line, 1))],
        }
        return
    resource = entry.outcome.resource
    for finding in _findings(entry):
        fix = fix_of(finding)
        yield {
            "ruleId": finding.code,
            "level": _LEVELS[finding.action],
            "message": {"text": sentence(finding) + (f". Fix: {fix}" if fix else "")},
            "locations": [
                _location(entry.file, entry.line_of(finding))
                | {"logicalLocations": [{"fullyQualifiedName": resource}]}
            ],
            "properties": {"policy": finding.policy},
        }


def _location(file: str, line: int) -> dict[str, Any]:
    region = {"startLine": line}
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(file)}, "region": region}}


def _github_lines(entry: Entry) -> Iterator[str]:
    file = _property(entry.file)
    if entry.outcome is None:
        place = f"file={file},line={max(entry.line, 1)}"
        yield f"::error {place},title=Unreadable document::{_data(str(entry.error))}"
        return
    for finding in _findings(entry):
        level = {"Deny": "error", "Warn": "warning", "Audit": "notice"}[finding.action]
        title = _property(f"{entry.outcome.resource} [{finding.code}]")
        fix = fix_of(finding)
        text = sentence(finding) + (f"\nFix: {fix}" if fix else "")
        place = f"file={file},line={entry.line_of(finding)}"
        yield f"::{level} {place},title={title}::{_data(text)}"


def _uri(file: str) -> str:
    """A relative reference (RFC 3986) for a path; standard input has no file."""
    from urllib.parse import quote  # noqa: PLC0415 - only this format needs it

    return quote(file.replace("\\", "/").removeprefix("./"))


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
