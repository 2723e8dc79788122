"""``weightlock review``: verdicts for manifests and recorded admission reviews, with an exit code.

A document without a verdict (an unrendered template, a binary file) is one sentence on standard error and exit code 2.
The other documents still get their verdicts.
"""

from __future__ import annotations

import gc
import glob
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.app.errors import UsageError
from webhook.cli.review.formats import RENDERERS, Entry
from webhook.cli.state import add_state_arguments, load_source
from webhook.manifests.reader import Manifest, ManifestError, read_path, scan_bytes, scan_path
from webhook.offline.review import Requester, kinds_of, review

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from webhook.offline.provider import ImageReader, ManifestProvider

_MAX_STDIN_BYTES = 16 * 1024 * 1024
_STDIN = "standard input"
_MAX_ERRORS = 100


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "review",
        help="report the webhook's verdict offline",
        description="Review manifests, or AdmissionReview objects as an API server sends them. Documents of one call "
        "see one another in order. Exit code 0: all allowed, 1: any denied, 2: bad input.",
    )
    add_review_arguments(parser, formats=("text", "json", "junit", "sarif", "github"))
    parser.set_defaults(run=run)


def add_review_arguments(parser: argparse.ArgumentParser, formats: Sequence[str] = ("text", "json")) -> None:
    """Add the arguments for the documents and for the requester."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="manifests, directories, globs, or - for standard input"
    )
    add_state_arguments(parser, required=False)
    parser.add_argument(
        "--user", default="", metavar="U", help="requester (default: the pod's own service account)"
    )
    parser.add_argument(
        "--group", action="append", default=[], metavar="G", help="group of that user (repeatable)"
    )
    parser.add_argument(
        "--service-account", default="", metavar="NS/NAME", help="service account that is the requester"
    )
    parser.add_argument("--namespace", "-n", default="", help="namespace of manifests without one")
    parser.add_argument(
        "--operation", default="CREATE", type=str.upper, choices=["CREATE", "UPDATE", "DELETE", "CONNECT"]
    )
    parser.add_argument(
        "--subresource", default="", metavar="S", help="for example exec or ephemeralcontainers"
    )
    parser.add_argument("--old", type=Path, metavar="FILE", help="the object before an UPDATE")
    parser.add_argument(
        "--registry-layout",
        type=Path,
        metavar="DIR",
        help="OCI layout with the images and their signatures, for the trust rules of --state",
    )
    parser.add_argument("-o", "--output", choices=list(formats), default="text")


def run(options: argparse.Namespace) -> int:
    """Review every document and print the verdicts."""
    documents = list(documents_of(options))
    requester = requester_of(options, documents)
    if not documents:
        raise UsageError("the files contain no objects")
    objects = [item for item in documents if isinstance(item, Manifest)]
    provider = (
        load_source(options, layout_reader(options.registry_layout), kinds_of(objects, requester))
        if objects
        else None
    )
    # Policies and documents stay until the end, so that collections need not walk through them.
    gc.freeze()
    entries = [_entry(item, requester, provider) for item in documents]
    help_url = provider.snapshot().settings.help_url if provider is not None else ""
    sys.stdout.write(RENDERERS[options.output](entries, help_url))
    report_errors("review", [entry.error for entry in entries if entry.error is not None])
    for item in documents:
        for note in item.notes if isinstance(item, Manifest) else ():
            print(f"weightlock review: note: {item.file}, {note}", file=sys.stderr)
    if any(entry.error is not None for entry in entries):
        return 2
    return 0 if all(entry.outcome is None or entry.outcome.verdict.allowed for entry in entries) else 1


def layout_reader(directory: Path | None) -> ImageReader | None:
    """Return how images of a layout are verified; None without a layout. Raises `UsageError`."""
    if directory is None:
        return None
    # The verifiers are of no use to a review without a layout.
    from webhook.cli.review.images import reader  # noqa: PLC0415

    return reader(directory)


def report_errors(command: str, errors: Sequence[ManifestError]) -> None:
    """Print one sentence for each document without a verdict."""
    for error in errors[:_MAX_ERRORS]:
        print(f"weightlock {command}: {error}", file=sys.stderr)
    if len(errors) > _MAX_ERRORS:
        print(f"weightlock {command}: and {len(errors) - _MAX_ERRORS} more", file=sys.stderr)


def documents_of(options: argparse.Namespace) -> Iterator[Manifest | ManifestError]:
    """Yield the documents to review, and a problem for each one that cannot be read."""
    for name in options.files:
        if name == "-":
            items = scan_bytes(sys.stdin.buffer.read(_MAX_STDIN_BYTES + 1), _STDIN)
        else:
            items = (item for path in _expanded(name) for item in scan_path(path))
        for item in items:
            yield _checked(item) if isinstance(item, Manifest) else item


def requester_of(options: argparse.Namespace, documents: Sequence[Manifest | ManifestError]) -> Requester:
    """Return the requester. Raises `UsageError`."""
    user, namespace = options.user, options.namespace
    if options.service_account:
        account_namespace, slash, name = options.service_account.partition("/")
        if not (account_namespace and slash and name):
            raise UsageError("--service-account must have the form NS/NAME")
        if user:
            raise UsageError("--user and --service-account exclude each other")
        user, namespace = f"system:serviceaccount:{account_namespace}:{name}", namespace or account_namespace
    old = None
    if options.old is not None:
        try:
            objects = list(read_path(options.old))
        except ManifestError as error:
            raise UsageError(str(error)) from None
        if len(objects) != 1:
            raise UsageError(f"{options.old}: expected one object, but it contains {len(objects)}")
        old = objects[0].document
    if options.operation == "UPDATE" and old is None and not _only_reviews(documents):
        raise UsageError("--operation UPDATE requires --old FILE, the object before the update")
    return Requester(
        user, tuple(options.group), namespace or "default", options.operation, options.subresource, old
    )


def _entry(item: Manifest | ManifestError, requester: Requester, provider: ManifestProvider | None) -> Entry:
    if isinstance(item, ManifestError) or provider is None:
        error = item if isinstance(item, ManifestError) else None
        return Entry(item.file, item.line, error=error)
    try:
        return Entry(item.file, item.line, review(item, requester, provider, apply=True), manifest=item)
    except ManifestError as error:
        return Entry(item.file, item.line, error=error)


def _expanded(name: str) -> list[Path]:
    """The paths of an argument: shells on some platforms, and quotes, leave globs to the program."""
    path = Path(name)
    if path.exists() or not glob.has_magic(name):
        return [path]
    matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not matches:
        raise UsageError(f"{name}: no file matches")
    return [Path(match) for match in matches]


def _checked(manifest: Manifest) -> Manifest | ManifestError:
    """The manifest, or a problem where it is input of another tool."""
    kind, version = manifest.document.get("kind"), str(manifest.document.get("apiVersion", ""))
    if kind in ("Kustomization", "Component") and version.startswith("kustomize.config.k8s.io/"):
        return ManifestError(
            f"{manifest.source}: input of kustomize: review the output of `kustomize build` instead",
            manifest.file,
            manifest.line,
        )
    return manifest


def _only_reviews(documents: Sequence[Manifest | ManifestError]) -> bool:
    return all(
        isinstance(item, ManifestError) or item.document.get("kind") == "AdmissionReview"
        for item in documents
    )
