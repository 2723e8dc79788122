"""``weightlock weights``: seal, unseal, mount, inspect, rotate, sign and verify directories of model weights.

Thin: it parses arguments, calls `webhook.keys` and prints. Results go to stdout, progress and errors to stderr. It
must never print key material, and it prints names from storage only in escaped form.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.cli.cluster_options import add_cluster_arguments
from webhook.cli.images.signatures import signed_content, trust_of
from webhook.cli.images.trust_options import add_trust
from webhook.cli.progress import ProgressBar, byte_size, duration
from webhook.cli.weights.model_signing import (
    add_signing,
    is_sealed,
    refuse_model_options,
    sign_model,
    whole_number,
)
from webhook.keys.errors import (
    BadInputError,
    KeysError,
    KmsConfigError,
    KmsUnavailableError,
    StorageError,
    printable,
)
from webhook.keys.rawio import make_directory, storage_error
from webhook.keys.sealed import operations
from webhook.keys.sealed.format.pins import Pins, public_key
from webhook.keys.sealed.format.statement import sign_statement
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.storage.directory import read_manifest, require_manifest, unlisted
from webhook.keys.sealed.unsealing import select, verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from webhook.keys.sealed.format.manifest import Manifest
    from webhook.keys.sealed.reading.opening import Sealed
    from webhook.keys.sealed.signed_content import SignedContent
    from webhook.keys.sealed.storage.store import Store
    from webhook.keys.secret import Secret

    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no public name

Command = Callable[[argparse.Namespace], int]
_KMS_HELP = (
    "KMS, <provider>://<path>: local, vault, aws, gcp, azure or pkcs11 [WEIGHTLOCK_KMS] "
    "(default: a local keyset below ~/.config/weightlock)"
)


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``weights`` and its commands; each parsed namespace carries ``run(args) -> exit code``."""
    weights = subparsers.add_parser(
        "weights", help="seal, unseal, mount, inspect, rotate, sign and verify model weights"
    )
    commands = weights.add_subparsers(dest="weights_command", required=True, metavar="COMMAND")

    _add_seal(commands)

    unseal = _command(commands, "unseal", _unseal, "decrypt a sealed directory", key=True)
    unseal.add_argument(
        "directory", metavar="SEALED", help="directory, or URL (https://, s3://, gs://, oci://)"
    )
    unseal.add_argument("destination", type=Path, metavar="DEST", help="directory for the plain files")
    unseal.add_argument(
        "--only", action="append", default=[], metavar="GLOB", help="only matching paths (repeatable)"
    )
    unseal.add_argument(
        "--mode", type=_mode, default=0o600, help="permissions of the plain files, octal (default: 600)"
    )
    unseal.add_argument("--force", action="store_true", help="replace existing files")

    check = _command(commands, "verify", _verify, "check a sealed directory against its manifest", key=True)
    check.add_argument(
        "directory", metavar="SEALED", help="directory, or URL (https://, s3://, gs://, oci://)"
    )
    check.add_argument(
        "--quick", action="store_true", help="check only sizes, versions and names, not every byte"
    )

    inspect = _command(
        commands, "inspect", _inspect, "show the unverified manifest of a sealed directory", key=None
    )
    inspect.add_argument("directory", type=Path, metavar="SEALED")

    rotate = _command(commands, "rotate", _rotate, "wrap the data key again, or encrypt again", key=False)
    rotate.add_argument("directory", type=Path, metavar="SEALED")
    rotate.add_argument(
        "--new-kms", default="", metavar="URL", help="KMS to wrap with (default: the present one)"
    )
    rotate.add_argument("--key-id", default="", help="new name for the data key")
    rotate.add_argument("--reencrypt", action="store_true", help="encrypt every file under a new data key")
    _signing(rotate)

    mount = _command(commands, "mount", _mount, "show a sealed directory as read-only files (FUSE)", key=True)
    mount.add_argument(
        "directory", metavar="SEALED", help="directory, or URL (https://, s3://, gs://, oci://)"
    )
    mount.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT", help="empty directory to mount on")
    mount.add_argument(
        "--cache", type=_mebibytes, default=64, metavar="MIB", help="decrypted MiB to keep (default: 64)"
    )
    mount.add_argument("--allow-other", action="store_true", help="let other users read the files")

    jwe = _command(
        commands, "export-jwe", _export_jwe, "encrypt again as JSON Web Encryption (KServe)", key=True
    )
    jwe.add_argument("directory", metavar="SEALED", help="directory, or URL (https://, s3://, gs://, oci://)")
    jwe.add_argument("destination", type=Path, metavar="DEST", help="directory for the .jwe files")
    jwe.add_argument(
        "--only", action="append", default=[], metavar="GLOB", help="only matching paths (repeatable)"
    )
    jwe.add_argument("--force", action="store_true", help="replace existing files")

    export = _command(
        commands, "export-key", _export_key, "write the data key to a file, after approvals", key=False
    )
    export.add_argument("directory", type=Path, metavar="SEALED")
    export.add_argument(
        "--template", action="store_true", help="print the document for `weightlock access request --change`"
    )
    export.add_argument("--request", default="", metavar="NAME", help="the approved AccessRequest")
    export.add_argument("--output-file", type=Path, metavar="FILE", help="new file for the key")
    export.add_argument("--audit", type=Path, metavar="DIR", help="directory of the audit log of exports")
    export.add_argument("--state", type=Path, metavar="DIR", help="read manifests instead of a cluster")
    add_cluster_arguments(export)

    text = "sign plain model files (OpenSSF Model Signing), or the manifest of a sealed directory"
    sign = _command(commands, "sign", _sign, text, key=True)
    sign.add_argument(
        "directory", type=Path, metavar="DIR", help="directory or file of a model, or sealed directory"
    )
    add_signing(sign)


