"""``weightlock-key``: read sealed files in a script or a shell inside a pod, as plaintext on stdout only."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.keys.errors import BadInputError, KeysError, StorageError, printable
from webhook.keys.sealed.format.paths import KEYS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.keys.sealed.reading.client import Weights

_CHUNK = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit codes: 0 success, 1 rejected data or key, 2 bad input, 3 it could not complete."""
    parser = argparse.ArgumentParser(prog="weightlock-key", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--keys", type=Path, default=KEYS, help=f"directory of the delivered keys (default: {KEYS})"
    )
    parser.add_argument("--model", default="", help="reject any other model")
    parser.add_argument("--generation", type=int, default=0, help="reject older generations (rollback)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list the files of a sealed directory, verified")
    listing.add_argument("sealed", metavar="SEALED")
    cat = commands.add_parser("cat", help="write the plaintext of one file to stdout")
    cat.add_argument("sealed", metavar="SEALED")
    cat.add_argument("file", metavar="FILE")
    receipt = commands.add_parser("receipt", help="print the proof that a key release is in the audit log")
    receipt.add_argument("model_name", nargs="?", default="", metavar="MODEL", help="default: the only model")
    options = parser.parse_args(arguments)
    if options.command == "receipt":
        return _receipt(options.keys, options.model_name or options.model)
    # Ciphers take most of the start-up time, which the help and a wrong argument need not wait for.
    from webhook.keys.rawio import storage_error  # noqa: PLC0415
    from webhook.keys.sealed.reading.client import open_weights  # noqa: PLC0415

    try:
        with open_weights(
            options.sealed, model=options.model, keys=options.keys, generation=options.generation
        ) as weights:
            _list(weights) if options.command == "list" else _cat(weights, options.file)
    except KeysError as error:
        sys.stderr.write(f"weightlock-key: {error}\n")
        return 2 if isinstance(error, BadInputError) else 3 if isinstance(error, StorageError) else 1
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except OSError as error:
        sys.stderr.write(f"weightlock-key: {storage_error(error, str(options.sealed))}\n")
        return 3
    return 0


def _receipt(keys: Path, model: str) -> int:
    """Print the receipt of one model. `weightlock audit verify FILE --keys KEYS` verifies it."""
    from webhook.keys.agent.delivery import RECEIPT  # noqa: PLC0415 - only this command needs it

    # Files that the sidecar unseals are beside the keys.
    places = [place for name in ("keys", "weights") for place in (keys.parent / name).glob(model or "*")]
    receipts = [
        place / RECEIPT for place in {*places, *keys.glob(model or "*")} if (place / RECEIPT).is_file()
    ]
    if len(receipts) != 1:
        many = (
            "several models have a receipt: name one"
            if receipts
            else "no receipt: the broker keeps no audit log"
        )
        sys.stderr.write(f"weightlock-key: {many}\n")
        return 2 if receipts else 1
    sys.stdout.write(receipts[0].read_text())
    return 0


def _list(weights: Weights) -> None:
    from webhook.cli.progress import byte_size  # noqa: PLC0415 - only this command needs it

    for path in weights.files:
        sys.stdout.write(f"{byte_size(weights.size(path)):>10}  {printable(path)}\n")
    sys.stdout.flush()


def _cat(weights: Weights, path: str) -> None:
    with weights.open(path) as stream:
        while chunk := stream.read(_CHUNK):
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
