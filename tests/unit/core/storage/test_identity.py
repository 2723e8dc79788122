"""Volumes on storage that holds models: the same storage, possibly the same, and provably other storage."""

import pytest

from webhook.core.kube.objects import Lookup
from webhook.core.storage.claims import Resolver
from webhook.core.storage.finder import Finder
from webhook.core.storage.sources import backend_of

GCS = "gcsfuse.csi.storage.gke.io"
PROVISIONER = "system:serviceaccount:storage-system:csi-provisioner"


def csi(driver, handle="h", secret=None, **attributes):
    volume = {"driver": driver, "volumeHandle": handle, "volumeAttributes": attributes}
    if secret:
        volume["nodePublishSecretRef"] = {"namespace": "storage", "name": secret}
    return {"csi": volume}


def nfs(server, path):
    return {"nfs": {"server": server, "path": path}}


def provisioned(source, driver, name="pvc-1", claim="data", storage_class="fast"):
    """A PersistentVolume as external-provisioner writes it."""
    reference = {"namespace": "research", "name": claim, "uid": "1"}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": driver}},
        "spec": {**source, "claimRef": reference, "storageClassName": storage_class},
    }


DECLARED = {
    "gcs": csi(GCS, "llama-weights"),
    "nfs": nfs("10.0.0.9", "/export/atlas"),
    "juicefs": csi("csi.juicefs.com", "atlas", secret="fs"),
    "rbd": csi("rbd.csi.ceph.com", "atlas", staticVolume="true", clusterID="c", pool="kube"),
    "efs": csi("efs.csi.aws.com", "fs-0a1:/models/atlas"),
    "s3": csi("s3.csi.aws.com", "a", bucketName="weights"),
    "blob": csi("blob.csi.azure.com", "rg#acct#atlas"),
    "unlisted": csi("block.example.com", "atlas"),
    "lustre": csi("fsx.csi.aws.com", "fs", dnsname="fs-1.fsx", mountname="abc"),
    "weka": csi("csi.weka.io", "dir/v1/default/models/atlas"),
    "scale": csi("spectrumscale.csi.ibm.com", "0;2;11;AC1;;pvc;/ibm/fs1/atlas"),
    "image": {"csi": {"driver": "container-image.csi.k8s.io", "volumeHandle": "r.example.com/atlas:1"}},
    "cephfs": csi("cephfs.csi.ceph.com", "a", staticVolume="true", clusterID="c", fsName="f", rootPath="/w"),
}


@pytest.fixture
def refs_of(model_of, catalog_of, store_of, volume_of):
    """References of a candidate volume in a cluster where one PersistentVolume is declared to hold a model."""

    def build(declared, candidate, *others, writer=None):
        atlas = volume_of("atlas", **DECLARED[declared])
        store = store_of(atlas, *others)
        catalog = catalog_of(model_of("atlas", {"persistentVolume": {"names": ["atlas"]}}), store=store)
        resolver = Resolver(catalog, Finder(Lookup(store)), catalog.backends)
        if "apiVersion" in candidate:
            return resolver.volume_spec(candidate, writer)
        if "name" in candidate:
            return resolver.backend(backend_of(candidate, "spec.volumes", inline=True))
        return resolver.volume_spec(volume_of("candidate", **candidate), writer)

    return build


