"""``weightlock policy``: runs the tests of policies, finds their mistakes, exports them as native ones."""

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
from webhook.cli.redteam import add_redteam
from webhook.core.policies.compiler import compile_policy
from webhook.core.policies.export import Export, export
from webhook.core.policies.lint import lint_policy
from webhook.manifests.reader import ManifestError, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.policytest import Result, suites

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from webhook.manifests.reader import Manifest


def add_parser(commands: Any) -> None:
    """Register the command and its three verbs."""
    parser = commands.add_parser(
        "policy",
        help="test, lint and export policies",
        description="Tools for authors of policies. Exit code 0: good, 1: a test or a policy is not, 2: bad input.",
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
        "lint", help="find mistakes: fields, types, rules that never match, slow expressions"
    )
    _add_common(parser)
    parser.add_argument("--strict", action="store_true", help="a warning is a reason for exit code 1, too")
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
        help="files or directories; default: the policies that ship",
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run_tests(options: argparse.Namespace) -> int:
    """Run every case; 1 where one did not go as expected."""
    try:
        results = [
            suite.run(case) for path in _paths(options) for suite in suites(path) for case in suite.cases
        ]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if not results:
        raise UsageError("there are no *.test.yaml files")
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
    """Look at every policy; 1 where one has an error."""
    try:
        found = [
            (item.source, remark) for item in _manifests(options) for remark in lint_policy(item.document)
        ]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if options.output == "json":
        _print_json([{"source": source} | asdict(remark) for source, remark in found])
    else:
        for source, remark in found:
            print(f"{source}: {remark}")
        errors = sum(remark.level == "error" for _, remark in found)
        print(f"{errors} errors, {len(found) - errors} warnings")
    return 1 if any(options.strict or remark.level == "error" for _, remark in found) else 0


def run_export(options: argparse.Namespace) -> int:
    """Print the manifests of what can be exported, and name the rest."""
    exports: list[Export] = []
    others: list[Any] = []
    try:
        for manifest in _manifests(options):
            if manifest.document.get("kind") == "WeightPolicy":
                exports.append(_export(manifest))
            else:
                others.append(manifest.document)
    except ManifestError as error:
        raise UsageError(str(error)) from None
    documents = [*others, *(document for item in exports for document in item.manifests)]
    left = [item for item in exports if item.reason]
    if options.output == "json":
        _print_json(
            {
                "manifests": documents,
                "left": [{"policy": item.policy, "reason": item.reason} for item in left],
            }
        )
        return 0
    yaml.safe_dump_all(documents, sys.stdout, sort_keys=False, width=110, allow_unicode=True)
    for item in left:
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


def _manifests(options: argparse.Namespace) -> Iterator[Manifest]:
    for path in _paths(options):
        yield from read_path(path)


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
    """JUnit XML, as CI systems read it: a suite for each file."""
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
