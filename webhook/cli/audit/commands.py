"""``weightlock audit``: read, verify and prove the audit log. No verb needs a cluster, and only `join` writes a log."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.errors import UsageError
from webhook.app.options import parse_address
from webhook.audit.bucket import copy_logs, is_bucket, local
from webhook.audit.check import log_nodes, recorded, verify_directory
from webhook.audit.errors import AuditError
from webhook.audit.keys import KEYS, read_verifier_keys
from webhook.audit.search import Filter, search
from webhook.audit.storage import Directory, logs_below
from webhook.cli.audit import join, view
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.merkle import inclusion_proof
from webhook.core.audit.notes import NoteError
from webhook.core.audit.proof import Proof, ProofError, parse_proof
from webhook.core.audit.tiles import CHECKPOINT, TileError
from webhook.core.audit.verify import entries_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.core.audit.notes import VerifierKey

_FOLLOW_SECONDS = 0.5


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "audit",
        help="read, verify and prove the audit log",
        description="Read, verify and prove the audit log. Exit code 0: success or a whole log, 1: a tampered or "
        "incomplete log, or no match, 2: bad input.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_tail(verbs)
    _add_search(verbs)
    _add_export(verbs)
    _add_verify(verbs)
    _add_prove(verbs)
    _add_serve(verbs)
    _add_key(verbs)
    join.add_parser(verbs)
    parser.set_defaults(run=run, bucket="")


def run(options: argparse.Namespace) -> int:
    """Run one verb. Raises `UsageError`."""
    try:
        with ExitStack() as stack:
            if options.bucket:
                options.directory = stack.enter_context(local(options.bucket))
            if getattr(options, "against", None):
                options.against = stack.enter_context(local(options.against))
            code: int = options.audit(options)
    except (AuditError, TileError, NoteError) as error:
        raise UsageError(str(error)) from None
    return code


class _Place(argparse.Action):
    """Store a directory, or the URL of a bucket as ``bucket``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        del parser, option_string
        if is_bucket(values):
            namespace.bucket = values
        namespace.directory = Path(values)


def _directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", action=_Place, metavar="DIR", help="a log, a directory of logs, or s3://BUCKET/PREFIX"
    )


def _keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", help=f"verifier keys of the logs (default: {KEYS} in each log)"
    )
    parser.add_argument("--witnesses", type=Path, metavar="FILE", help="verifier keys of the witnesses")
    parser.add_argument(
        "--quorum", type=int, default=0, metavar="N", help="witnesses that must have cosigned (%(default)s)"
    )


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--type", action="append", default=[], help="type, such as verdict (repeatable)")
    parser.add_argument("--user", default="", help="user name")
    parser.add_argument("--model", default="", help="model")
    parser.add_argument("--pod", default="", metavar="NAMESPACE/NAME", help="pod or other object")
    parser.add_argument("--code", default="", help="reason code")
    parser.add_argument("--from", dest="since", default="", metavar="TIME", help="first time, RFC 3339 UTC")
    parser.add_argument(
        "--to", dest="until", default="", metavar="TIME", help="end of the time range, RFC 3339 UTC"
    )


def _filter(options: argparse.Namespace) -> Filter:
    return Filter(
        types=frozenset(options.type),
        user=options.user,
        model=options.model,
        target=options.pod,
        code=options.code,
        since=options.since,
        until=options.until,
    )


def _add_tail(verbs: Any) -> None:
    parser = verbs.add_parser("tail", help="print the last entries, and follow the log")
    _directory(parser)
    _filters(parser)
    parser.add_argument("-n", "--lines", type=int, default=10, help="number of entries (%(default)s)")
    parser.add_argument("-f", "--follow", action="store_true", help="wait for new entries")
    parser.add_argument("-o", "--output", choices=["line", "json"], default="line", help="output format")
    parser.set_defaults(audit=_tail)


def _add_search(verbs: Any) -> None:
    parser = verbs.add_parser("search", help="find entries by user, model, pod, code and time")
    _directory(parser)
    _filters(parser)
    parser.add_argument("--limit", type=int, default=1000, help="maximum number of entries (%(default)s)")
    parser.add_argument(
        "--index",
        action="store_true",
        help="complete the index first: later searches of a large log are faster",
    )
    parser.add_argument("-o", "--output", choices=["line", "json"], default="line", help="output format")
    parser.set_defaults(audit=_search)


def _add_export(verbs: Any) -> None:
    from webhook.core.audit.export import FORMATS  # noqa: PLC0415 - for this verb only

    parser = verbs.add_parser("export", help="convert entries to another format and send them")
    _directory(parser)
    _filters(parser)
    parser.add_argument(
        "--format", choices=sorted(FORMATS), default="cloudevents", help="format (%(default)s)"
    )
    parser.add_argument(
        "--to-target",
        default="-",
        metavar="TARGET",
        help="-, a file, http(s)://…, syslog+tls://HOST:PORT or otlp+http(s)://… (%(default)s)",
    )
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="CA of the target in PEM (default: system trust store)"
    )
    parser.set_defaults(audit=_export)


def _add_verify(verbs: Any) -> None:
    parser = verbs.add_parser(
        "verify",
        help="verify trees, signatures, witnesses, order and gaps",
        description="Verify logs offline. Exit code 0: whole, 1: tampered or incomplete (names the first fault), "
        "2: bad input. Given a file, verify a proof or a receipt.",
    )
    _directory(parser)
    _keys(parser)
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="an earlier checkpoint or receipt that the log must contain (repeatable)",
    )
    parser.add_argument("--against", metavar="DIR", help="another copy, to detect forks and truncation")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="output format")
    parser.set_defaults(audit=_verify)


