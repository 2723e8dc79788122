"""What Weightlock decides, seen without a cluster: the samples of examples/ as real admission reviews over TLS.

Starts the webhook embedded on examples/state, sends each sample to /mutate and then, with the patch applied, to
/validate, as an API server would, and prints a table. Everything it starts is gone when it ends.
"""

import base64
import http.client
import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

from webhook.api.config import Settings
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.manifests.reader import read_file
from webhook.offline.review import Requester, as_review

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
START_SECONDS = 30
COLUMNS = (("MANIFEST", 38), ("WHO", 7), ("VERDICT", 7), ("CODE", 5), ("INJECTED", 8), ("WHY", 0))


@contextmanager
def webhook() -> Iterator[tuple[str, int, ssl.SSLContext]]:
    """A running webhook: its host, port and TLS context."""
    with tempfile.TemporaryDirectory(prefix="weightlock-demo-") as scratch:
        authority, log = Path(scratch) / "ca.crt", Path(scratch) / "log"
        command = [Path(sys.prefix) / "bin" / "weightlock", "serve", "--embedded", EXAMPLES / "state"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--listen", "127.0.0.1:0", "--write-ca", authority], stdout=output, stderr=output
            )
        try:
            host, port = address(process, log)
            yield host, port, ssl.create_default_context(cafile=str(authority))
        finally:
            process.terminate()
            process.wait(timeout=10)


def address(process: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    """Where the webhook listens, once its log says that it is ready."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("message") == "ready":
                host, _, port = entry["address"].removeprefix("https://").rpartition(":")
                return host, int(port)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit(f"the webhook did not start:\n{log.read_text()}")


def post(connection: http.client.HTTPSConnection, path: str, review: Json) -> Json:
    """Send one review and return the response in it."""
    connection.request("POST", path, json.dumps(review), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        sys.exit(f"{path} answered {answer.status}: {body.decode()}")
    response: Json = json.loads(body)["response"]
    return response


def admit(connection: http.client.HTTPSConnection, review: Json) -> tuple[Json, bool]:
    """Mutation, then validation of the mutated object: the last response, and whether the key sidecar came in."""
    mutated = post(connection, "/mutate", review)
    if not mutated["allowed"]:
        return mutated, False
    patch = json.loads(base64.b64decode(mutated.get("patch", "") or b"W10="))
    request = {**review["request"], "object": jsonpatch.apply_patch(review["request"]["object"], patch)}
    response = post(connection, "/validate", {**review, "request": request})
    return response, response["allowed"] and "weightlock-agent" in json.dumps(patch)


def row(values: Sequence[str]) -> str:
    """One line of the table, cut where the terminal ends."""
    room = max(shutil.get_terminal_size((160, 24)).columns, 100)
    line = " ".join(value.ljust(width) for value, (_, width) in zip(values, COLUMNS, strict=True)).rstrip()
    return line if len(line) <= room else line[: room - 1] + "…"


def main() -> int:
    """Run the demo; returns the exit code."""
    snapshot = SnapshotBuilder(Settings(), complete=True).snapshot()
    samples = yaml.safe_load((EXAMPLES / "samples.yaml").read_text())
    counts = {"allowed": 0, "denied": 0, "injected": 0}
    print("starting Weightlock embedded, on examples/state …", flush=True)
    with webhook() as (host, port, tls):
        connection = http.client.HTTPSConnection(host, port, context=tls, timeout=10)
        print(f"it answers at https://{host}:{port}; the API server is played by this script\n")
        print(row([title for title, _ in COLUMNS]))
        for sample in samples:
            asker = Requester(username=sample["user"], groups=tuple(sample.get("groups", ())))
            for manifest in read_file(EXAMPLES / "samples" / sample["file"]):
                response, injected = admit(connection, as_review(manifest.document, asker, snapshot))
                counts["allowed" if response["allowed"] else "denied"] += 1
                counts["injected"] += injected
                why = response.get("status", {}).get("message", "").split("\n")[0]
                code = why[-6:-1] if why.endswith("]") else ""
                print(
                    row(
                        [
                            sample["file"].removesuffix(".yaml"),
                            sample["user"].partition("@")[0],
                            "allowed" if response["allowed"] else "denied",
                            code,
                            "yes" if injected else "",
                            why.removesuffix(f" [{code}]"),
                        ]
                    ),
                    flush=True,
                )
        connection.close()
    total = counts["allowed"] + counts["denied"]
    parts = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"\ndemo: {total} reviews, {parts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
