"""Aliases of protected storage on a real API server, and two real CSI drivers that show their content.

The drivers are programs in ``WEIGHTLOCK_STORAGE_DRIVERS``, ~/.cache/weightlock/storage-drivers by default:
``hostpathplugin`` of kubernetes-csi/csi-driver-host-path, ``s3driver`` of yandex-cloud/k8s-csi-s3, and ``rclone`` with
the commands serve s3 and mount2 (``go build -o NAME`` of their main packages). Without them these tests are skipped.
"""

import os
import socket as socketlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness.installed import Installed
from harness.waiting import eventually, slowness

from webhook.core.storage.locations import Relation, related
from webhook.core.storage.sources import backend_of

VOLUMES = "/api/v1/persistentvolumes"
MODELS = "/apis/weightlock.dev/v1alpha1/modelweights"
MALLORY = "mallory@example.com"
PROVISIONER = "system:serviceaccount:storage-system:csi-provisioner"
HOSTPATH = "hostpath.csi.k8s.io"
S3 = "ru.yandex.s3.csi"
PROGRAMS = Path(
    os.environ.get("WEIGHTLOCK_STORAGE_DRIVERS") or Path.home() / ".cache" / "weightlock" / "storage-drivers"
)


def csi(driver: str, handle: str, **attributes: str) -> dict[str, Any]:
    return {"csi": {"driver": driver, "volumeHandle": handle, "volumeAttributes": attributes}}


def nfs(server: str, path: str) -> dict[str, Any]:
    return {"nfs": {"server": server, "path": path}}


def volume(name: str, source: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "manual",
        "persistentVolumeReclaimPolicy": "Retain",
        **source,
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def protected(installed_weightlock: Installed) -> Iterator[Installed]:
    """Weightlock with declared volumes on NFS, of csi-driver-host-path and in a bucket."""
    cluster = installed_weightlock.cluster
    if not installed_weightlock.running:
        installed_weightlock.start()
    if not installed_weightlock.webhooks_present():
        installed_weightlock.add_webhooks()
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "volume-writer"},
        "rules": [
            {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["create", "update", "get"]}
        ],
    }
    subjects = [
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": n} for n in (MALLORY, PROVISIONER)
    ]
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "volume-writers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "volume-writer"},
        "subjects": subjects,
    }
    model = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": "aliased"},
        "spec": {"sensitivity": "frontier", "volumes": [{"persistentVolume": {"names": ["declared-*"]}}]},
    }
    declarations = [
        volume("declared-nfs", nfs("10.0.0.9", "/export/atlas")),
        volume("declared-hostpath", csi(HOSTPATH, "atlas-1")),
        volume("declared-bucket", csi(S3, "weights/atlas")),
    ]
    for item in (role, binding, model, *declarations):
        cluster.kubectl("apply", "-f", "-", stdin=item).ok()
    alias = volume("probe", nfs("10.0.0.9", "/export"))

    def is_denied() -> bool:
        answer = cluster.client(MALLORY).post(VOLUMES, alias, dryRun="All")
        assert "[WL111]" in answer.message, f"{answer.status}: {answer.message}"
        return True

    eventually(is_denied, "the declared volumes are known", seconds=20)
    yield installed_weightlock
    for item in (*declarations, model, binding, role):
        cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=item)


ALIASES = {
    "the parent directory": nfs("10.0.0.9", "/export"),
    "the address in hexadecimal": nfs("0x0a000009", "/export/atlas"),
    "the address in two parts": nfs("10.9", "/export//x/../atlas"),
    "another driver": csi("nfs.csi.k8s.io", "x", server="10.0.0.9", share="/export", subDir="atlas"),
    "the same handle": csi(HOSTPATH, "atlas-1", decoy="harmless"),
    "the whole bucket": csi(S3, "weights", bucket="photos"),
    "the whole bucket with a slash": csi(S3, "weights/", bucket="photos"),
    "another driver of buckets": csi("s3.csi.aws.com", "x", bucketName="weights"),
}


@pytest.mark.parametrize("source", ALIASES.values(), ids=ALIASES)
def test_an_alias_is_denied_with_its_model(protected: Installed, source: dict[str, Any]) -> None:
    answer = protected.cluster.client(MALLORY).post(VOLUMES, volume("alias", source), dryRun="All")
    assert answer.status == 403
    assert "[WL111]" in answer.message
    assert 'model "aliased"' in answer.message


