"""Every volume source to its backend."""

import pytest

from webhook.core.kube.fields import MalformedObjectError
from webhook.core.storage.locations import Relation, related
from webhook.core.storage.sources import backend_of


def relations(*sources):
    """The relation of each source to the first."""
    first, *others = [backend_of(source, "spec").locations for source in sources]
    return {related(first, other) for other in others}


SAME = {
    "ebs": [
        {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}},
        {"awsElasticBlockStore": {"volumeID": "vol-1"}},
        {"awsElasticBlockStore": {"volumeID": "aws://eu-west-1a/vol-1", "fsType": "xfs"}},
        {"awsElasticBlockStore": {"volumeID": "aws:///VOL-1"}},
    ],
    "pd": [
        {"csi": {"driver": "pd.csi.storage.gke.io", "volumeHandle": "projects/p/zones/z/disks/d1"}},
        {"gcePersistentDisk": {"pdName": "d1", "partition": 1}},
    ],
    "azure disk": [
        {
            "csi": {
                "driver": "disk.csi.azure.com",
                "volumeHandle": "/subscriptions/S/resourceGroups/G/disks/D1",
            }
        },
        {"azureDisk": {"diskName": "other", "diskURI": "/SUBSCRIPTIONS/s/resourcegroups/g/disks/d1"}},
    ],
    "cinder": [
        {"csi": {"driver": "cinder.csi.openstack.org", "volumeHandle": "c1"}},
        {"cinder": {"volumeID": "c1"}},
    ],
    "iscsi": [
        {"iscsi": {"targetPortal": "10.0.0.1:3260", "iqn": "iqn.2026-11.x:a", "lun": 0}},
        {"iscsi": {"targetPortal": "10.0.0.2:3260", "iqn": "IQN.2026-11.x:a", "lun": 0, "readOnly": True}},
    ],
    "rbd": [
        {"rbd": {"monitors": ["a"], "pool": "p", "image": "i"}},
        {"rbd": {"monitors": ["b"], "pool": "p", "image": "i", "user": "admin"}},
    ],
    "fc": [
        {"fc": {"targetWWNs": ["50060E8", "50060E9"], "lun": 2}},
        {"fc": {"targetWWNs": ["50060e9"], "lun": 2}},
    ],
    "fc by id": [{"fc": {"wwids": ["3600508B"]}}, {"fc": {"wwids": ["x", "3600508b"]}}],
    "vsphere": [
        {"vsphereVolume": {"volumePath": "[ds] kubevols/a.vmdk"}},
        {"vsphereVolume": {"volumePath": "[ds] kubevols/a.vmdk", "fsType": "ext4"}},
    ],
    "portworx": [
        {"portworxVolume": {"volumeID": "p1"}},
        {"csi": {"driver": "pxd.portworx.com", "volumeHandle": "p1"}},
    ],
    "quobyte": [
        {"quobyte": {"registry": "r", "volume": "v", "readOnly": True}},
        {"quobyte": {"registry": "r", "volume": "v", "user": "me"}},
    ],
    "glusterfs": [
        {"glusterfs": {"endpoints": "e", "path": "p"}},
        {"glusterfs": {"endpoints": "e", "path": "p"}},
    ],
}


@pytest.mark.parametrize("sources", SAME.values(), ids=SAME)
def test_one_disk_in_many_spellings_is_one_location(sources):
    assert relations(*sources) == {Relation.SAME}


@pytest.mark.parametrize(
    "sources",
    [
        [{"fc": {"targetWWNs": ["a"], "lun": 1}}, {"fc": {"targetWWNs": ["a"], "lun": 2}}],
        [{"iscsi": {"iqn": "a", "lun": 0}}, {"iscsi": {"iqn": "a", "lun": 1}}],
        [{"rbd": {"pool": "p", "image": "i"}}, {"rbd": {"pool": "q", "image": "i"}}],
        [
            {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}},
            {"csi": {"driver": "other", "volumeHandle": "vol-1"}},
        ],
    ],
)
def test_other_disks_are_other_locations(sources):
    assert relations(*sources) == {Relation.OTHER}


PATHS = {
    "hostPath": ({"hostPath": {"path": "/a/../b//"}}, "node:///b"),
    "local": ({"local": {"path": "/b"}}, "node:///b"),
    "nfs": ({"nfs": {"server": "Files.Example.Com.", "path": "/x/"}}, "nfs://files.example.com/x"),
    "nfs v6": ({"nfs": {"server": "[2001:DB8:0::1]", "path": "/"}}, "nfs://2001:db8::1"),
    "nfs mapped": ({"nfs": {"server": "::ffff:10.0.0.9", "path": "/"}}, "nfs://10.0.0.9"),
    "cephfs": ({"cephfs": {"monitors": ["a"]}}, "cephfs:///"),
    "nfs csi": (
        {
            "csi": {
                "driver": "nfs.csi.k8s.io",
                "volumeAttributes": {"server": "s", "share": "/x", "subDir": "y"},
            }
        },
        "nfs://s/x/y",
    ),
    "smb csi": (
        {
            "csi": {
                "driver": "smb.csi.k8s.io",
                "volumeAttributes": {"source": "\\\\Server\\Share", "subDir": "a"},
            }
        },
        "smb://server/share/a",
    ),
    "efs": ({"csi": {"driver": "efs.csi.aws.com", "volumeHandle": "fs-1:/a"}}, "efs://fs-1/a"),
    "efs point": (
        {"csi": {"driver": "efs.csi.aws.com", "volumeHandle": "fs-1::fsap-2"}},
        "efs://fs-1/…",
    ),
    "efs root": ({"csi": {"driver": "efs.csi.aws.com", "volumeHandle": "fs-1"}}, "efs://fs-1"),
    "cephfs csi": (
        {
            "csi": {
                "driver": "cephfs.csi.ceph.com",
                "volumeHandle": "h",
                "volumeAttributes": {"rootPath": "/v"},
            }
        },
        "cephfs:///v",
    ),
}