UID = "99999999-8888-4777-8666-555555555555"
ALIASES = {
    "suffix": ("gcs", csi(GCS, "llama-weights:x")),
    "every bucket": ("gcs", csi(GCS, "_")),
    "decoy": ("gcs", csi(GCS, "llama-weights", bucketName="harmless")),
    "inline": (
        "gcs",
        {"name": "v", "csi": {"driver": GCS, "volumeAttributes": {"bucketName": "llama-weights"}}},
    ),
    "hex address": ("nfs", nfs("0x0a000009", "/export/atlas")),
    "short address": ("nfs", nfs("10.9", "/export//x/../atlas/70b")),
    "mapped address": ("nfs", nfs("::ffff:10.0.0.9", "/")),
    "server list": ("nfs", nfs("10.0.0.1,10.0.0.9", "/export/atlas")),
    "server url": ("nfs", nfs("nfs://10.0.0.9:2049", "/export/atlas")),
    "by a driver": ("nfs", csi("nfs.csi.k8s.io", "x", server="10.0.0.9", share="/", subDir="export")),
    "explicit endpoint": (
        "s3",
        {
            **csi("s3.csi.aws.com", "b", bucketName="weights"),
            "mountOptions": ["endpoint-url https://minio.example.com"],
        },
    ),
    "image with a port": (
        "image",
        {
            "name": "v",
            "csi": {
                "driver": "csi-image.warm-metal.tech",
                "volumeAttributes": {"image": "R.example.com.:0443/atlas:1"},
            },
        },
    ),
    "mount option": (
        "cephfs",
        csi(
            "cephfs.csi.ceph.com",
            "b",
            staticVolume="true",
            clusterID="c",
            fsName="g",
            rootPath="/w",
            kernelMountOptions="mds_namespace=f",
        ),
    ),
    "snapshot directory": ("nfs", nfs("10.0.0.9", "/export/.snapshot/daily/atlas")),
    "server with a path": (
        "nfs",
        csi("nfs.csi.k8s.io", "x", server="10.0.0.9:/export/atlas", share="/export/atlas"),
    ),
    "flex volume": (
        "nfs",
        {"flexVolume": {"driver": "k8s/nfs", "options": {"server": "10.9", "share": "/export/atlas"}}},
    ),
    "driver without an entry": ("nfs", csi("new.example.com", "x", server="10.9", share="/export")),
    "forged provisioner": (
        "nfs",
        provisioned(csi("nfs.csi.k8s.io", "x", server="10.0.0.9", share="/export/atlas"), "nfs.csi.k8s.io"),
    ),
}


@pytest.mark.parametrize(("declared", "candidate"), ALIASES.values(), ids=ALIASES)
def test_an_alias_names_the_model(refs_of, declared, candidate):
    refs = refs_of(declared, candidate)
    assert [ref.model.name for ref in refs] == ["atlas"]
    assert "the storage of PersistentVolume atlas: " in refs[0].detail


DOUBTFUL = {
    "server with another path": (
        "nfs",
        csi("nfs.csi.k8s.io", "x", server="10.0.0.9:/export/atlas", share="/home"),
    ),
    "another host name": ("nfs", nfs("files.example.com", "/export/atlas")),
    "another address": ("nfs", nfs("10.0.0.10", "/export")),
    "template": (
        "nfs",
        csi("nfs.csi.k8s.io", "x", server="10.0.0.9", share="/export", subDir="${pvc.metadata.name}"),
    ),
    "case of a path": ("nfs", nfs("10.0.0.9", "/Export/Atlas")),
    "space in a path": ("nfs", nfs("10.0.0.9", "/export/atlas ")),
    "percent": ("nfs", nfs("10.0.0.9", "/export/%61tlas")),
    "two spellings of a key": (
        "nfs",
        csi("nfs.csi.k8s.io", "x", server="10.0.0.1", SERVER="10.0.0.2", share="/home"),
    ),
    "symbolic link": ("scale", csi("spectrumscale.csi.ibm.com", "11;AC1;path=/ibm/link")),
    "digest of an image": (
        "image",
        {
            "csi": {
                "driver": "container-image.csi.k8s.io",
                "volumeHandle": "r.example.com/atlas@sha256:" + "0" * 64,
            }
        },
    ),
    "copied secret": ("juicefs", csi("csi.juicefs.com", "photos", secret="copy")),
    "access point": ("efs", csi("efs.csi.aws.com", "fs-0a1::fsap-2")),
    "access point alias": ("s3", csi("s3.csi.aws.com", "b", bucketName="team-ap-1234567890-s3alias")),
    "tenant as provisioner": (
        "unlisted",
        provisioned(csi("block.example.com", "photos"), "block.example.com"),
        "system:serviceaccount:research:mallory",
    ),
    "other driver's annotation": (
        "unlisted",
        provisioned(csi("block.example.com", "photos"), "disk.example.com"),
    ),
    "no class": (
        "unlisted",
        provisioned(csi("block.example.com", "photos"), "block.example.com", storage_class=""),
    ),
    "redirecting option": (
        "blob",
        {**csi("blob.csi.azure.com", "rg#acct#photos"), "mountOptions": ["--container-name=atlas"]},
    ),
    "other volume of an unlisted driver": ("unlisted", csi("block.example.com", "photos")),
    "inline volume of an unlisted driver": ("gcs", {"name": "v", "csi": {"driver": "new.example.com"}}),
    "other management address": (
        "lustre",
        csi("lustre.csi.storage.gke.io", "x", ip="10.0.0.1", filesystem="abc"),
    ),
    "person as provisioner": (
        "unlisted",
        provisioned(csi("block.example.com", "photos"), "block.example.com"),
        "mallory",
    ),
}