def _add_prove(verbs: Any) -> None:
    parser = verbs.add_parser("prove", help="print a proof of one entry for a third party")
    _directory(parser)
    parser.add_argument("entry", metavar="ENTRY", help="index or id of the entry")
    parser.set_defaults(audit=_prove)


def _add_serve(verbs: Any) -> None:
    parser = verbs.add_parser("serve", help="serve checkpoint, tiles and entry bundles over HTTP, read-only")
    _directory(parser)
    parser.add_argument("--listen", default="127.0.0.1:8090", metavar="HOST:PORT", help="(%(default)s)")
    parser.set_defaults(audit=_serve)


def _add_key(verbs: Any) -> None:
    parser = verbs.add_parser(
        "key", help="generate the private keys of the logs, or print the verifier keys of a log"
    )
    parser.add_argument(
        "--of", type=Path, metavar="FILE", help="print verifier keys of these private keys instead"
    )
    parser.add_argument(
        "--origin", default="", help="origin of the log, such as cluster/broker/INSTANCE (with --of)"
    )
    parser.set_defaults(audit=_key)


def _key(options: argparse.Namespace) -> int:
    from webhook.audit.keys import generate, load_signer  # noqa: PLC0415 - for this verb only

    if options.of is None:
        sys.stdout.write(generate().decode())
        return 0
    if not options.origin:
        raise UsageError("--of needs --origin")
    for key in load_signer(options.of, options.origin).keys:
        print(key.render())
    return 0


def _verify(options: argparse.Namespace) -> int:
    keys = read_verifier_keys(options.keys) if options.keys else ()
    witnesses = read_verifier_keys(options.witnesses) if options.witnesses else ()
    if options.directory.is_file():
        return _verify_proof(options, keys, witnesses)
    results = verify_directory(
        options.directory,
        keys,
        witnesses=witnesses,
        quorum=options.quorum,
        earlier=[recorded(path, keys) for path in options.checkpoint],
        against=options.against,
    )
    if options.output == "json":
        print(orjson.dumps([view.as_json(each) for each in results], option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(line for each in results for line in view.report(each)))
    return 0 if all(each.report.whole for each in results) else 1


def _verify_proof(
    options: argparse.Namespace, keys: Sequence[VerifierKey], witnesses: Sequence[VerifierKey]
) -> int:
    if not keys:
        raise UsageError("a proof needs --keys with the verifier keys of its log")
    try:
        proof = parse_proof(options.directory.read_bytes())
    except (OSError, ProofError) as error:
        raise UsageError(f"{options.directory}: {error}") from None
    try:
        names = proof.verify(keys, witnesses, options.quorum)
    except ProofError as error:
        print(f"NOT VALID: {error}")
        return 1
    state = proof.checkpoint.checkpoint
    print(f"valid: entry {proof.index} of log {state.origin} ({state.size} entries)")
    print(f"witnesses: {', '.join(names) or 'none'}")
    print(proof.entry.decode())
    return 0


def _search(options: argparse.Namespace) -> int:
    count = 0
    for origin, index, document in search(options.directory, _filter(options), complete=options.index):
        print(view.entry(origin, index, document, options.output))
        count += 1
        if count >= options.limit:
            print(f"stopped after {count} entries: see --limit", file=sys.stderr)
            break
    return 0 if count else 1


def _tail(options: argparse.Namespace) -> int:
    matching = _filter(options)
    positions: dict[Path, int] = {}
    window: list[str] = []
    while True:
        lines = []
        for place in logs_below(options.directory):
            raw = Directory(place).read(CHECKPOINT)
            if raw is None:
                continue
            state = parse_checkpoint(raw).checkpoint
            first = positions.get(place, view.first_entry(place))
            for index, entry in entries_of(Directory(place), state.size, first):
                document = orjson.loads(entry)
                if matching.matches(document):
                    lines.append(
                        (document["time"], view.entry(state.origin, index, document, options.output))
                    )
            positions[place] = state.size
        window = [line for _, line in sorted(lines, key=itemgetter(0))]
        for line in window if options.lines < 0 else window[-options.lines :] if options.lines else []:
            print(line, flush=True)
        if not options.follow:
            return 0
        options.lines = -1
        time.sleep(_FOLLOW_SECONDS)
        if options.bucket:
            copy_logs(options.bucket, options.directory)


def _prove(options: argparse.Namespace) -> int:
    for place in logs_below(options.directory):
        reader = Directory(place)
        raw = reader.read(CHECKPOINT)
        if raw is None:
            continue
        signed = parse_checkpoint(raw)
        size = signed.checkpoint.size
        for index, entry in entries_of(reader, size, view.first_entry(place)):
            if options.entry in (str(index), orjson.loads(entry)["id"]):
                hashes = tuple(inclusion_proof(log_nodes(place, size), index, size))
                sys.stdout.write(Proof(index, hashes, signed, entry).render())
                return 0
    print(f"no entry has the index or id {options.entry}", file=sys.stderr)
    return 1


def _export(options: argparse.Namespace) -> int:
    from webhook.audit.export import export  # noqa: PLC0415 - for this verb only

    count = export(
        (entry for _, _, entry in search(options.directory, _filter(options))),
        options.format,
        options.to_target,
        options.ca,
    )
    print(f"exported {count} entries", file=sys.stderr)
    return 0


def _serve(options: argparse.Namespace) -> int:
    from webhook.server.audit_files import serve  # noqa: PLC0415 - for this verb only

    host, port = parse_address(options.listen)
    logs_below(options.directory)
    return serve(options.directory, host, port)
