"""The chart's own certificates, authority and leaf, renewed under load: no call of the API server fails."""

import time
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509
from harness.controlplane import ControlPlane, Options, serving_certificate
from harness.kubelet import Kubelet
from harness.load import PER_SECOND, load
from harness.release import NAME, NAMESPACE, Release
from harness.waiting import eventually

SECRET = f"{NAME}-webhook-serving"
LEAF_SECONDS, AUTHORITY_SECONDS = 24, 60
# The chart's ninety days and two years, in the same order.
TIMES = {
    "leafSeconds": LEAF_SECONDS,
    "leafRenewSeconds": 10,
    "propagationSeconds": 3,
    "authoritySeconds": AUTHORITY_SECONDS,
    "authorityRenewSeconds": 30,
    "checkSeconds": 0.5,
}
LAG_SECONDS = 1.0
LONGEST = 100.0


@pytest.fixture
def release(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[Release]:
    """The chart with certificates that hardly last; no broker."""
    cluster = new_control_plane(Options())
    matches = Release(cluster)
    own = {**TIMES, "authoritySecret": f"{NAME}-authority", "pairs[0].secret": SECRET}
    own["pairs[0].names[0]"] = "127.0.0.1"
    values = [f"config.controller.certificates.{field}={value}" for field, value in own.items()]
    matches.helm("install", "broker.enabled=false", *values)
    yield matches
    matches.stop()
    cluster.stop()


def served(release: Release) -> x509.Certificate:
    """The certificate that the webhook shows now."""
    return x509.load_pem_x509_certificate(serving_certificate(release.url.removeprefix("https://")).encode())


def test_authority_and_leaf_are_renewed_twice_under_load_and_no_admission_fails(release: Release) -> None:
    cluster = release.cluster
    release.start("controller")
    release.pair("webhook")
    directory = cluster.directory / "chart" / "webhook" / "tls"
    with Kubelet(cluster, NAMESPACE, {SECRET: directory}, LAG_SECONDS):
        release.start("webhook")
        namespace = cluster.new_namespace()
        release.wait_admitting(namespace)
        leaves: dict[int, str] = {}

        def renewed() -> bool:
            leaf = served(release)
            leaves[leaf.serial_number] = leaf.issuer.rfc4514_string()
            return len(set(leaves.values())) >= 3

        begun = time.monotonic()
        with load(cluster, namespace).running() as pods:
            eventually(renewed, "two other authorities have signed", seconds=LONGEST, every=0.5)
            # Connections that were begun under the last leaf go on past its end.
            time.sleep(LEAF_SECONDS / 4)
        seconds = time.monotonic() - begun
    print(f"{pods.admitted} admitted in {seconds:.0f} s; leaves by their authorities: {leaves}")
    assert pods.refused == []
    assert pods.admitted > PER_SECOND * seconds / 4
    assert len(set(leaves.values())) >= 3
    assert len(leaves) >= 4