def _add_seal(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    seal = _command(commands, "seal", _seal, "encrypt a directory of weights", key=False)
    seal.add_argument("source", type=Path, metavar="SOURCE", help="directory or file to encrypt")
    seal.add_argument("directory", type=Path, metavar="SEALED", help="directory for the encrypted files")
    seal.add_argument(
        "--model", required=True, help="name of the ModelWeights object; the files are bound to it"
    )
    seal.add_argument(
        "--key-id",
        default="",
        help="name for the data key (default: today's date); with --update, the required present name",
    )
    seal.add_argument("--update", action="store_true", help="seal the changes as the next generation")
    _signing(seal)
    signed = seal.add_argument_group("signature of the model (OpenSSF Model Signing)")
    signed.add_argument(
        "--verify-signature",
        action="store_true",
        help="seal only the files that a trusted signer signed, and check them while they are encrypted",
    )
    signed.add_argument(
        "--signature", type=Path, metavar="FILE", help="signature file (default: model.sig in SOURCE)"
    )
    signed.add_argument(
        "--attestation",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="bind an attestation to the manifest: SLSA, CycloneDX, SPDX or in-toto (repeatable)",
    )
    add_trust(signed)


def _signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--signing-key",
        type=Path,
        metavar="FILE",
        help="Ed25519 private key in PEM form that signs the manifest",
    )


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
        "--production", action="store_true", help="reject a KMS configuration that is not for production"
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        default=min(os.cpu_count() or 1, 8),
        help="number of threads (default: the number of cores, at most 8)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    if key:
        parser.add_argument(
            "--key-file", type=Path, help="file with the data key, as the key sidecar delivers it"
        )
        parser.add_argument("--model", default="", help="reject any other model")
        parser.add_argument("--generation", type=int, default=0, help="reject older generations (rollback)")
        parser.add_argument(
            "--signer",
            type=_signer,
            action="append",
            default=[],
            metavar="BASE64",
            help="reject a manifest that none of these Ed25519 public keys signed (repeatable)",
        )
        parser.add_argument(
            "--manifest-digest", default="", metavar="DIGEST", help="reject any other manifest"
        )
    return parser


