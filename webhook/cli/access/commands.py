"""``weightlock access``: request access, decide on requests, and read their state.

It parses arguments, calls the cluster or reads a state directory, and prints the texts of `view`. It decides nothing:
admission accepts or denies each write, and its message is printed.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import yaml

from webhook.api.base import API_VERSION
from webhook.api.duration import Duration
from webhook.app.errors import ExitCode, IncompleteError, UsageError
from webhook.cli.access import view
from webhook.cli.access.dependents import dependents
from webhook.cli.access.ledger import Ledger, read_ledger
from webhook.cli.access.submit import RejectedError, seconds_of, signed, submit
from webhook.cli.access.suggest import rendered, requests_in, suggest
from webhook.cli.cluster_options import add_cluster_arguments
from webhook.core.access import Phase
from webhook.core.access.change import DELETION, digest_of, kind_of
from webhook.core.kube.text import one_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Sequence

    from webhook.cli.access.ledger import Entry
    from webhook.cluster.access_client import AccessClient
    from webhook.cluster.client.api import ApiError
    from webhook.core.kube.fields import Document

    Online = Callable[["AccessClient"], Awaitable[int]]

_WATCH_SECONDS = 2.0
_KUBECONFIG = "kubeconfig file (default: $KUBECONFIG or ~/.kube/config)"
# Not found, conflict, invalid: the names or the content given are wrong.
_BAD_INPUT = (404, 409, 422)
_DECISIONS = {"approve": "Approve", "deny": "Deny", "revoke": "Revoke", "confirm": "Confirm"}
_UNFIT = re.compile(r"[^a-z0-9.-]+")


def add_parser(commands: Any) -> None:
    """Register the command and its own commands."""
    parser = commands.add_parser(
        "access",
        help="request access to weights, and decide on requests",
        description="Request access to weights, decide on requests, and read their state.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_request(actions)
    for action, summary in (
        ("approve", "approve a request"),
        ("deny", "deny a request permanently"),
        ("revoke", "end a grant, or withdraw an approval or a request"),
        ("confirm", "confirm a request that the controller suspended"),
    ):
        decide = _add(actions, action, summary, _decide)
        decide.add_argument("name", metavar="REQUEST")
        _add_wait(decide)
        decide.add_argument("--comment", default="", metavar="TEXT", help="reason (readable by all users)")
    listing = _add(actions, "list", "list all requests", _list, state=True)
    listing.add_argument("--pending", action="store_true", help="list only requests that need approvals")
    show = _add(actions, "show", "show one request in detail", _show, state=True)
    show.add_argument("name", metavar="REQUEST")
    watch = _add(actions, "watch", "follow requests until they are decided", _watch)
    watch.add_argument(
        "name", metavar="REQUEST", nargs="?", default="", help="default: all, until interrupted"
    )
    hint = _add(
        actions,
        "suggest",
        "suggest the smallest request that would admit a denied workload",
        _suggest,
        state=True,
    )
    hint.add_argument(
        "denied", metavar="TEXT|FILE", help="text of a denial, a manifest, or - for standard input"
    )
    keep = _add(actions, "retain", "delete requests that closed long ago, and their approvals", _retain)
    keep.add_argument("--older-than", required=True, metavar="DURATION", help="such as 90d")
    keep.add_argument("--dry-run", action="store_true", help="count only, delete nothing")
    digest = actions.add_parser("digest", help="print the digest of an object for a change request")
    digest.add_argument("file", type=Path, metavar="FILE")
    digest.set_defaults(run=_digest)


def _add(actions: Any, name: str, summary: str, run: Callable[..., int], *, state: bool = False) -> Any:
    parser = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    add_cluster_arguments(parser)
    parser.add_argument("-o", "--output", choices=["table", "json", "yaml"], default="table")
    if state:
        parser.add_argument("--state", type=Path, metavar="DIR", help="read manifests instead of a cluster")
    parser.set_defaults(run=run)
    return parser


def _add_wait(parser: Any) -> None:
    parser.add_argument(
        "--wait",
        default="90",
        metavar="SECONDS",
        help="how long to wait for the signature (default: 90; 0: do not wait)",
    )


def _add_request(actions: Any) -> None:
    parser = _add(actions, "request", "request temporary access", _request)
    parser.add_argument("model", metavar="MODEL", nargs="?", default="")
    parser.add_argument(
        "--for", dest="duration", default="8h", metavar="DURATION", help="such as 30m or 8h (default: 8h)"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="purpose, for the approvers")
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--service-account", default="", metavar="NS/NAME", help="subject: pods that run as this account"
    )
    who.add_argument("--user", default="", metavar="U", help="subject: this user (default: yourself)")
    parser.add_argument(
        "-n", "--namespace", action="append", default=[], metavar="NS", help="namespace (repeatable)"
    )
    parser.add_argument("--name", default="", help="name of the request")
    _add_wait(parser)
    parser.add_argument(
        "--break-glass",
        action="store_true",
        help="request emergency access without approvals (audited)",
    )
    parser.add_argument(
        "--change", type=Path, metavar="FILE", help="request to apply this object under change control"
    )
    parser.add_argument("--delete", action="store_true", help="with --change: request its deletion")


def _request(options: argparse.Namespace) -> int:
    _duration(options.duration)
    reason = options.reason or _prompt_reason()
    if bool(options.model) == (options.change is not None):
        raise UsageError("pass either MODEL or --change FILE")
    if options.delete and options.change is None:
        raise UsageError("--delete requires --change FILE")
    wait = seconds_of(options.wait)

    async def run(client: AccessClient) -> int:
        spec: Document = {"duration": options.duration, "reason": reason}
        spec |= _change(options) if options.change is not None else await _model(options, client)
        hint = options.model or f"change-{spec['change']['name']}"
        name = options.name or f"{_UNFIT.sub('-', hint.lower())[:200].strip('-.')}-{secrets.token_hex(3)}"
        document = await submit(client, _object("AccessRequest", name, spec), wait)
        name = document["metadata"]["name"]
        ledger = await read_ledger(client)
        entry = ledger.entry(name) or Ledger([document], [], [], datetime.now(UTC)).entry(name)
        if entry is not None:
            _print(options, document, view.made(entry, datetime.now(UTC)))
        return 0

    return _online(options, run)


async def _model(options: argparse.Namespace, client: AccessClient) -> Document:
    namespaces = options.namespace
    if options.service_account:
        namespace, slash, account = options.service_account.partition("/")
        if not (namespace and slash and account):
            raise UsageError("--service-account must have the form NS/NAME")
        subject = {"kind": "ServiceAccount", "namespace": namespace, "name": account}
        namespaces = namespaces or [namespace]
    else:
        subject = {"kind": "User", "name": options.user or await client.username()}
        namespaces = namespaces or [client.namespace]
    spec: Document = {"model": options.model, "subject": subject, "namespaces": namespaces}
    return {**spec, "breakGlass": True} if options.break_glass else spec


def _change(options: argparse.Namespace) -> Document:
    document = _one(options.change)
    metadata = document.get("metadata") or {}
    change: Document = {"kind": kind_of(document), "name": str(metadata.get("name", ""))}
    if metadata.get("namespace"):
        change["namespace"] = str(metadata["namespace"])
    return {"change": {**change, "digest": DELETION if options.delete else digest_of(document)}}


def _decide(options: argparse.Namespace) -> int:
    decision = _DECISIONS[options.action]
    wait = seconds_of(options.wait)

    async def run(client: AccessClient) -> int:
        # A vote on a request that is not signed yet would be denied.
        request = await signed(client, "AccessRequest", options.name, time.monotonic() + wait)
        spec = {"request": {"name": options.name, "uid": request["metadata"]["uid"]}, "decision": decision}
        if options.comment:
            spec["comment"] = options.comment
        name = f"{options.name[:200]}-{options.action}-{secrets.token_hex(3)}"
        document = await submit(client, _object("AccessApproval", name, spec), wait)
        # The controller's status is older than this decision, so the state is derived from the decisions.
        entry = (await read_ledger(client, trust_status=False)).entry(options.name)
        text = (
            view.voted(entry, decision, datetime.now(UTC)) if entry is not None else f"{decision}: created."
        )
        _print(options, document, text)
        return 0

    return _online(options, run)


def _list(options: argparse.Namespace) -> int:
    def show(ledger: Ledger) -> int:
        entries = ledger.entries()
        if options.pending:
            entries = [entry for entry in entries if entry.state.phase is Phase.PENDING]
        _print(options, [_data(entry) for entry in entries], view.listing(entries, datetime.now(UTC)))
        return 0

    return _read(options, show)


def _show(options: argparse.Namespace) -> int:
    def show(ledger: Ledger, pods: Callable[[Entry], Sequence[Document] | None]) -> int:
        entry = _entry(ledger, options.name)
        names = dependents(entry, pods(entry))
        data = {**_data(entry), "pods": names}
        _print(options, data, view.detail(entry, datetime.now(UTC), names))
        return 0

    if options.state is not None:
        from webhook.cli.access.offline import state_ledger, state_pods  # noqa: PLC0415 - loads the CEL engine

        return show(state_ledger(options.state), lambda entry: state_pods(options.state, entry.namespaces))

    async def run(client: AccessClient) -> int:
        ledger = await read_ledger(client)
        pods = await client.pods(_entry(ledger, options.name).namespaces)
        return show(ledger, lambda _: pods)

    return _online(options, run)


def _entry(ledger: Ledger, name: str) -> Entry:
    entry = ledger.entry(name)
    if entry is None:
        raise UsageError(f"request {name} does not exist; list all: weightlock access list")
    return entry


def _watch(options: argparse.Namespace) -> int:
    async def run(client: AccessClient) -> int:
        marks: dict[str, str] = {}
        while True:
            now = datetime.now(UTC)
            ledger = await read_ledger(client)
            entries = [entry for entry in ledger.entries() if options.name in ("", entry.name)]
            if options.name and not entries:
                raise UsageError(f"request {options.name} does not exist; list all: weightlock access list")
            for entry in reversed(entries):
                mark = f"{entry.state.phase} {entry.state.approvals}"
                if marks.get(entry.name) != mark:
                    marks[entry.name] = mark
                    moment = time.strftime("%H:%M:%S")
                    _print(options, _data(entry), f"{moment}  {entry.name}  {view.sentence(entry, now)}")
            if options.name and entries[0].state.phase is not Phase.PENDING:
                return 0 if entries[0].state.phase is Phase.ACTIVE else 1
            await asyncio.sleep(_WATCH_SECONDS)

    return _online(options, run)


def _suggest(options: argparse.Namespace) -> int:
    from webhook.cli.access.offline import fixes_of, state_ledger  # noqa: PLC0415 - loads the CEL engine

    ledger = state_ledger(options.state) if options.state is not None else None
    suggestions = suggest(requests_in(fixes_of(options.denied, options.state)), ledger)
    data = [
        {"model": item.model, "serviceAccount": item.account, "command": item.command} for item in suggestions
    ]
    _print(options, data, rendered(suggestions))
    return 0 if suggestions else 1


def _retain(options: argparse.Namespace) -> int:
    from webhook.cli.access.retain import retain  # noqa: PLC0415 - only this needs it

    _duration(options.older_than)
    age = Duration(options.older_than).timedelta

    async def run(client: AccessClient) -> int:
        ledger = await read_ledger(client)
        print(await retain(client, ledger, age, datetime.now(UTC), dry=options.dry_run))
        return 0

    return _online(options, run)


def _digest(options: argparse.Namespace) -> int:
    print(digest_of(_one(options.file)))
    return 0


def _one(path: Path) -> Document:
    from webhook.manifests.reader import ManifestError, read_path  # noqa: PLC0415 - only this needs it

    try:
        documents = [manifest.document for manifest in read_path(path)]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if len(documents) != 1:
        raise UsageError(f"{path}: expected one object, got {len(documents)}")
    return documents[0]


def _object(kind: str, name: str, spec: Document) -> Document:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _duration(text: str) -> None:
    try:
        Duration(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _prompt_reason() -> str:
    """Prompt at a terminal. Raises `UsageError` without one."""
    if not sys.stdin.isatty():
        raise UsageError("pass the purpose: --reason TEXT")
    reason = input("Reason: ").strip()
    if not reason:
        raise UsageError("pass the purpose: --reason TEXT")
    return reason


def _data(entry: Entry) -> Document:
    """Return a request with its displayed state, for other programs."""
    state = entry.state
    return {
        "name": entry.name,
        "for": entry.what,
        "subject": entry.subject,
        "namespaces": list(entry.namespaces),
        "requester": entry.requester,
        "state": str(state.phase),
        "approvals": state.approvals,
        "needed": state.needed,
        "ends": state.ends.isoformat() if state.ends is not None else None,
        "reason": entry.reason,
        "decisions": [
            {"by": vote.by, "decision": vote.decision, "comment": vote.comment} for vote in entry.votes
        ],
    }


def _print(options: argparse.Namespace, data: Document | Sequence[Document], text: str) -> None:
    if options.output == "json":
        print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())
    elif options.output == "yaml":
        print(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), end="")
    else:
        print(text, flush=True)


def _read(options: argparse.Namespace, show: Callable[[Ledger], int]) -> int:
    if options.state is not None:
        from webhook.cli.access.offline import state_ledger  # noqa: PLC0415 - loads the CEL engine

        return show(state_ledger(options.state))

    async def run(client: AccessClient) -> int:
        return show(await read_ledger(client))

    return _online(options, run)


def _online(options: argparse.Namespace, run: Online) -> int:
    """Run a command against the cluster. A denial is printed as the API server reports it, with exit code 1."""
    from webhook.cluster.access_client import AccessClient  # noqa: PLC0415 - the client takes long to import
    from webhook.cluster.client.api import ApiError, ClusterError  # noqa: PLC0415

    if options.kubeconfig and not Path(options.kubeconfig).is_file():
        raise UsageError(f"{options.kubeconfig}: no such file")

    async def connected() -> int:
        async with AccessClient.connect(options.kubeconfig, options.context) as client:
            return await run(client)

    try:
        return asyncio.run(connected())
    except ClusterError as error:
        raise UsageError(str(error)) from None
    except RejectedError as error:
        print(f"Invalid: {error}", file=sys.stderr)
        return ExitCode.VERDICT
    except ApiError as error:
        if error.codes or error.status == 403:
            print(_denial(error), file=sys.stderr)
            return ExitCode.VERDICT
        if error.status in _BAD_INPUT:
            raise UsageError(str(error)) from None
        raise IncompleteError(str(error)) from None


def _denial(error: ApiError) -> str:
    """The findings of a denial by Weightlock, or the message of another component."""
    if not error.codes:
        return f"Denied: {error}"
    lines = []
    for cause in error.causes:
        sentence, *rest = cause.message.split("\n")
        lines += [f"Denied: {one_line(sentence)} [{one_line(cause.reason)}]", *map(one_line, rest)]
    return "\n".join(lines)
