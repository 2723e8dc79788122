"""``weightlock explain``: why a review comes out as it does, down to the part of an expression that decided."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.errors import UsageError
from webhook.cli.review import add_review_arguments, asker_of, manifests_of
from webhook.cli.state import load_source
from webhook.core.admission.messages import fix_of, sentence
from webhook.manifests.reader import ManifestError
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
        help="which part of which rule decided",
        description="Takes the arguments of review, and shows the rules that decided as trees of their parts, "
        "with values. Exit codes as review.",
    )
    add_review_arguments(parser, state_required=False)
    parser.add_argument("--policy", default="", metavar="NAME", help="this policy only, broken or not")
    parser.add_argument("--full", action="store_true", help="every part, not only those that decided")
    parser.add_argument(
        "--all", action="store_true", help="also the rules that hold, and policies that do not apply"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Explain every document, or print the section on a reason code."""
    if len(options.files) == 1 and _CODE.fullmatch(options.files[0]) and not Path(options.files[0]).exists():
        return _print_section(options.files[0])
    if options.state is None:
        raise UsageError("--state DIR is required to explain a verdict")
    asker = asker_of(options)
    source = load_source(options)
    try:
        found = [explain_review(manifest, asker, source) for manifest in manifests_of(options)]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if not found:
        raise UsageError("the files hold no objects")
    if options.output == "json":
        answers = [_as_json(item, _shown(item, options)) for item in found]
        sys.stdout.write(orjson.dumps(answers, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        for item in found:
            _print(item, _shown(item, options), full=options.full)
    return 0 if all(item.verdict.allowed for item in found) else 1


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
    for rule in rules:
        where = f" at {rule.path}" if rule.path else ""
        print(f"  {_MARKS[rule.outcome]} {rule.policy} {rule.field} [{rule.code}]{where}")
        for line in (rule.tree if full else _shortened(rule.tree, _SHORT_DEPTH)).lines(2):
            print(f"  {line}")


def _shortened(node: Node, depth: int) -> Node:
    """The tree down to a depth, without what was not reached, and bare where a sibling decided."""
    children = [
        child for child in node.children if child.note != "not reached" and not child.text.startswith("[")
    ]
    decided = any("decides" in child.note for child in children)
    kept = (
        _shortened(child, depth - 1 if not decided or "decides" in child.note else 0)
        for child in (children if depth > 0 else ())
    )
    return replace(node, children=tuple(kept))


def _as_json(explanation: Explanation, rules: list[RuleExplained]) -> dict[str, Any]:
    return {
        "resource": explanation.resource,
        "allowed": explanation.verdict.allowed,
        "reasons": [
            {"code": item.code, "policy": item.policy, "message": item.message, "fix": item.fix}
            for item in explanation.verdict.denials
        ],
        "rules": [asdict(rule) for rule in rules],
    }