@pytest.mark.parametrize(("source", "place"), PATHS.values(), ids=PATHS)
def test_directories_lie_in_a_space(source, place):
    assert str(backend_of(source, "spec").locations[0]) == place


@pytest.mark.parametrize(
    "driver", ["nfs.csi.k8s.io", "smb.csi.k8s.io", "efs.csi.aws.com", "cephfs.csi.ceph.com"]
)
def test_a_directory_that_is_not_named_lies_nowhere(driver):
    backend = backend_of({"csi": {"driver": driver}}, "spec")
    assert backend.locations == ()
    assert not backend.certain


CLOUDS = {
    "efs": (
        {"nfs": {"server": "fs-0a1.efs.eu-west-1.amazonaws.com", "path": "/models"}},
        {"csi": {"driver": "efs.csi.aws.com", "volumeHandle": "fs-0a1:/models/a"}},
    ),
    "efs of a zone": (
        {"nfs": {"server": "eu-west-1a.fs-0a1.efs.eu-west-1.amazonaws.com", "path": "/"}},
        {"csi": {"driver": "efs.csi.aws.com", "volumeHandle": "fs-0a1::fsap-1"}},
    ),
    "filestore": (
        {"nfs": {"server": "10.0.0.2", "path": "/vol1/models"}},
        {
            "csi": {
                "driver": "filestore.csi.storage.gke.io",
                "volumeHandle": "modeInstance/z/i/vol1",
                "volumeAttributes": {"ip": "10.0.0.2", "volume": "vol1"},
            }
        },
    ),
    "s3": (
        {"csi": {"driver": "ru.yandex.s3.csi", "volumeHandle": "models/"}},
        {"csi": {"driver": "ru.yandex.s3.csi", "volumeHandle": "models/pvc-1"}},
    ),
}


@pytest.mark.parametrize(("one", "other"), CLOUDS.values(), ids=CLOUDS)
def test_an_export_and_a_driver_of_one_cloud_touch(one, other):
    assert relations(one, other) == {Relation.SAME}


@pytest.mark.parametrize("kind", ["blob", "file"])
def test_azure_by_its_nfs_name_is_the_container_or_share(kind):
    export = {"nfs": {"server": f"Acc.privatelink.{kind}.core.windows.net.", "path": "/acc/Models/sub"}}
    driver = {"csi": {"driver": f"{kind}.csi.azure.com", "volumeHandle": "group#ACC#models#x"}}
    assert relations(export, driver) == {Relation.SAME}


def test_a_driver_that_knows_its_storage_by_a_secret():
    def volume(secret, handle, *options):
        reference = {"namespace": "kube-system", "name": secret}
        csi = {"driver": "csi.juicefs.com", "volumeHandle": handle, "nodePublishSecretRef": reference}
        return {"csi": csi, "mountOptions": list(options)}

    assert relations(volume("a", "1"), volume("a", "2")) == {Relation.SAME}
    # The other Secret may be a copy.
    assert relations(volume("a", "1"), volume("b", "2")) == {Relation.POSSIBLE}
    assert relations(volume("a", "1", "subdir=x"), volume("a", "2", "subdir=y")) == {Relation.OTHER}


def test_azure_shares_are_read_from_handle_and_attributes_alike():
    handle = {"csi": {"driver": "file.csi.azure.com", "volumeHandle": "G#Acc#Share#x"}}
    inline = {"azureFile": {"secretName": "s", "shareName": "SHARE"}}
    attributes = {"shareName": "Share", "secretName": "s"}
    volume = {"csi": {"driver": "file.csi.azure.com", "volumeAttributes": attributes}}
    assert relations(handle, inline, volume) == {Relation.SAME}


def test_bound_nodes_are_read_where_every_term_names_some():
    def node(*hosts):
        expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(hosts)}
        return {"matchExpressions": [expression]}

    def volume(*terms):
        return {"local": {"path": "/d"}, "nodeAffinity": {"required": {"nodeSelectorTerms": list(terms)}}}

    assert backend_of(volume(node("a", "b"), node("c")), "spec").nodes == {"a", "b", "c"}
    assert backend_of(volume(node("a"), {"matchExpressions": []}), "spec").nodes is None
    assert backend_of(volume(), "spec").nodes is None
    assert backend_of({"hostPath": {"path": "/d"}}, "spec").nodes is None


@pytest.mark.parametrize("source", [{}, {"emptyDir": {}}, {"secret": {"secretName": "s"}}, {"csi": None}])
def test_ephemeral_volumes_have_no_backend(source):
    assert backend_of(source, "spec") is None


@pytest.mark.parametrize(
    "source",
    [
        {"csi": "x"},
        {"csi": {"driver": 1}},
        {"csi": {"driver": "d", "volumeAttributes": {"a": 1}}},
        {"csi": {"driver": "d", "volumeAttributes": []}},
        {"nfs": {"server": [], "path": "/"}},
        {"hostPath": {"path": 7}},
        {"fc": {"targetWWNs": "a"}},
        {"fc": {"wwids": [{}]}},
        {"iscsi": {"iqn": True}},
        {"flexVolume": {"driver": "d", "options": {"a": []}}},
        {"quobyte": {"volume": None, "registry": 1.5j}},
        {"local": {"path": "/"}, "nodeAffinity": {"required": {"nodeSelectorTerms": "x"}}},
    ],
)
def test_a_volume_of_another_shape_is_malformed(source):
    with pytest.raises(MalformedObjectError):
        backend_of(source, "spec")