def test_other_storage_is_admitted(protected: Installed) -> None:
    sources = (nfs("10.0.0.9", "/export/home"), csi(HOSTPATH, "photos"), csi("ebs.csi.aws.com", "vol-1"))
    for source in (*sources, csi(S3, "photos"), csi(S3, "weights/photos")):
        protected.cluster.client(MALLORY).post(VOLUMES, volume("other", source), dryRun="All").ok()


def test_a_provisioner_is_admitted_and_an_imitating_user_is_denied(protected: Installed) -> None:
    """A volume whose attributes Weightlock cannot read is allowed for a provisioner only."""
    source = csi("nfs.csi.k8s.io", "x", server="10.0.0.7", share="/export/atlas")
    produced = volume("pvc-1", source, annotations={"pv.kubernetes.io/provisioned-by": "nfs.csi.k8s.io"})
    produced["spec"] |= {
        "claimRef": {"namespace": "default", "name": "data", "uid": "1", "kind": "PersistentVolumeClaim"},
    }
    cluster = protected.cluster
    assert "[WL111]" in cluster.client(MALLORY).post(VOLUMES, produced, dryRun="All").message
    cluster.client(PROVISIONER).post(VOLUMES, produced, dryRun="All").ok()


# A real driver: both volumes are mounted, and their bytes are compared.


def field(number: int, value: bytes | str) -> bytes:
    """One length-delimited field of a protobuf message."""
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def mapping(number: int, items: dict[str, str]) -> bytes:
    return b"".join(field(number, field(1, key) + field(2, value)) for key, value in items.items())


# VolumeCapability {mount {}, access_mode {mode: MULTI_NODE_MULTI_WRITER}} (container-storage-interface/spec csi.proto).
CAPABILITY = field(2, b"") + field(3, varint(1 << 3) + varint(5))


# Mount a FUSE file system and pass its file, as fusermount of libfuse does, but by root only.
FUSERMOUNT = """
import array, ctypes, os, socket, sys

libc = ctypes.CDLL(None, use_errno=True)
point = next(argument for argument in sys.argv[1:] if argument.startswith("/")).encode()
if "-u" in sys.argv:
    sys.exit(libc.umount2(point, 2))
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"rclone", point, b"fuse.rclone", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fuse]))
socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])).sendmsg([bytes(1)], [rights])
"""


def program(name: str) -> Path:
    """The program of a driver; skips where it is not built."""
    place = PROGRAMS / name
    if not place.exists() or os.geteuid() != 0:
        pytest.skip(f"needs {place} and root")
    return place


@contextmanager
def running(
    place: Path, name: str, *flags: str, environment: dict[str, str] | None = None
) -> Iterator[Callable[[str, bytes], bytes]]:
    """A CSI driver on this machine: a function that calls a method with an encoded message."""
    socket = place / f"{name}.sock"
    command = [program(name), "--endpoint", f"unix://{socket}", "--nodeid", "n", *flags]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            with grpc.insecure_channel(f"unix://{socket}") as channel:
                grpc.channel_ready_future(channel).result(timeout=30 * slowness())

                def call(method: str, message: bytes) -> bytes:
                    return channel.unary_unary(f"/csi.v1.{method}")(message, timeout=60 * slowness())

                yield call
        finally:
            process.terminate()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Callable[[str, bytes], bytes]]:
    """csi-driver-host-path."""
    state = tmp_path / "state"
    state.mkdir()
    with running(tmp_path, "hostpathplugin", "--drivername", HOSTPATH, "--statedir", str(state)) as call:
        yield call