@pytest.mark.parametrize("case", DOUBTFUL.values(), ids=DOUBTFUL)
def test_storage_of_uncertain_identity_refers_to_an_unknown_model(refs_of, case):
    declared, candidate, *writer = case
    refs = refs_of(declared, candidate, writer=writer[0] if writer else None)
    assert [ref.model.name for ref in refs] == ["?"]
    assert refs[0].detail


def claim(name, **spec):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "research", "uid": "1"},
        "spec": spec,
    }


def storage_class(name, provisioner):
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
    }


BENIGN = {
    "gcs other bucket": ("gcs", csi(GCS, "photos")),
    "gcs other bucket with suffix": ("gcs", csi(GCS, "photos:llama-weights")),
    "gcs decoy attribute": ("gcs", csi(GCS, "photos", bucketName="llama-weights")),
    "gcs longer name": ("gcs", csi(GCS, "llama-weights-eu")),
    "gcs inline other bucket": (
        "gcs",
        {"name": "v", "csi": {"driver": GCS, "volumeAttributes": {"bucketName": "p"}}},
    ),
    "gcs options": (
        "gcs",
        csi(GCS, "photos", mountOptions="implicit-dirs,file-cache:max-size-mb:-1,uid=1001"),
    ),
    "nfs other export": ("nfs", nfs("10.0.0.9", "/export/home")),
    "nfs longer name": ("nfs", nfs("10.0.0.9", "/export/atlas-2")),
    "nfs other server and export": ("nfs", nfs("nas.example.com", "/home")),
    "nfs driver": ("nfs", csi("nfs.csi.k8s.io", "x", server="10.0.0.9", share="/export", subDir="home")),
    "nfs template elsewhere": (
        "nfs",
        csi("nfs.csi.k8s.io", "x", server="10.0.0.9", share="/home", subDir="${pvc.metadata.name}"),
    ),
    "nfs mount options": (
        "nfs",
        {**nfs("10.0.0.9", "/home"), "mountOptions": ["nfsvers=4.1", "hard", "rsize=1048576"]},
    ),
    "nfs dynamic": (
        "nfs",
        provisioned(
            csi("nfs.csi.k8s.io", "x", server="10.0.0.9", share="/export", subDir="pvc-1"), "nfs.csi.k8s.io"
        ),
    ),
    "rbd other image": (
        "rbd",
        csi("rbd.csi.ceph.com", "photos", staticVolume="true", clusterID="c", pool="kube"),
    ),
    "rbd dynamic": (
        "rbd",
        provisioned(
            csi(
                "rbd.csi.ceph.com",
                "0001-0001-c-0000000000000002-8b1c2d3e-1111-4222-8333-444455556666",
                clusterID="c",
                pool="kube",
                imageName="csi-vol-8b1c2d3e-1111-4222-8333-444455556666",
            ),
            "rbd.csi.ceph.com",
        ),
    ),
    "efs other system": ("efs", csi("efs.csi.aws.com", "fs-0a2:/models/atlas")),
    "efs other directory": ("efs", csi("efs.csi.aws.com", "fs-0a1:/home")),
    "efs access point of other system": ("efs", csi("efs.csi.aws.com", "fs-0a2::fsap-1")),
    "efs dynamic": ("efs", provisioned(csi("efs.csi.aws.com", "fs-0a1::fsap-9"), "efs.csi.aws.com")),
    "s3 other bucket": ("s3", csi("s3.csi.aws.com", "b", bucketName="photos")),
    "s3 longer bucket": ("s3", csi("s3.csi.aws.com", "b", bucketName="weights2")),
    "blob other container": ("blob", csi("blob.csi.azure.com", "rg#acct#photos")),
    "blob other account": ("blob", csi("blob.csi.azure.com", "rg#other#atlas")),
    "blob dynamic": ("blob", provisioned(csi("blob.csi.azure.com", "rg#acct#pvc-1"), "blob.csi.azure.com")),
    "juicefs dynamic": (
        "juicefs",
        provisioned(csi("csi.juicefs.com", "pvc-1", secret="sc", subPath="pvc-1"), "csi.juicefs.com"),
    ),
    "lustre other system": ("lustre", csi("fsx.csi.aws.com", "fs2", dnsname="fs-2.fsx", mountname="xyz")),
    "lustre dynamic": (
        "lustre",
        provisioned(csi("fsx.csi.aws.com", "fs-3", dnsname="fs-3.fsx", mountname="abc"), "fsx.csi.aws.com"),
    ),
    "weka other directory": ("weka", csi("csi.weka.io", "dir/v1/default/photos")),
    "weka other system": ("weka", csi("csi.weka.io", "weka/v2/scratch")),
    "weka dynamic": (
        "weka",
        provisioned(csi("csi.weka.io", "dir/v1/default/csi-volumes/pvc-1"), "csi.weka.io"),
    ),
    "unlisted dynamic": ("unlisted", provisioned(csi("block.example.com", "vol-2"), "block.example.com")),
    "other unlisted static": ("unlisted", csi("disk.example.com", "vol-2")),
    "ebs static": ("unlisted", csi("ebs.csi.aws.com", "vol-2")),
    "host path": ("nfs", {"hostPath": {"path": "/data"}}),
    "secrets store": ("gcs", {"name": "v", "csi": {"driver": "secrets-store.csi.k8s.io"}}),
    "certificates": ("gcs", {"name": "v", "csi": {"driver": "csi.cert-manager.io"}}),
    "identities": ("gcs", {"name": "v", "csi": {"driver": "csi.spiffe.io", "readOnly": True}}),
    "empty directory": ("gcs", {"name": "v", "nfs": None, "emptyDir": {}, "hostPath": {"path": "/tmp"}}),
    "inline nfs elsewhere": ("nfs", {"name": "v", "nfs": {"server": "10.0.0.9", "path": "/home"}}),
}


