"""``weightlock evidence``: compliance evidence from the audit log alone, and its independent recomputation."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.errors import UsageError
from webhook.audit.bucket import local
from webhook.audit.check import log_nodes, verify_directory
from webhook.audit.errors import AuditError
from webhook.audit.keys import read_verifier_keys
from webhook.audit.storage import Directory, logs_below
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.entries import timestamp
from webhook.core.audit.evidence import components, html, oscal
from webhook.core.audit.evidence.assess import Scope, assess
from webhook.core.audit.evidence.profiles import PROFILES
from webhook.core.audit.evidence.timeline import Timeline
from webhook.core.audit.merkle import inclusion_proof
from webhook.core.audit.proof import Proof
from webhook.core.audit.tiles import CHECKPOINT
from webhook.core.audit.verify import entries_of
from webhook.manifests.reader import ManifestError, read_path
from webhook.manifests.shipped import shipped_policies

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from webhook.core.audit.evidence.assess import Assessment

_LINK = re.compile(r"proofs/(.+)-([0-9]+)\.tlog-proof")
_STATIC = ("component", "profile", "catalog")
_MAX_BYTES = 64 * 1024 * 1024


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "evidence",
        help="write compliance evidence from the audit log, or recompute it",
        description="Write OSCAL assessment results from the audit log alone. `weightlock evidence verify RESULTS` "
        "recomputes them. `weightlock evidence component`, `profile` and `catalog` write the OSCAL "
        "documents that depend on no log. Exit code 0: success, 1: a control is not satisfied or the results "
        "differ, 2: bad input.",
    )
    parser.add_argument(
        "verb",
        nargs="?",
        choices=["verify", *_STATIC],
        help="recompute results instead of writing them, or write a document that depends on no log",
    )
    parser.add_argument(
        "results", nargs="?", type=Path, metavar="RESULTS", help="assessment results to recompute"
    )
    parser.add_argument(
        "--log",
        metavar="DIR",
        help="a log, a directory of logs, or s3://BUCKET/PREFIX (required for results)",
    )
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", help="verifier keys of the logs (default: in each log)"
    )
    parser.add_argument(
        "--from", dest="start", metavar="TIME", help="start of the period, RFC 3339 UTC or a date"
    )
    parser.add_argument("--to", dest="end", metavar="TIME", help="end of the period, exclusive")
    parser.add_argument(
        "--profile", choices=sorted(PROFILES), default="nist-800-53", help="profile (%(default)s)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="assessment results (default: stdout)"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a report for readers")
    parser.add_argument(
        "--poam", type=Path, metavar="FILE", help="also write a plan of action and milestones"
    )
    parser.add_argument(
        "--proofs", type=Path, metavar="DIR", help="also write the proof of each linked entry"
    )
    parser.add_argument(
        "--sample", type=int, default=oscal.SAMPLE_SIZE, metavar="N", help="grants to sample (%(default)s)"
    )
    parser.add_argument(
        "--policies",
        type=Path,
        metavar="DIR",
        help="component: the policies in use (default: those that Weightlock ships)",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample (%(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write or recompute the evidence. Raises `UsageError`."""
    if options.verb in _STATIC:
        return _static(options)
    if options.log is None:
        raise UsageError("--log DIR is required")
    try:
        with local(options.log) as options.log:
            return _verify(options) if options.verb else _write(options)
    except AuditError as error:
        raise UsageError(str(error)) from None


