"""``weightlock weights``: seal, unseal, inspect, rotate and verify directories of model weights.

Thin: it reads arguments, calls `webhook.keys`, prints. Results go to stdout, progress and errors to stderr; no key
material is ever printed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from webhook.cli.progress import Bar, byte_size, duration
from webhook.keys.errors import BadInputError, KeysError, KmsConfigError
from webhook.keys.rawio import make_directory, storage_error
from webhook.keys.sealed import operations
from webhook.keys.sealed.directory import read_manifest, require_manifest, unlisted
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.unsealing import verify

if TYPE_CHECKING:
    from webhook.keys.sealed.manifest import Manifest
    from webhook.keys.sealed.unsealing import Sealed
    from webhook.keys.secret import Secret

    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else

Command = Callable[[argparse.Namespace], int]
_KMS_HELP = (
    "key management service, <provider>://<path>: local, vault, aws, gcp, azure or pkcs11 [WEIGHTLOCK_KMS] "
    "(a local keyset below ~/.config/weightlock)"
)


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``weights`` and its commands; each parsed namespace carries ``run(args) -> exit code``."""
    weights = subparsers.add_parser("weights", help="seal, unseal, inspect, rotate and verify model weights")
    commands = weights.add_subparsers(dest="weights_command", required=True, metavar="COMMAND")

    seal = _command(commands, "seal", _seal, "encrypt a directory of weights", key=False)
    seal.add_argument("source", type=Path, metavar="SOURCE", help="directory or file to encrypt")
    seal.add_argument("directory", type=Path, metavar="SEALED", help="where the encrypted files go")
    seal.add_argument(
        "--model", required=True, help="name of the ModelWeights object; the files are bound to it"
    )
    seal.add_argument(
        "--key-id",
        default="",
        help="name for the data key (today's date); with --update, the one it must have",
    )
    seal.add_argument("--update", action="store_true", help="seal what changed as the next generation")

    unseal = _command(commands, "unseal", _unseal, "decrypt a sealed directory", key=True)
    unseal.add_argument("directory", type=Path, metavar="SEALED")
    unseal.add_argument("destination", type=Path, metavar="DEST", help="where the plain files go")
    unseal.add_argument(
        "--only", action="append", default=[], metavar="GLOB", help="only matching paths; repeatable"
    )
    unseal.add_argument(
        "--mode", type=_mode, default=0o600, help="permissions of the plain files, octal (600)"
    )
    unseal.add_argument("--force", action="store_true", help="replace files that are in the way")

    check = _command(commands, "verify", _verify, "check a sealed directory against its manifest", key=True)
    check.add_argument("directory", type=Path, metavar="SEALED")
    check.add_argument(
        "--quick", action="store_true", help="check sizes, versions and names only, not every byte"
    )

    inspect = _command(
        commands, "inspect", _inspect, "show what a sealed directory says it holds; no key", key=None
    )
    inspect.add_argument("directory", type=Path, metavar="SEALED")

    rotate = _command(commands, "rotate", _rotate, "wrap the data key anew, or encrypt anew", key=False)
    rotate.add_argument("directory", type=Path, metavar="SEALED")
    rotate.add_argument(
        "--new-kms", default="", metavar="URL", help="service that wraps from now on (the same one)"
    )
    rotate.add_argument("--key-id", default="", help="new name for the data key")
    rotate.add_argument("--reencrypt", action="store_true", help="fresh data key: encrypt every file anew")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Command,
    text: str,
    *,
    key: bool | None,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=lambda args: _guarded(run, args), run_name=name)
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    if key is None:
        return parser
    parser.add_argument("--kms", default=os.environ.get("WEIGHTLOCK_KMS", ""), metavar="URL", help=_KMS_HELP)
    parser.add_argument(
        "--production", action="store_true", help="refuse a key service that is not for production"
    )
    parser.add_argument(
        "--jobs", type=_jobs, default=min(os.cpu_count() or 1, 8), help="threads (one a core, at most 8)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    if key:
        parser.add_argument("--key-file", type=Path, help="the data key itself, as the key sidecar leaves it")
        parser.add_argument("--model", default="", help="refuse any other model")
        parser.add_argument("--generation", type=int, default=0, help="refuse anything older (roll-back)")
    return parser


def _guarded(run: Command, args: argparse.Namespace) -> int:
    try:
        with _terminable():
            return run(args)
    except (BadInputError, KmsConfigError) as error:
        return _fail(str(error), 2)
    except KeysError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(str(storage_error(error, "")), 1)
    except KeyboardInterrupt:
        return _fail("interrupted; what is finished stays, run the same command again to go on", 1)


def _seal(args: argparse.Namespace) -> int:
    service, started = _service(args), time.monotonic()
    with _work(args) as work:
        manifest = operations.seal(
            args.source, args.directory, service, args.model, args.key_id, work, update=args.update
        )
    _say_manifest(args, manifest, "sealed", time.monotonic() - started)
    return 0


def _unseal(args: argparse.Namespace) -> int:
    started = time.monotonic()
    with _opened(args) as sealed, _work(args) as work:
        entries = sealed.select(args.only)
        operations.unseal(sealed, args.destination, args.only, work, mode=args.mode, replace=args.force)
    seconds, size = time.monotonic() - started, sum(entry.size for entry in entries)
    facts = {"model": sealed.manifest.model, "generation": sealed.manifest.generation, "files": len(entries)}
    _say(
        args,
        {**facts, "bytes": size, "seconds": round(seconds, 3)},
        _sentence("unsealed", facts, size, seconds),
    )
    return 0


def _verify(args: argparse.Namespace) -> int:
    with _opened(args) as sealed, _work(args) as work:
        operations.finish(sealed)
        faults = verify(sealed, work.jobs, work.progress, quick=args.quick)
    manifest = sealed.manifest
    facts = {"model": manifest.model, "generation": manifest.generation, "files": len(manifest.files)}
    if faults:
        text = "\n".join([*faults, f"{args.directory} is not sound: {_count(len(faults), 'fault')}"])
    else:
        depth = "names, sizes and versions" if args.quick else "every byte"
        text = (
            f'{args.directory} is sound: model "{manifest.model}", generation {manifest.generation}, '
            f"{_count(len(manifest.files), 'file')}, {byte_size(manifest.size)}; checked {depth}"
        )
    _say(args, {**facts, "bytes": manifest.size, "sound": not faults, "faults": faults}, text)
    return 1 if faults else 0


def _inspect(args: argparse.Namespace) -> int:
    claims = require_manifest(args.directory).claims
    extra = unlisted(args.directory, claims)
    lines = [
        f"model       {claims.model}",
        f"generation  {claims.generation}, sealed {claims.created}",
        f"key         {claims.key.id}, wrapped by {claims.key.kms}",
        f"files       {len(claims.files)}, {byte_size(claims.size)}",
        *(f"  {byte_size(entry.size):>10}  {entry.path}" for entry in claims.files),
        *(f"  not in the manifest: {name}" for name in extra),
        "Shown as it stands there: only verify, with the key, tells whether it is genuine.",
    ]
    files = [{"path": entry.path, "size": entry.size, "digest": entry.digest} for entry in claims.files]
    _say(
        args,
        {**_facts(claims), "created": claims.created, "entries": files, "unlisted": extra},
        "\n".join(lines),
    )
    return 0


def _rotate(args: argparse.Namespace) -> int:
    old, started = _service(args), time.monotonic()
    new = KeyService(args.new_kms, production=args.production) if args.new_kms else old
    if args.reencrypt:
        with _work(args) as work:
            key_id = args.key_id or work.now[:10]
            manifest = operations.reencrypt(args.directory, old, new, key_id, work)
        _say_manifest(args, manifest, "encrypted anew", time.monotonic() - started)
    else:
        manifest = operations.rewrap(args.directory, old, new, args.key_id)
        _say_manifest(args, manifest, "wrapped anew the key of", 0)
    return 0


@contextlib.contextmanager
def _opened(args: argparse.Namespace) -> Iterator[Sealed]:
    key: KeyService | Secret = operations.read_key_file(args.key_file) if args.key_file else _service(args)
    with operations.open_sealed(args.directory, key, model=args.model, generation=args.generation) as sealed:
        yield sealed


def _service(args: argparse.Namespace) -> KeyService:
    if args.kms:
        return KeyService(args.kms, production=args.production)
    found = read_manifest(args.directory) if args.run_name == "seal" else require_manifest(args.directory)
    path = _default_keyset()
    url, named = f"local://{path}", "" if found is None else found.claims.key.kms
    asked = "say which key management service to use: --kms URL, or WEIGHTLOCK_KMS"
    if named not in {"", url}:
        raise BadInputError(f"{asked}; the manifest names {named}: pass that if it is the one you trust")
    if args.production:
        raise BadInputError(f"{asked}; without one a local keyset is used, which production refuses")
    sys.stderr.write(f"weightlock: no --kms, so the key service is {url}, a keyset in a file of yours\n")
    if found is None:
        make_directory(path.parent, 0o700)
    return KeyService(url)


def _default_keyset() -> Path:
    """Where the keyset is kept that is used when no key service is named, by the XDG Base Directory Specification."""
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        home = configured if configured.is_absolute() else Path.home() / ".config"
    except RuntimeError:
        raise BadInputError("no --kms, and no home directory to keep a keyset in: name a service") from None
    return home / "weightlock" / "keyset.json"


@contextlib.contextmanager
def _work(args: argparse.Namespace) -> Iterator[Work]:
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    with Bar(sys.stderr, quiet=args.quiet) as bar:
        yield Work(args.jobs, bar, now)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does, so that it stops between segments and says how to go on."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_manifest(args: argparse.Namespace, manifest: Manifest, verb: str, seconds: float) -> None:
    facts = _facts(manifest)
    key = facts["key"]
    text = (
        f"{_sentence(verb, facts, manifest.size, seconds)}\n"
        "In the ModelWeights object:\n"
        f'  keys:\n  - id: "{key["id"]}"\n    kms: "{key["kms"]}"\n    wrapped: {key["wrapped"]}'
    )
    _say(args, facts, text)


def _facts(manifest: Manifest) -> dict[str, Any]:
    key = {
        "id": manifest.key.id,
        "kms": manifest.key.kms,
        "wrapped": base64.b64encode(manifest.key.wrapped).decode(),
    }
    return {
        "model": manifest.model,
        "generation": manifest.generation,
        "files": len(manifest.files),
        "bytes": manifest.size,
        "key": key,
    }


def _sentence(verb: str, facts: dict[str, Any], size: int, seconds: float) -> str:
    speed = f", in {duration(seconds)}, {byte_size(size / seconds)}/s" if seconds >= 1 else ""
    files = _count(facts["files"], "file")
    what = f'model "{facts["model"]}", generation {facts["generation"]}'
    return f"{verb.capitalize()} {what}: {files}, {byte_size(size)}{speed}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _say(args: argparse.Namespace, document: dict[str, Any], text: str) -> None:
    if args.output == "json":
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"weightlock: {sentence}\n")
    return code


def _jobs(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 256:
        raise argparse.ArgumentTypeError("between 1 and 256")
    return number


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0o400 <= mode <= 0o777:
        raise argparse.ArgumentTypeError("an octal mode such as 600 or 440")
    return mode