def _guarded(run: Command, args: argparse.Namespace) -> int:
    try:
        with _terminable():
            return run(args)
    except (BadInputError, KmsConfigError) as error:
        return _fail(str(error), 2)
    except (StorageError, KmsUnavailableError) as error:
        return _fail(str(error), 3)
    except KeysError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(str(storage_error(error, "")), 3)
    except KeyboardInterrupt:
        return _fail("interrupted: complete files stay, run the same command again to resume", 3)


def _seal(args: argparse.Namespace) -> int:
    service, start = _service(args), time.monotonic()
    content, notes = _content(args)
    with _work(args) as work:
        manifest = operations.seal(
            args.source,
            args.directory,
            service,
            args.model,
            args.key_id,
            work,
            update=args.update,
            content=content,
        )
        work.notes.extend(notes)
    _print_manifest(args, manifest, "sealed", time.monotonic() - start, work)
    return 0


def _content(args: argparse.Namespace) -> tuple[SignedContent | None, list[str]]:
    """The signed digests that the files must have, if the user asks for a verification."""
    if args.verify_signature:
        inside = args.source if args.source.is_dir() else args.source.parent
        signature = args.signature or inside / "model.sig"
        return signed_content(signature, trust_of(args), args.attestation, args.source)
    names = ("signature", "attestation", "public_key", "ca_certificate", "identity", "identity_pattern")
    if any(getattr(args, name) for name in (*names, "trusted_root")):
        raise BadInputError("add --verify-signature: the other options of the signature have no effect alone")
    return None, []


def _unseal(args: argparse.Namespace) -> int:
    start = time.monotonic()
    with _opened(args) as sealed, _work(args) as work:
        entries = select(sealed.manifest, args.only)
        operations.unseal(sealed, args.destination, args.only, work, mode=args.mode, replace=args.force)
    seconds, size = time.monotonic() - start, sum(entry.size for entry in entries)
    facts = {"model": sealed.manifest.model, "generation": sealed.manifest.generation, "files": len(entries)}
    _print(
        args,
        {**facts, "bytes": size, "seconds": round(seconds, 3), "notes": work.notes},
        [_sentence("unsealed", facts, size, seconds), *work.notes],
    )
    return 0


def _verify(args: argparse.Namespace) -> int:
    with _opened(args) as sealed, _work(args) as work:
        operations.finish(sealed)
        faults = verify(sealed, work.jobs, work.progress, quick=args.quick)
    manifest = sealed.manifest
    facts = {"model": manifest.model, "generation": manifest.generation, "files": len(manifest.files)}
    if faults:
        lines = [*faults, f"{args.directory} is not sound: {_count(len(faults), 'fault')}"]
    else:
        depth = "names, sizes and versions" if args.quick else "every byte"
        what = f'model "{manifest.model}", generation {manifest.generation}'
        size = f"{_count(len(manifest.files), 'file')}, {byte_size(manifest.size)}"
        lines = [f"{args.directory} is sound: {what}, {size}; checked {depth}"]
    signer = {"digest": manifest.digest, "signer": manifest.signer}
    _print(args, {**facts, **signer, "bytes": manifest.size, "sound": not faults, "faults": faults}, lines)
    return 1 if faults else 0


def _inspect(args: argparse.Namespace) -> int:
    manifest = require_manifest(args.directory)
    claims, entries = manifest.claims, list(manifest.entries())
    extra = unlisted(args.directory, entries)
    size = sum(entry.size for entry in entries)
    lines = [
        f"model       {claims.model}",
        f"generation  {claims.generation}, sealed {claims.created}",
        f"key         {claims.key.id}, wrapped by {claims.key.kms}",
        f"digest      {claims.digest}",
        f"signer      {claims.signer or 'none'}",
        *_provenance_lines(claims),
        f"files       {len(entries)}, {byte_size(size)}",
        *(f"  {byte_size(entry.size):>10}  {entry.path}" for entry in entries),
        *(f"  not in the manifest: {name}" for name in extra),
        "This manifest is not verified: run `weightlock weights verify` with the key.",
    ]
    files = [{"path": entry.path, "size": entry.size, "digest": entry.digest} for entry in entries]
    facts = {**_facts(claims), "files": len(entries), "bytes": size}
    _print(args, {**facts, "created": claims.created, "entries": files, "unlisted": extra}, lines)
    return 0