@pytest.fixture
def buckets(tmp_path: Path) -> Iterator[tuple[Callable[[str, bytes], bytes], Path, dict[str, str]]]:
    """k8s-csi-s3 beside a local server of buckets: the driver, the server's directory and the credentials."""
    rclone, data, path = program("rclone"), tmp_path / "data", tmp_path / "bin"
    path.mkdir()
    (data / "weights").mkdir(parents=True)
    # The driver runs `rclone mount`. This build has the command under another name.
    wrapper = path / "rclone"
    wrapper.write_text(f'#!/bin/sh\n[ "$1" = mount ] && shift && set -- mount2 "$@"\nexec {rclone} "$@"\n')
    helper = path / "fusermount"
    helper.write_text(f"#!{sys.executable}\n{FUSERMOUNT}")
    for script in (wrapper, helper):
        script.chmod(0o755)
    with closing(socketlib.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    serve = [rclone, "serve", "s3", "--addr", address, data]
    secrets = {"accessKeyID": "id", "secretAccessKey": "key", "endpoint": f"http://{address}", "region": "x"}
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    with subprocess.Popen(serve, stderr=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: answers(address), "the server of buckets listens", seconds=30)
            with running(tmp_path, "s3driver", environment=environment) as call:
                yield call, data, secrets
        finally:
            server.terminate()


def answers(address: str) -> bool:
    host, _, port = address.partition(":")
    with closing(socketlib.socket()) as probe:
        return probe.connect_ex((host, int(port))) == 0


def first_field(message: bytes, number: int) -> bytes:
    """The first length-delimited field of a message whose lengths are below 128, as those of a volume are."""
    place = 0
    while place < len(message):
        tag, place = message[place], place + 1
        if tag & 7 == 0:
            while message[place] & 0x80:
                place += 1
            place += 1
            continue
        size, place = message[place], place + 1
        if tag >> 3 == number:
            return message[place : place + size]
        place += size
    raise AssertionError("the field is not in the message")


def test_the_alias_would_have_contained_the_bytes(
    driver: Callable[[str, bytes], bytes], tmp_path: Path
) -> None:
    """The driver mounts the same files for a second volume with the handle, whatever its attributes are."""
    created = driver("Controller/CreateVolume", field(1, "atlas") + field(3, CAPABILITY))
    handle = first_field(first_field(created, 1), 2).decode()
    targets = [tmp_path / "declared", tmp_path / "alias"]
    contexts: list[dict[str, str]] = [{}, {"decoy": "harmless"}]
    # The kubelet stages a handle once, for whichever volume comes first.
    staging, common = tmp_path / "stage", field(1, handle)
    staging.mkdir()
    driver("Node/NodeStageVolume", common + field(3, str(staging)) + field(4, CAPABILITY))
    for target, context in zip(targets, contexts, strict=True):
        driver(
            "Node/NodePublishVolume",
            common
            + field(3, str(staging))
            + field(4, str(target))
            + field(5, CAPABILITY)
            + mapping(8, context),
        )
    try:
        content = os.urandom(64)
        (targets[0] / "model.safetensors").write_bytes(content)
        assert (targets[1] / "model.safetensors").read_bytes() == content
    finally:
        for target in targets:
            driver("Node/NodeUnpublishVolume", field(1, handle) + field(2, str(target)))
    declarations, alias = (csi(HOSTPATH, handle, **context) for context in contexts)
    one, other = backend_of(declarations, "spec"), backend_of(alias, "spec")
    assert one is not None and other is not None  # noqa: PT018
    assert related(one.locations, other.locations) is Relation.SAME


def test_an_alias_of_a_bucket_would_have_contained_the_bytes(
    buckets: tuple[Callable[[str, bytes], bytes], Path, dict[str, str]], tmp_path: Path
) -> None:
    """The driver mounts the bucket of the handle, and ignores the bucket of the attributes."""
    call, data, secrets = buckets
    content = os.urandom(64)
    (data / "weights" / "model.safetensors").write_bytes(content)
    volumes = [
        ("weights", {"mounter": "rclone"}),
        ("weights/", {"mounter": "rclone", "bucket": "photos"}),
    ]
    for number, (handle, context) in enumerate(volumes):
        staging, target = tmp_path / f"stage-{number}", tmp_path / f"target-{number}"
        staging.mkdir()
        common = field(1, handle) + field(3, str(staging))
        call(
            "Node/NodeStageVolume",
            common + field(4, CAPABILITY) + mapping(5, secrets) + mapping(6, context),
        )
        try:
            publish = common + field(4, str(target)) + field(5, CAPABILITY)
            call("Node/NodePublishVolume", publish + mapping(7, secrets) + mapping(8, context))
            try:
                assert (target / "model.safetensors").read_bytes() == content
            finally:
                call("Node/NodeUnpublishVolume", field(1, handle) + field(2, str(target)))
        finally:
            call("Node/NodeUnstageVolume", field(1, handle) + field(2, str(staging)))
    sources = [csi(S3, handle, **context) for handle, context in volumes]
    one, other = (backend_of(source, "spec") for source in sources)
    assert one is not None and other is not None  # noqa: PT018
    assert related(one.locations, other.locations) is Relation.SAME