@pytest.mark.parametrize(("declared", "candidate"), BENIGN.values(), ids=BENIGN)
def test_other_storage_is_allowed(refs_of, declared, candidate):
    driver = candidate.get("spec", {}).get("csi", {}).get("driver", "")
    others = (claim("data", storageClassName="fast"), storage_class("fast", driver)) if driver else ()
    assert refs_of(declared, candidate, *others) == ()
    if driver:
        assert refs_of(declared, candidate, *others, writer=PROVISIONER) == ()


def test_a_class_of_another_driver_proves_a_forgery(refs_of):
    candidate = provisioned(csi("block.example.com", "photos"), "block.example.com")
    refs = refs_of("unlisted", candidate, storage_class("fast", "disk.example.com"))
    assert [ref.model.name for ref in refs] == ["?"]


def test_a_claim_that_was_made_again_proves_a_forgery(refs_of):
    candidate = provisioned(csi("block.example.com", "photos"), "block.example.com")
    other = claim("data")
    other["metadata"]["uid"] = "2"
    assert [ref.model.name for ref in refs_of("unlisted", candidate, other)] == ["?"]


def test_a_storage_admin_declares_other_storage(refs_of):
    candidate = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "photos", "annotations": {"weightlock.dev/other-storage": "true"}},
        "spec": csi("block.example.com", "photos"),
    }
    assert refs_of("unlisted", candidate) == ()
    # The writer needs the verb `store` to make such a declaration.
    assert [ref.model.name for ref in refs_of("unlisted", candidate, writer="mallory")] == ["?"]
    candidate["spec"] = csi("block.example.com", "atlas")
    assert [ref.model.name for ref in refs_of("unlisted", candidate)] == ["atlas"]


@pytest.mark.parametrize(
    ("name", "uid", "allowed"),
    [
        (f"pvc-{UID}", UID, True),
        (f"pvc-{UID[:8]}", UID, True),
        ("70b", "1", False),
        ("70b", UID, False),
        ("70b", "70b", False),
    ],
)
def test_only_a_directory_named_after_the_claim_is_new(refs_of, name, uid, allowed):
    """A writer chooses the name of a volume, and the API server chooses the UID of a claim."""
    source = csi("nfs.csi.k8s.io", "x", server="10.0.0.9", share=f"/export/atlas/{name}")
    candidate = provisioned(source, "nfs.csi.k8s.io")
    candidate["metadata"]["name"] = name
    candidate["spec"]["claimRef"]["uid"] = uid
    assert (refs_of("nfs", candidate, writer=PROVISIONER) == ()) is allowed
