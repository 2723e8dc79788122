"""``weightlock explain``: the reasons for a verdict, down to the part of an expression that decided."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.errors import UsageError
from webhook.cli.explain.kinds import explain_kinds
from webhook.cli.review.command import add_review_arguments, documents_of, report_errors, requester_of
from webhook.cli.state import load_source
from webhook.core.admission.messages import fix_of, sentence
from webhook.manifests.reader import Manifest, ManifestError
from webhook.manifests.shipped import shipped_page
from webhook.offline.explain import explain_review

if TYPE_CHECKING:
    import argparse

    from webhook.cel.tools.explain import Node
    from webhook.offline.explain import Explanation, RuleExplained

_SHORT_DEPTH = 7
_CODE = re.compile(r"WL[0-9]{3}")
_MARKS = {"broken": "✗", "error": "!", "holds": "✓", "skips": "-"}


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "explain",
        help="explain a verdict expression by expression",
        description="Takes the arguments of review and prints the deciding rules as trees of their parts, "
        "with values. Exit codes as for review.",
    )
    add_review_arguments(parser)
    parser.add_argument("--policy", default="", metavar="NAME", help="only this policy, whatever its outcome")
    parser.add_argument("--full", action="store_true", help="all parts, not only the deciding ones")
    parser.add_argument(
        "--all", action="store_true", help="also rules that hold and policies that do not apply"
    )
    parser.add_argument(
        "--kind",
        action="store_true",
        help="the files are CustomResourceDefinitions: print the pods that their schemas show",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Explain every document, or print the section on a reason code."""
    other = _without_review(options)
    if other is not None:
        return other
    documents = list(documents_of(options))
    requester = requester_of(options, documents)
    if not documents:
        raise UsageError("the files contain no objects")
    has_objects = any(isinstance(item, Manifest) for item in documents)
    provider = load_source(options) if has_objects else None
    explanations: list[Explanation] = []
    errors: list[ManifestError] = []
    for document in documents:
        try:
            if isinstance(document, ManifestError):
                raise document
            if provider is not None:
                explanations.append(explain_review(document, requester, provider, apply=True))
        except ManifestError as error:
            errors.append(error)
    if options.output == "json":
        answers = [_as_json(item, _shown(item, options)) for item in explanations]
        sys.stdout.write(orjson.dumps(answers, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        for item in explanations:
            _print(item, _shown(item, options), full=options.full)
    report_errors("explain", errors)
    if errors:
        return 2
    return 0 if all(item.verdict.allowed for item in explanations) else 1


def _without_review(options: argparse.Namespace) -> int | None:
    """Explain schemas or a reason code, which need no review. None for documents."""
    if options.kind:
        return explain_kinds(options)
    if len(options.files) == 1 and _CODE.fullmatch(options.files[0]) and not Path(options.files[0]).exists():
        return _print_section(options.files[0])
    return None


def _print_section(code: str) -> int:
    """Print the section of docs/denied.md on a code. Raises `UsageError`."""
    try:
        page = shipped_page("denied")
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    section = re.search(rf"^## ({code} .*?)(?=\n<a id=|\n## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    if section is None:
        raise UsageError(
            f"{code} is not a reason code of Weightlock; it may belong to a policy of your organization"
        )
    print(section[1].strip())
    return 0


def _shown(explanation: Explanation, options: argparse.Namespace) -> list[RuleExplained]:
    return [
        rule
        for rule in explanation.rules
        if (options.policy in ("", rule.policy))
        and (options.all or options.policy or rule.outcome in ("broken", "error"))
    ]


def _print(explanation: Explanation, rules: list[RuleExplained], *, full: bool) -> None:
    verdict = explanation.verdict
    print(f"{'allowed' if verdict.allowed else 'denied '}  {explanation.resource}")
    for finding in (*verdict.denials, *verdict.warnings, *verdict.audits):
        print(f"  {finding.action}: {sentence(finding)} [{finding.code}]")
        if fix_of(finding):
            print(f"    Fix: {fix_of(finding)}")
    for use in explanation.weights:
        volume = f', volume "{use.volume}"' if use.volume else ""
        print(
            f'  Weights: model "{use.model}"{volume}, via {use.via}{": " if use.detail else ""}{use.detail}'
        )
    for rule in rules:
        where = f" at {rule.path}" if rule.path else ""
        print(f"  {_MARKS[rule.outcome]} {rule.policy} {rule.field} [{rule.code}]{where}")
        for line in (rule.tree if full else _shortened(rule.tree, _SHORT_DEPTH)).lines(2):
            print(f"  {line}")


def _shortened(node: Node, depth: int) -> Node:
    """Return the tree down to a depth, without unreached parts, and without children if a sibling decided."""
    children = [
        child for child in node.children if child.note != "not reached" and not child.text.startswith("[")
    ]
    decided = any("decides" in child.note for child in children)
    short = (
        _shortened(child, depth - 1 if not decided or "decides" in child.note else 0)
        for child in (children if depth > 0 else ())
    )
    return replace(node, children=tuple(short))


def _as_json(explanation: Explanation, rules: list[RuleExplained]) -> dict[str, Any]:
    return {
        "resource": explanation.resource,
        "allowed": explanation.verdict.allowed,
        "reasons": [
            {"code": item.code, "policy": item.policy, "message": item.message, "fix": item.fix}
            for item in explanation.verdict.denials
        ],
        "weights": [use.as_cel() for use in explanation.weights],
        "rules": [asdict(rule) for rule in rules],
    }