def _provenance_lines(manifest: Manifest) -> list[str]:
    if manifest.provenance is None:
        return ["provenance  none"]
    signature = manifest.provenance.signature
    return [
        f"provenance  {signature.signer}",
        f"  root digest {signature.root_digest}, {_count(signature.files, 'signed file')}",
        *(
            f"  attestation {item.type}, by {', '.join(map(str, item.signers)) or 'no signer'}"
            for item in manifest.provenance.attestations
        ),
    ]


def _rotate(args: argparse.Namespace) -> int:
    old, start = _service(args), time.monotonic()
    new = KeyService(args.new_kms, production=args.production) if args.new_kms else old
    with _work(args) as work:
        if args.reencrypt:
            key_id = args.key_id or work.now[:10]
            manifest = operations.reencrypt(args.directory, old, new, key_id, work)
        else:
            manifest = operations.rewrap(args.directory, old, new, args.key_id, work)
    if args.reencrypt:
        _print_manifest(args, manifest, "encrypted again", time.monotonic() - start, work)
    else:
        _print_manifest(args, manifest, "wrapped again the key of", 0, work)
    return 0


def _sign(args: argparse.Namespace) -> int:
    if not is_sealed(args.directory):
        with ProgressBar(sys.stderr, quiet=args.quiet) as bar, _interruptible(bar):
            facts, lines = sign_model(args, bar)
        _print(args, facts, lines)
        return 0
    refuse_model_options(args)
    if args.signing_key is not None:
        args.signing_key = Path(args.signing_key)
    signer = _signing_key(args)
    if signer is None:
        raise BadInputError("give --signing-key FILE")
    with _key(args) as key:
        manifest = operations.sign(args.directory, key, signer)
    statement = _statement(manifest, signer)
    lines = [
        _sentence("signed", _facts(manifest), manifest.size, 0),
        "In the ModelWeights object:",
        *_manifest_lines(manifest, statement),
    ]
    _print(args, {**_facts(manifest), "statement": statement}, lines)
    return 0


def _mount(args: argparse.Namespace) -> int:
    from webhook.keys.sealed.reading import view as views  # noqa: PLC0415 - only `mount` needs it
    from webhook.keys.sealed.reading.client import Weights  # noqa: PLC0415

    views.available()
    wiped, stop = threading.Event(), threading.Event()

    def end() -> None:
        wiped.set()
        os.kill(os.getpid(), signal.SIGTERM)  # libfuse unmounts

    with _opened(args) as sealed, contextlib.closing(Weights(sealed)) as weights:
        manifest = sealed.manifest
        with contextlib.closing(views.View(weights, args.cache, _report)) as view:
            if args.key_file:
                views.watch(args.key_file, stop, end)
            facts = {"model": manifest.model, "generation": manifest.generation, "files": len(manifest.files)}
            _print(
                args,
                {**facts, "mountpoint": str(args.mountpoint)},
                [f"{_sentence('mounting', facts, manifest.size, 0)}, on {args.mountpoint}"],
            )
            views.mount(view, args.mountpoint, allow_other=args.allow_other, name=manifest.model)
            stop.set()
    return _fail(f"unmounted {args.mountpoint}: the delivered key was wiped", 1) if wiped.is_set() else 0