def _write(options: argparse.Namespace) -> int:
    scope, timeline, assessments = _assess(
        options, _time(options.start, "--from"), _time(options.end, "--to")
    )
    if scope.start >= scope.end:
        raise UsageError("--from must be before --to")
    profile = PROFILES[options.profile]
    document = oscal.results(
        timeline, options.profile, profile, scope, assessments, size=options.sample, seed=options.seed
    )
    raw = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    outputs = {options.output: raw} if options.output else {}
    if options.poam:
        plan = oscal.plan(timeline, options.profile, profile, scope, assessments)
        outputs[options.poam] = orjson.dumps(plan, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if options.html:
        text = html.report(timeline, profile, scope, assessments, size=options.sample, seed=options.seed)
        outputs[options.html] = text.encode()
    if options.proofs:
        outputs |= _proofs(options.log, options.proofs, raw)
    try:
        for path, data in outputs.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None
    if not options.output:
        sys.stdout.buffer.write(raw)
    for line in _summary(assessments):
        print(line, file=sys.stderr)
    return 1 if any(each.state == "not-satisfied" for each in assessments) else 0


def _static(options: argparse.Namespace) -> int:
    """Write a document that depends on no log."""
    name, profile = options.profile, PROFILES[options.profile]
    if options.verb == "component":
        serving = components.Serving(_controls(options.policies))
        document = components.component_definition(serving, PROFILES, version("weightlock"))
    elif options.verb == "profile":
        document = components.profile_document(name, profile)
    else:
        document = components.catalog(name, profile)
    raw = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if options.output is None:
        sys.stdout.buffer.write(raw)
        return 0
    try:
        options.output.write_bytes(raw)
    except OSError as error:
        raise UsageError(f"cannot write {options.output}: {error.strerror or error}") from None
    return 0


def _controls(place: Path | None) -> list[tuple[str, tuple[str, ...]]]:
    """Return the policies in a directory with the controls that each names."""
    try:
        manifests = list(read_path(place or shipped_policies()))
    except (ManifestError, FileNotFoundError) as error:
        raise UsageError(str(error)) from None
    return [
        (document["metadata"]["name"], tuple(document.get("spec", {}).get("controls", ())))
        for document in (manifest.document for manifest in manifests)
        if document.get("kind") == "WeightPolicy"
    ]


def _assess(options: argparse.Namespace, start: str, end: str) -> tuple[Scope, Timeline, list[Assessment]]:
    timeline = Timeline()
    keys = read_verifier_keys(options.keys) if options.keys else ()
    pending: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    checked = verify_directory(
        options.log,
        keys,
        on_entry=lambda _, index, entry: pending.setdefault(entry["source"], []).append((index, entry)),
    )
    for origin in sorted(pending):
        for index, entry in pending[origin]:
            timeline.add(origin, index, entry)
    timeline.finish()
    faults = tuple(
        f"{each.report.origin or each.place}: {each.report.faults[0]}"
        for each in checked
        if not each.report.whole
    )
    logs = tuple(
        (each.report.origin, each.report.size, f"sha256:{each.report.root.hex()}") for each in checked
    )
    scope = Scope(start, end, faults, logs)
    return scope, timeline, assess(timeline, PROFILES[options.profile], scope)


def _verify(options: argparse.Namespace) -> int:
    if options.results is None:
        raise UsageError("evidence verify needs the file with the results")
    try:
        raw = options.results.read_bytes()[:_MAX_BYTES]
        document = orjson.loads(raw)
        root = document["assessment-results"]
        result = root["results"][0]
        options.profile = root["metadata"]["version"]
        props = {prop["name"]: prop["value"] for prop in result["props"]}
        size, seed = int(props["sample-size"]), int(props["sample-seed"])
        start, end = str(result["start"]), str(result["end"])
        if options.profile not in PROFILES:
            raise ValueError(f"unknown profile {options.profile!r:.80}")
    except OSError as error:
        raise UsageError(f"cannot read {options.results}: {error.strerror or error}") from None
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(f"{options.results}: not assessment results of this program: {error}") from None
    scope, timeline, assessments = _assess(options, start, end)
    expected = oscal.results(
        timeline, options.profile, PROFILES[options.profile], scope, assessments, size=size, seed=seed
    )
    differences = [f"log: {fault}" for fault in scope.faults]
    differences += _differences(result, expected["assessment-results"]["results"][0])
    if not differences and document != expected:
        differences = ["the document differs outside of its findings"]
    for line in differences:
        print(f"DIFFERS: {line}")
    if not differences:
        print(f"recomputed: {len(result.get('findings', ()))} findings are the same")
    return 1 if differences else 0


def _differences(stated: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Name the controls whose result differs, and the logs that are not the stated ones."""

    def states(result: dict[str, Any]) -> dict[str, str]:
        return {
            finding["target"]["target-id"]: finding["target"]["status"]["state"]
            for finding in result.get("findings", ())
        }

    def logs(result: dict[str, Any]) -> dict[str, str]:
        return {prop["value"]: prop.get("remarks", "") for prop in result["props"] if prop["name"] == "log"}

    before, after = states(stated), states(expected)
    lines = [
        f"control {name}: stated {before.get(name, 'not assessed')}, recomputed {after.get(name, 'not assessed')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    lines += [
        f"log {name}: stated {logs(stated).get(name, 'nothing')}, found {logs(expected).get(name, 'nothing')}"
        for name in sorted(logs(stated).keys() | logs(expected).keys())
        if logs(stated).get(name) != logs(expected).get(name)
    ]
    return lines


def _proofs(root: Path, target: Path, raw: bytes) -> dict[Path, bytes]:
    """Return the proof file of every entry that the document links."""
    links = set(_LINK.findall(raw.decode()))
    files = {}
    for place in logs_below(root):
        reader = Directory(place)
        signed = parse_checkpoint(reader.read(CHECKPOINT) or b"")
        state = signed.checkpoint
        name = state.origin.replace("/", "-")
        indexes = {int(index) for log, index in links if log == name}
        for index, entry in entries_of(reader, state.size) if indexes else ():
            if index in indexes:
                hashes = tuple(inclusion_proof(log_nodes(place, state.size), index, state.size))
                files[target / f"{name}-{index}.tlog-proof"] = (
                    Proof(index, hashes, signed, entry).render().encode()
                )
    return files


def _summary(assessments: Sequence[Assessment]) -> list[str]:
    lines = []
    for each in assessments:
        reason = next((reason for part in each.parts for reason, _ in part.against), "")
        lines.append(f"{each.control.id:10} {each.state}{': ' + reason if reason else ''}")
    counts = {
        state: sum(each.state == state for each in assessments)
        for state in ("satisfied", "not-satisfied", "not-assessed")
    }
    return [*lines, "evidence: " + ", ".join(f"{count} {state}" for state, count in counts.items())]


def _time(text: str | None, option: str) -> str:
    if not text:
        raise UsageError(f"{option} is required")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}: expected RFC 3339, such as 2026-11-29T08:00:00Z") from None
    return timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
