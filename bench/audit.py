"""What the audit log costs: bytes an entry, entries written, verified and searched a second, and a receipt.

The log is written by the real writer. Rates are of one core, as CPU seconds of this process. The verdict with the log
on is a ratio to the same verdict with the log off, in turns within one run.
"""

import asyncio
import resource
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from bench.budget import ROOT
from bench.documents import pod, review
from webhook.api.audit import AuditSettings, Witness
from webhook.api.config import Settings
from webhook.audit.keys import generate, signer_of
from webhook.audit.search import Filter, search
from webhook.audit.storage import Directory
from webhook.audit.witness import Witnesses
from webhook.audit.writer import LogWriter
from webhook.core.audit.verify import verify_log
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import DirectoryProvider
from webhook.server.admission import AdmissionService
from webhook.server.admission_queue import AdmissionQueue
from webhook.server.audit import VerdictLog
from webhook.server.metrics.metrics import AdmissionMetrics

# The package `harness` of the witnesses.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))
from tests.support.witness import free_port, has_ssh_agent, litewitness, log_verifiers

ENTRIES, USERS, BURST = 1_000_000, 200, 2_000
KEY, ORIGIN = generate(), "cluster/broker/a"


def verdict(writer, number):
    """An ordinary verdict of a research cluster."""
    data = {
        "decision": "allowed",
        "phase": "validate",
        "operation": "CREATE",
        "resource": "pods",
        "namespace": f"team-{number % 40}",
        "name": f"train-{number}-0",
        "user": {"username": f"user-{number % USERS}@example.com", "uid": f"{number % USERS:032x}"},
        "policies": 20,
        "microseconds": 900 + number % 97,
    }
    return writer.entry(
        "verdict", data, identifier=f"{number:032x}", subject=f"pods/team-{number % 40}/train-{number}-0"
    )


def written(place, count):
    """Write a log. Return the signer, CPU seconds and the growth of memory in MiB."""
    signer = signer_of(generate(), "cluster/webhook/a", "bench")
    writer = LogWriter(Directory(place, fsync=False), signer, limit=10_000, interval=0.5, compress=True)
    before, begun = peak(), time.process_time()
    writer.open()
    for number in range(count):
        while writer.queued > BURST:
            time.sleep(0.005)
        assert writer.submit(verdict(writer, number))
    writer.close(120.0)
    return signer, time.process_time() - begun, peak() - before


def peak():
    """MiB resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compressed(place):
    """Bytes on disk of the whole log."""
    return sum(
        path.stat().st_size for path in place.rglob("*") if path.is_file() and "index" not in path.parts
    )


def written_by(writer, count):
    """Wait until the log has ``count`` entries."""
    while writer.stats.entries < count:
        time.sleep(0.01)


async def turns(place, rounds=20, count=300):
    """Answer 1,000 reviews a second with and without the log, in turns. Return the ratios of p50 and p99."""
    provider = DirectoryProvider([shipped_policies(), ROOT / "examples" / "state"], Settings())
    writer = LogWriter(
        Directory(place), signer_of(generate(), "cluster/webhook/b", "bench"), limit=100_000, interval=0.5
    )
    services = {
        logged: AdmissionService(
            provider,
            AdmissionQueue(max_queued=10, max_lookups=10),
            AdmissionMetrics(),
            audit=VerdictLog(writer, AuditSettings()) if logged else None,
        )
        for logged in (False, True)
    }
    body = review(pod(2_000))
    writer.open()
    times = {False: [], True: []}
    for turn in range(rounds * 2):
        logged = turn % 2 == 1
        for _ in range(count):
            begun = time.perf_counter()
            await services[logged].validate(body, 10.0, trusted_caller=True)
            times[logged].append(time.perf_counter() - begun)
            await asyncio.sleep(max(0.0, begun + 0.001 - time.perf_counter()))
        # The thread writes in the turns with the log only. The first entry is the start.
        await asyncio.to_thread(written_by, writer, len(times[True]) + 1)
    writer.close()
    off, on = (statistics.quantiles(times[key], n=100) for key in (False, True))
    return on[49] / off[49], on[98] / off[98]


async def releases(place, cosign, quorum, count=60):
    """Return the median milliseconds until an entry has its receipt."""
    signer = signer_of(KEY, ORIGIN, "bench")
    writer = LogWriter(
        Directory(place), signer, limit=1000, interval=0.5, cosign=cosign, quorum=quorum, witnesses=quorum
    )
    writer.open()
    times = []
    for number in range(count):
        begun = time.perf_counter()
        await writer.append(verdict(writer, number), 10.0)
        times.append((time.perf_counter() - begun) * 1e3)
    writer.close()
    return statistics.median(times)


def receipts(scratch):
    """Print what a receipt takes without witnesses, and with two of them on this machine."""
    alone = asyncio.run(releases(scratch / "alone", None, 0))
    print(f"a release waits {alone:.1f} ms for its receipt (fsync on)")
    try:
        programs = log_verifiers()
    except LookupError as error:
        print(f"two witnesses: not measured, {error}")
        return
    if not has_ssh_agent():
        print("two witnesses: not measured, ssh-agent is not installed")
        return
    with ExitStack() as stack:
        witnesses = []
        for name in ("one", "two"):
            place, port = scratch / name, free_port()
            place.mkdir()
            key, _ = stack.enter_context(
                litewitness(
                    programs, place, signer_of(KEY, ORIGIN, "bench"), port, f"witness.example.com/{name}"
                )
            )
            witnesses.append(Witness(url=f"http://127.0.0.1:{port}", key=key.render()))
        clients = stack.enter_context(closing(Witnesses(witnesses, 5.0, 2)))
        cosigned = asyncio.run(releases(scratch / "cosigned", clients.cosign, 2))
    print(f"with two witnesses on this machine {cosigned:.1f} ms, {cosigned - alone:.1f} ms more")


def main():
    """Print every figure."""
    with tempfile.TemporaryDirectory(prefix="weightlock-bench-") as scratch:
        place = Path(scratch, "log")
        signer, seconds, grown = written(place, ENTRIES)
        print(f"write {ENTRIES / seconds:12,.0f} entries/s of CPU, {grown:.0f} MiB more resident at most")
        print(f"size  {compressed(place) / ENTRIES:12.0f} bytes an ordinary verdict on disk")
        begun = time.process_time()
        report = verify_log(Directory(place), signer.keys)
        seconds = time.process_time() - begun
        assert report.whole, report.faults
        print(
            f"verify {ENTRIES / seconds:11,.0f} entries/s, so 10,000,000 take {1e7 / ENTRIES * seconds / 60:.1f} min"
        )
        user = Filter(user="user-7@example.com")
        for name in ("search by user without an index", "search by user"):
            begun = time.process_time()
            count = sum(1 for _ in search(place, user))
            print(f"{name}: {count:,} of {ENTRIES:,} entries in {time.process_time() - begun:.2f} s of CPU")
        median, tail = asyncio.run(turns(Path(scratch, "turns")))
        print(f"verdict with the log on, of one with it off: p50 {median:.3f}, p99 {tail:.3f}")
        receipts(Path(scratch))