def _export_jwe(args: argparse.Namespace) -> int:
    from webhook.keys import jwe  # noqa: PLC0415 - only `export-jwe` needs it
    from webhook.keys.sealed.jwe_export import export  # noqa: PLC0415

    with _opened(args) as sealed, _work(args) as work:
        count = export(sealed, args.destination, args.only, work.progress, replace=args.force)
    manifest = sealed.manifest
    name = jwe.resource_id(manifest.model, manifest.key.id)
    facts = {"model": manifest.model, "generation": manifest.generation, "files": count, "resource": name}
    lines = [f'Exported {_count(count, "file")} of model "{manifest.model}" as JWE; their key is {name}']
    _print(args, facts, lines)
    return 0


def _export_key(args: argparse.Namespace) -> int:
    from webhook.cli.weights import export_key  # noqa: PLC0415 - only `export-key` needs it

    claims = require_manifest(args.directory).claims
    if args.template:
        sys.stdout.write(export_key.template(claims))
        return 0
    if not args.request or args.output_file is None or args.audit is None:
        raise BadInputError("give --request NAME, --output-file FILE and --audit DIR, or --template")
    source = export_key.Source(args.state, args.kubeconfig, args.context)
    approvers = export_key.export(claims, _service(args), args.request, source, args.audit, args.output_file)
    facts = {
        "model": claims.model,
        "key": claims.key.id,
        "request": args.request,
        "approvers": list(approvers),
    }
    what = f'key "{claims.key.id}" of model "{claims.model}" to {args.output_file}'
    _print(
        args,
        facts,
        [f"Exported {what}; approved by {', '.join(approvers) or 'no user'}; logged in {args.audit}"],
    )
    return 0


