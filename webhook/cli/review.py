"""``weightlock review``: verdicts for manifests and recorded admission reviews, as text or JSON, with an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.errors import UsageError
from webhook.cli.state import add_state_arguments, load_source
from webhook.core.admission.messages import denial, warnings
from webhook.manifests.reader import Manifest, ManifestError, read_bytes, read_path
from webhook.offline.review import Outcome, Requester, review

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_MAX_STDIN_BYTES = 16 * 1024 * 1024


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "review",
        help="the verdict the webhook would give, offline",
        description="Reviews manifests, or AdmissionReview objects as an API server sends them. "
        "Exit code 0: all allowed, 1: any denied, 2: bad input.",
    )
    add_review_arguments(parser)
    parser.set_defaults(run=run)


def add_review_arguments(parser: argparse.ArgumentParser, *, state_required: bool = True) -> None:
    """The arguments that say what is reviewed and who asks."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="manifests, directories, or - for standard input"
    )
    add_state_arguments(parser, required=state_required)
    parser.add_argument(
        "--user", default="", metavar="U", help="who asks; default: the pod's own service account"
    )
    parser.add_argument(
        "--group", action="append", default=[], metavar="G", help="a group of that user; repeatable"
    )
    parser.add_argument("--service-account", default="", metavar="NS/NAME", help="this service account asks")
    parser.add_argument("--namespace", "-n", default="", help="namespace of manifests that name none")
    parser.add_argument(
        "--operation", default="CREATE", type=str.upper, choices=["CREATE", "UPDATE", "DELETE", "CONNECT"]
    )
    parser.add_argument("--subresource", default="", metavar="S", help="such as exec or ephemeralcontainers")
    parser.add_argument("--old", type=Path, metavar="FILE", help="the object before an UPDATE")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run(options: argparse.Namespace) -> int:
    """Review every document and print the answers."""
    asker = asker_of(options)
    source = load_source(options)
    try:
        outcomes = [review(manifest, asker, source) for manifest in manifests_of(options)]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if not outcomes:
        raise UsageError("the files hold no objects")
    if options.output == "json":
        sys.stdout.write(
            orjson.dumps([as_json(outcome) for outcome in outcomes], option=orjson.OPT_INDENT_2).decode()
        )
        sys.stdout.write("\n")
    else:
        for outcome in outcomes:
            print_outcome(outcome, source.snapshot().settings.help_url)
    return 0 if all(outcome.verdict.allowed for outcome in outcomes) else 1


def manifests_of(options: argparse.Namespace) -> Iterator[Manifest]:
    """The documents to review. Raises `ManifestError`."""
    for name in options.files:
        if name == "-":
            yield from read_bytes(sys.stdin.buffer.read(_MAX_STDIN_BYTES), "standard input")
        else:
            yield from read_path(Path(name))


def asker_of(options: argparse.Namespace) -> Requester:
    """Who asks. Raises `UsageError`."""
    user, namespace = options.user, options.namespace
    if options.service_account:
        account_namespace, slash, name = options.service_account.partition("/")
        if not (account_namespace and slash and name):
            raise UsageError("--service-account is written NS/NAME")
        if user:
            raise UsageError("give either --user or --service-account: one of them asks")
        user, namespace = f"system:serviceaccount:{account_namespace}:{name}", namespace or account_namespace
    old = None
    if options.old is not None:
        try:
            olds = list(read_path(options.old))
        except ManifestError as error:
            raise UsageError(str(error)) from None
        if len(olds) != 1:
            raise UsageError(f"{options.old}: expected one object, found {len(olds)}")
        old = olds[0].document
    if options.operation == "UPDATE" and old is None and not _only_reviews(options):
        raise UsageError("--operation UPDATE needs --old FILE, the object as it was")
    return Requester(
        user, tuple(options.group), namespace or "default", options.operation, options.subresource, old
    )


def _only_reviews(options: argparse.Namespace) -> bool:
    try:
        return all(manifest.document.get("kind") == "AdmissionReview" for manifest in manifests_of(options))
    except ManifestError:
        return True


def as_json(outcome: Outcome) -> dict[str, Any]:
    """One answer, in the form other programs rely on."""
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


def print_outcome(outcome: Outcome, help_url: str = "") -> None:
    """One answer, as its reader would meet it."""
    verdict = outcome.verdict
    injected = "  (key sidecar injected)" if verdict.injected else ""
    print(f"{'allowed' if verdict.allowed else 'denied '}  {outcome.resource}{injected}")
    for warning in warnings(verdict.warnings):
        print(f"  Warning: {warning}")
    if verdict.denials:
        for line in denial(verdict.denials, verdict.uid, help_url).splitlines():
            print(f"  {line}")
