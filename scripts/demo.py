"""Show Weightlock's verdicts without a cluster: send the samples in examples/ as real admission reviews over TLS.

The demo starts the webhook on examples/state. Like an API server, it sends each sample to /mutate and then, with the
patch applied, to /validate, and prints a table. Then it shows the audit log that the webhook wrote, its verification,
and a theft that the detection rules find in a log. It removes everything at the end.
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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

from webhook.api.config import Settings
from webhook.audit.keys import KEYS, generate, signer_of
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter
from webhook.core.admission.snapshot import Snapshot, SnapshotBuilder
from webhook.manifests.reader import read_file
from webhook.offline.review import Requester, as_review

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
WEIGHTLOCK = Path(sys.prefix) / "bin" / "weightlock"
START_SECONDS = 30
LOG_LINES = 5
COLUMNS = (("MANIFEST", 38), ("USER", 7), ("VERDICT", 7), ("CODE", 5), ("INJECTED", 8), ("REASON", 0))


@contextmanager
def webhook(scratch: Path) -> Iterator[tuple[str, int, ssl.SSLContext]]:
    """Run a webhook with an audit log in ``scratch``. Yield its host, port and TLS context."""
    ca, log = scratch / "ca.crt", scratch / "log"
    command = [WEIGHTLOCK, "serve", "--state-dir", EXAMPLES / "state", "--audit-log", scratch / "audit"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", "--write-ca", ca], stdout=output, stderr=output
        )
    try:
        host, port = address(process, log)
        yield host, port, ssl.create_default_context(cafile=str(ca))
    finally:
        process.terminate()
        process.wait(timeout=10)


def show_log(directory: Path) -> None:
    """Print the last entries of the audit log and its verification. Exit if the log is not whole."""
    for title, command in (
        (
            f"the audit log that it wrote, last {LOG_LINES} entries (weightlock audit tail):",
            ["tail", "-n", str(LOG_LINES)],
        ),
        ("its verification (weightlock audit verify):", ["verify"]),
    ):
        print(f"\n{title}", flush=True)
        subprocess.run([WEIGHTLOCK, "audit", *command, directory], check=True)


def show_theft(directory: Path) -> None:
    """Write the log of a theft, and print the alert of the detection rules. Exit if there is none.

    Each entry is built and signed like an entry of a real broker. Two weeks of one team come first, because a rule
    needs a baseline.
    """
    signer = signer_of(generate(), "cluster/broker/demo", "demo")
    writer = LogWriter(
        Directory(directory / "broker" / "demo", fsync=False), signer, limit=1_000, interval=0.1
    )
    writer.open()
    (directory / "broker" / "demo" / KEYS).write_text("".join(f"{key.render()}\n" for key in signer.keys))
    now = datetime.now(UTC)
    for hours in (*range(15 * 24, 0, -6), 0):
        account = "trainer" if hours else "backup"
        data = {
            "decision": "released",
            "model": "atlas-70b",
            "pod": {"namespace": "research", "name": f"job-{hours}", "serviceAccount": account},
            "subject": "User",
        }
        moment = now - timedelta(hours=hours)
        writer.submit(writer.entry("release", data, identifier=f"release-{hours}", now=moment))
    writer.close()
    print("\na theft with a borrowed service account, and its alert (weightlock detections run):", flush=True)
    done = subprocess.run([WEIGHTLOCK, "detections", "run", directory], check=False)
    if done.returncode != 1:
        sys.exit("the theft was not detected")


def address(process: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    """Return the webhook's address once its log reports that it is ready."""
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
    """Send one review and return its response."""
    connection.request("POST", path, json.dumps(review), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        sys.exit(f"{path} returned {answer.status}: {body.decode()}")
    response: Json = json.loads(body)["response"]
    return response


def admit(connection: http.client.HTTPSConnection, review: Json) -> tuple[Json, bool]:
    """Mutate and then validate the object. Return the last response, and whether the key sidecar was injected."""
    mutated = post(connection, "/mutate", review)
    if not mutated["allowed"]:
        return mutated, False
    patch = json.loads(base64.b64decode(mutated.get("patch", "") or b"W10="))
    request = {**review["request"], "object": jsonpatch.apply_patch(review["request"]["object"], patch)}
    response = post(connection, "/validate", {**review, "request": request})
    return response, response["allowed"] and "weightlock-agent" in json.dumps(patch)


def row(values: Sequence[str]) -> str:
    """Format one line of the table, clipped to the terminal."""
    room = max(shutil.get_terminal_size((160, 24)).columns, 100)
    line = " ".join(value.ljust(width) for value, (_, width) in zip(values, COLUMNS, strict=True)).rstrip()
    return line if len(line) <= room else line[: room - 1] + "…"


def main() -> int:
    """Run the demo. Return the exit code."""
    snapshot = SnapshotBuilder(Settings(), complete=True).snapshot()
    samples = yaml.safe_load((EXAMPLES / "samples.yaml").read_text())
    counts = {"allowed": 0, "denied": 0, "injected": 0}
    print("starting Weightlock with the state directory examples/state …", flush=True)
    with tempfile.TemporaryDirectory(prefix="weightlock-demo-") as name:
        scratch = Path(name)
        send_samples(scratch, samples, snapshot, counts)
        show_log(scratch / "audit")
        show_theft(scratch / "theft")
    total = counts["allowed"] + counts["denied"]
    parts = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"\ndemo: {total} reviews, {parts}")
    return 0


def send_samples(scratch: Path, samples: Sequence[Json], snapshot: Snapshot, counts: dict[str, int]) -> None:
    """Send every sample, print its verdict and count it."""
    with webhook(scratch) as (host, port, tls):
        connection = http.client.HTTPSConnection(host, port, context=tls, timeout=10)
        print(f"the webhook listens on https://{host}:{port}, and this script acts as the API server\n")
        print(row([title for title, _ in COLUMNS]))
        for sample in samples:
            asker = Requester(username=sample["user"], groups=tuple(sample.get("groups", ())))
            for manifest in read_file(EXAMPLES / "samples" / sample["file"]):
                response, injected = admit(connection, as_review(manifest.document, asker, snapshot))
                counts["allowed" if response["allowed"] else "denied"] += 1
                counts["injected"] += injected
                reason = response.get("status", {}).get("message", "").split("\n")[0]
                code = reason[-6:-1] if reason.endswith("]") else ""
                print(
                    row(
                        [
                            sample["file"].removesuffix(".yaml"),
                            sample["user"].partition("@")[0],
                            "allowed" if response["allowed"] else "denied",
                            code,
                            "yes" if injected else "",
                            reason.removesuffix(f" [{code}]"),
                        ]
                    ),
                    flush=True,
                )
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