def _report(sentence: str) -> None:
    sys.stderr.write(f"weightlock: {printable(sentence)}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _opened(args: argparse.Namespace) -> Iterator[Sealed]:
    pins = Pins(args.generation, args.manifest_digest, tuple(args.signer))
    directory: Path | Store = Path(args.directory)
    if "://" in str(args.directory):
        from webhook.keys.sealed.storage.remote import open_store  # noqa: PLC0415 - only URLs need it

        directory = open_store(args.directory)
    with (
        contextlib.nullcontext() if isinstance(directory, Path) else contextlib.closing(directory),
        _key(args) as key,
        operations.open_sealed(directory, key, model=args.model, pins=pins) as sealed,
    ):
        yield sealed


@contextlib.contextmanager
def _key(args: argparse.Namespace) -> Iterator[KeyService | Secret]:
    if not args.key_file:
        yield _service(args)
        return
    with operations.read_key_file(args.key_file) as key:
        yield key


def _signing_key(args: argparse.Namespace) -> Ed25519PrivateKey | None:
    path = getattr(args, "signing_key", None)
    if path is None:
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise BadInputError(f"cannot read the signing key {path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise BadInputError(f"{path} is not an unencrypted private key in PEM form") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInputError(
            f"{path} is not an Ed25519 key: create one with `openssl genpkey -algorithm ed25519`"
        )
    return key


def _service(args: argparse.Namespace) -> KeyService:
    if args.kms:
        return KeyService(args.kms, production=args.production)
    directory = args.directory if "://" in str(args.directory) else Path(args.directory)
    if isinstance(directory, str):
        raise BadInputError("name the KMS with --kms URL or WEIGHTLOCK_KMS, or the key with --key-file")
    present = read_manifest(directory) if args.run_name == "seal" else require_manifest(directory)
    path = _default_keyset()
    url, kms_name = f"local://{path}", "" if present is None else present.claims.key.kms
    hint = "name the KMS with --kms URL or WEIGHTLOCK_KMS"
    if kms_name not in {"", url}:
        raise BadInputError(f"{hint}: the manifest names {kms_name}, so pass that if you trust it")
    if args.production:
        raise BadInputError(f"{hint}: the default is a local keyset, which is not allowed in production")
    sys.stderr.write(f"weightlock: no --kms, using the local keyset {url}\n")
    if present is None:
        make_directory(path.parent, 0o700)
    return KeyService(url)


def _default_keyset() -> Path:
    """The path of the default keyset, by the XDG Base Directory Specification."""
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        home = configured if configured.is_absolute() else Path.home() / ".config"
    except RuntimeError:
        raise BadInputError(
            "cannot find a home directory for a local keyset: name a KMS with --kms"
        ) from None
    return home / "weightlock" / "keyset.json"


@contextlib.contextmanager
def _work(args: argparse.Namespace) -> Iterator[Work]:
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    signer = _signing_key(args)
    with ProgressBar(sys.stderr, quiet=args.quiet) as bar, _interruptible(bar):
        yield Work(args.jobs, bar, now, signer)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that a run stops between segments and prints how to resume."""
    with _handled(_raise_interrupt, signal.SIGTERM):
        yield


@contextlib.contextmanager
def _interruptible(bar: ProgressBar) -> Iterator[None]:
    """Also tell the bar about a signal: the exception of a handler is lost if it hits a destructor or a callback."""

    def interrupt(_signal: int, _frame: object) -> None:
        bar.interrupted = True
        raise KeyboardInterrupt

    signals = [signal.SIGTERM]
    # A shell lets background jobs ignore SIGINT, and then it must stay ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signals.append(signal.SIGINT)
    with _handled(interrupt, *signals):
        yield


def _raise_interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(handler: Callable[[int, object], None], *signals: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _print_manifest(
    args: argparse.Namespace, manifest: Manifest, verb: str, seconds: float, work: Work
) -> None:
    facts = _facts(manifest)
    key = facts["key"]
    lines = [
        _sentence(verb, facts, manifest.size, seconds),
        *work.notes,
        "In the ModelWeights object:",
        "  keys:",
        f'  - id: "{key["id"]}"',
        f'    kms: "{key["kms"]}"',
        f"    wrapped: {key['wrapped']}",
    ]
    statement = _statement(manifest, work.signer)
    lines += _manifest_lines(manifest, statement)
    if manifest.provenance is not None:
        lines.insert(1, f"Verified signature: {manifest.provenance.signature.signer}")
        if not statement:
            lines.append("The statement for spec.provenance needs --signing-key.")
    _print(args, {**facts, "statement": statement, "notes": work.notes}, lines)


def _statement(manifest: Manifest, signer: Ed25519PrivateKey | None) -> str:
    return "" if signer is None or not manifest.signer else sign_statement(manifest, signer)


def _manifest_lines(manifest: Manifest, statement: str) -> list[str]:
    """The lines of ``spec.manifest`` in the ModelWeights object."""
    if not manifest.signer:
        return []
    lines = ["  manifest:", f"    signers: [{manifest.signer}]"]
    return [*lines, f"    statement: {statement}"] if statement else lines


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
        "digest": manifest.digest,
        "signer": manifest.signer,
        "provenance": None if manifest.provenance is None else manifest.provenance.document(),
    }


def _sentence(verb: str, facts: dict[str, Any], size: int, seconds: float) -> str:
    speed = f", in {duration(seconds)}, {byte_size(size / seconds)}/s" if seconds >= 1 else ""
    files = _count(facts["files"], "file")
    what = f'model "{facts["model"]}", generation {facts["generation"]}'
    return f"{verb.capitalize()} {what}: {files}, {byte_size(size)}{speed}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _print(args: argparse.Namespace, document: dict[str, Any], lines: list[str]) -> None:
    # JSON is ASCII here: names from storage must not reach a terminal unescaped.
    text = json.dumps(document, indent=2) if args.output == "json" else "\n".join(map(printable, lines))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"weightlock: {printable(sentence)}\n")
    return code


def _jobs(text: str) -> int:
    return whole_number(text, 1, 256, "must be a number between 1 and 256")


def _mebibytes(text: str) -> int:
    return whole_number(text, 1, 1 << 20, "must be a number between 1 and 1048576")


def _mode(text: str) -> int:
    return whole_number(text, 0o400, 0o777, "must be an octal mode such as 600 or 440", base=8)


def _signer(text: str) -> str:
    try:
        public_key(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
