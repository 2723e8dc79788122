"""``weightlock policy``: test policies, lint them, and export them as native policies."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as Xml

import orjson
import yaml

from webhook.api.policy import WeightPolicy
from webhook.app.errors import UsageError
from webhook.cli.policy.redteam import add_redteam
from webhook.core.policies.compiler import compile_policy
from webhook.core.policies.export import Export, export
from webhook.core.policies.lint import lint_policy
from webhook.manifests.foreign import foreign_files, foreign_policies
from webhook.manifests.reader import ManifestError, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.policytest import Result, suites

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from webhook.manifests.reader import Manifest

_KINDS = frozenset({"WeightPolicy", "ValidatingAdmissionPolicy"})


def add_parser(commands: Any) -> None:
    """Register the command and its three verbs."""
    parser = commands.add_parser(
        "policy",
        help="test, lint and export policies",
        description="Tools for policy authors. Exit code 0: success, 1: a test or a policy has errors, 2: bad input.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_test(verbs)
    _add_lint(verbs)
    _add_export(verbs)
    add_redteam(verbs)


def _add_test(verbs: Any) -> None:
    parser = verbs.add_parser("test", help="run the cases in *.test.yaml files")
    _add_common(parser)
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write the results as JUnit XML")
    parser.set_defaults(run=run_tests)


def _add_lint(verbs: Any) -> None:
    parser = verbs.add_parser(
        "lint", help="report invalid fields and types, rules that never match, slow expressions"
    )
    _add_common(parser)
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    parser.set_defaults(run=run_lint)


def _add_export(verbs: Any) -> None:
    parser = verbs.add_parser("export", help="print policies in a form that works without Weightlock")
    parser.add_argument(
        "--vap", action="store_true", required=True, help="as ValidatingAdmissionPolicy and binding"
    )
    _add_common(parser)
    parser.set_defaults(run=run_export)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="files or directories (default: the shipped policies)",
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run_tests(options: argparse.Namespace) -> int:
    """Run every case; return 1 if one fails."""
    try:
        results = [
            suite.run(case) for path in _paths(options) for suite in suites(path) for case in suite.cases
        ]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if not results:
        raise UsageError("no *.test.yaml files")
    if options.junit is not None:
        _write_junit(options.junit, results)
    if options.output == "json":
        _print_json(
            [{"file": item.file, "case": item.case, "problems": list(item.problems)} for item in results]
        )
    else:
        _print_results(results)
    return 0 if all(item.passed for item in results) else 1


def run_lint(options: argparse.Namespace) -> int:
    """Check every policy; return 1 if one has an error."""
    manifests = _policies(options)
    remarks = [(item.source, remark) for item in manifests for remark in lint_policy(item.document)]
    if options.output == "json":
        _print_json([{"source": source} | asdict(remark) for source, remark in remarks])
    else:
        for source, remark in remarks:
            print(f"{source}: {remark}")
        errors = sum(remark.level == "error" for _, remark in remarks)
        print(f"{errors} errors, {len(remarks) - errors} warnings")
    return 1 if any(options.strict or remark.level == "error" for _, remark in remarks) else 0


def run_export(options: argparse.Namespace) -> int:
    """Print the exported manifests, and name the policies that cannot be exported."""
    exports: list[Export] = []
    others: list[Any] = []
    for manifest in _policies(options):
        if manifest.document.get("kind") == "WeightPolicy":
            exports.append(_export(manifest))
        else:
            others.append(manifest.document)
    documents = [*others, *(document for item in exports for document in item.manifests)]
    skipped = [item for item in exports if item.reason]
    if options.output == "json":
        _print_json(
            {
                "manifests": documents,
                "left": [{"policy": item.policy, "reason": item.reason} for item in skipped],
            }
        )
        return 0
    yaml.safe_dump_all(documents, sys.stdout, sort_keys=False, width=110, allow_unicode=True)
    for item in skipped:
        print(f"not exported: {item.policy}: {item.reason}", file=sys.stderr)
    return 0


def _export(manifest: Manifest) -> Export:
    try:
        policy = WeightPolicy.model_validate(manifest.document)
        return export(policy, compile_policy(policy.metadata.name, policy.spec, policy.spec))
    except ValueError as error:
        raise UsageError(f"{manifest.source}: {error}") from None


def _paths(options: argparse.Namespace) -> Sequence[Path]:
    try:
        paths: Sequence[Path] = options.paths or [shipped_policies()]
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or directory")
    return paths


def _policies(options: argparse.Namespace) -> list[Manifest]:
    """Read the objects below the paths; policies of other engines are named, and no policy at all is an error."""
    paths = _paths(options)
    try:
        manifests = [manifest for path in paths for manifest in read_path(path)]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    for sentence in (*foreign_policies(manifests), *(text for path in paths for text in foreign_files(path))):
        print(f"weightlock policy: warning: {sentence}", file=sys.stderr)
    if not any(manifest.document.get("kind") in _KINDS for manifest in manifests):
        raise UsageError(
            f"{', '.join(map(str, paths))}: no WeightPolicy and no ValidatingAdmissionPolicy to check"
        )
    return manifests


def _print_results(results: Iterable[Result]) -> None:
    failed = passed = 0
    for result in results:
        if result.passed:
            passed += 1
            continue
        failed += 1
        print(f"FAILED  {result.file}: {result.case}")
        for problem in result.problems:
            print(f"        {problem}")
    print(f"{passed + failed} cases, {passed} passed, {failed} failed")


def _write_junit(path: Path, results: Sequence[Result]) -> None:
    """Write JUnit XML for CI systems: a suite for each file."""
    root = Xml.Element("testsuites", name="weightlock policy test")
    for file in dict.fromkeys(result.file for result in results):
        of_file = [result for result in results if result.file == file]
        failures = str(sum(not result.passed for result in of_file))
        suite = Xml.SubElement(root, "testsuite", name=file, tests=str(len(of_file)), failures=failures)
        for result in of_file:
            case = Xml.SubElement(suite, "testcase", classname=file, name=result.case)
            if not result.passed:
                failure = Xml.SubElement(case, "failure", message=result.problems[0])
                failure.text = "\n".join(result.problems)
    try:
        path.write_bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None


def _print_json(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
