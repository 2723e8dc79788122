"""Each driver as its source reads a volume: a declared volume and a second one on the same or on other storage.

``SAME`` are aliases in the forms of the drivers' own documents. To add a driver, add a pair here that cites the file of
the driver that reads the fields, and the entry in `webhook.core.storage.drivers`.
"""

import pytest

from webhook.core.storage.drivers import DRIVERS, driver_of
from webhook.core.storage.locations import Relation, related
from webhook.core.storage.sources import backend_of


def csi(driver, handle="h", secret=None, options=(), **attributes):
    volume = {"driver": driver, "volumeHandle": handle, "volumeAttributes": attributes}
    if secret:
        volume["nodePublishSecretRef"] = {"namespace": "storage", "name": secret}
    return {"csi": volume, **({"mountOptions": list(options)} if options else {})}


def inline(driver, **attributes):
    return {"name": "v", "csi": {"driver": driver, "volumeAttributes": attributes}}


def staged(secret, volume):
    volume["csi"]["nodeStageSecretRef"] = {"namespace": "storage", "name": secret}
    return volume


def nfs(server, path):
    return {"nfs": {"server": server, "path": path}}


GCS = "gcsfuse.csi.storage.gke.io"
UUID = "8b1c2d3e-1111-4222-8333-444455556666"
CEPH = f"0001-0024-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee-0000000000000002-{UUID}"
CLUSTER = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

# (source in the driver's repository, declared volume, alias)
SAME = {
    "obs of two drivers": (
        "huaweicloud/huaweicloud-csi-driver pkg/obs/nodeserver.go NodePublishVolume",
        csi("obs.csi.huaweicloud.com", "atlas"),
        csi("obs.csi.everest.io", "atlas", **{"everest.io/region": "cn-north-4"}),
    ),
    "obs by another driver": (
        "awslabs/mountpoint-s3-csi-driver pkg/driver/node/node.go NodePublishVolume",
        csi("obs.csi.huaweicloud.com", "atlas"),
        csi(
            "s3.csi.aws.com",
            "x",
            bucketName="atlas",
            options=["endpoint-url=https://obs.cn-north-4.myhuaweicloud.com"],
        ),
    ),
    "gcsfuse suffix": (
        "GoogleCloudPlatform/gcs-fuse-csi-driver pkg/util/util.go ParseVolumeID",
        csi(GCS, "atlas"),
        csi(GCS, "atlas:x"),
    ),
    "gcsfuse every bucket": (
        "GoogleCloudPlatform/gcs-fuse-csi-driver pkg/csi_driver/node.go",
        csi(GCS, "atlas"),
        csi(GCS, "_"),
    ),
    "gcsfuse every bucket inline": (
        "GoogleCloudPlatform/gcs-fuse-csi-driver pkg/csi_driver/node.go",
        csi(GCS, "atlas"),
        inline(GCS, bucketName="_"),
    ),
    "gcsfuse decoy attribute": (
        "GoogleCloudPlatform/gcs-fuse-csi-driver pkg/csi_driver/utils.go parseRequestArguments",
        csi(GCS, "atlas"),
        csi(GCS, "atlas:2", bucketName="harmless"),
    ),
    "gcsfuse inline": (
        "GoogleCloudPlatform/gcs-fuse-csi-driver pkg/csi_driver/utils.go",
        csi(GCS, "atlas"),
        inline(GCS, bucketName="atlas"),
    ),
    "lustre gke": (
        "GoogleCloudPlatform/lustre-csi-driver pkg/csi_driver/node.go NodeStageVolume",
        csi("lustre.csi.storage.gke.io", "p/l/i", ip="10.0.0.1", filesystem="fs"),
        csi("lustre.csi.storage.gke.io", "other", mountPoint="10.0.0.1@tcp:/fs"),
    ),
    "lustre azure": (
        "kubernetes-sigs/azurelustre-csi-driver pkg/azurelustre/nodeserver.go newLustreVolume",
        csi("azurelustre.csi.azure.com", "one", **{"mgs-ip-address": "10.0.0.1", "fs-name": "lustrefs"}),
        csi(
            "azurelustre.csi.azure.com", "two", **{"MGS-IP-Address": "0x0a.1", "fs-name": "x", "sub-dir": "a"}
        ),
    ),
    "weka parent": (
        "weka/csi-wekafs pkg/wekafs/utilities.go sliceInnerPathFromVolumeId",
        csi("csi.weka.io", "dir/v1/fs/models"),
        csi("csi.weka.io", "weka/v2/fs"),
    ),
    "weka snapshot": (
        "weka/csi-wekafs pkg/wekafs/utilities.go sliceFilesystemNameFromVolumeId",
        csi("csi.weka.io", "weka/v2/fs"),
        csi("csi.weka.io", "weka/v2/fs:snap/models"),
    ),
    "beegfs parent": (
        "ThinkParQ/beegfs-csi-driver pkg/beegfs/beegfs_util.go parseBeegfsURL",
        csi("beegfs.csi.netapp.com", "beegfs://10.0.0.1/k8s/atlas"),
        csi("beegfs.csi.netapp.com", "beegfs://10.1/%6b8s/"),
    ),
    "scale path": (
        "IBM/ibm-spectrum-scale-csi driver/csiplugin/gpfs_util.go getVolIDMembers",
        csi("spectrumscale.csi.ibm.com", "0;2;11;AC1;;pvc;/ibm/fs1/atlas"),
        csi("spectrumscale.csi.ibm.com", "11;AC1;path=/ibm/fs1//atlas/70b"),
    ),
    "powerscale": (
        "dell/csi-powerscale service/node.go NodePublishVolume",
        csi(
            "csi-isilon.dellemc.com",
            "a=_=_=1=_=_=System=_=_=c1",
            Path="/ifs/atlas",
            AzServiceIP="10.0.0.5",
            Name="a",
        ),
        csi(
            "csi-isilon.dellemc.com",
            "b=_=_=2=_=_=System=_=_=c1",
            Path="/ifs/atlas/",
            AzServiceIP="10.5",
            Name="b",
        ),
    ),
    "powerscale as nfs": (
        "dell/csi-powerscale service/isiService.go GetNFSExportURLForPath",
        csi(
            "csi-isilon.dellemc.com",
            "a=_=_=1=_=_=System=_=_=c1",
            Path="/ifs/atlas",
            AzServiceIP="10.0.0.5",
            Name="a",
        ),
        nfs("10.0.0.5", "/ifs"),
    ),
    "exascaler": (
        "DDNStorage/exa-csi-driver README.md static volumes",
        csi("exa.csi.ddn.com", "exa1:10.3.3.200@tcp;/exaFS:/mnt:/atlas"),
        csi("exa.csi.ddn.com", "exa2:10.3.3.200@tcp;/exaFS:/other:/atlas/70b"),
    ),
    "exascaler as lustre": (
        "DDNStorage/exa-csi-driver README.md static volumes",
        csi("exa.csi.ddn.com", "exa1:10.3.3.200@tcp;/exaFS:/mnt:/atlas"),
        csi("fsx.csi.aws.com", "fs-1", dnsname="10.3.3.200", mountname="exaFS"),
    ),
    "juicefs": (
        "juicedata/juicefs-csi-driver pkg/driver/node.go NodePublishVolume",
        csi("csi.juicefs.com", "one", secret="fs"),
        csi("csi.juicefs.com", "two", secret="fs", options=["subdir=/a"]),
    ),
    "rbd static of dynamic": (
        "ceph/ceph-csi internal/rbd/nodeserver.go populateRbdVol",
        csi("rbd.csi.ceph.com", CEPH, clusterID=CLUSTER, pool="kube", imageName=f"csi-vol-{UUID}"),
        csi("rbd.csi.ceph.com", f"csi-vol-{UUID}", staticVolume="true", clusterID=CLUSTER, pool="kube"),
    ),
    "rbd prefixed driver": (
        "ceph/ceph-csi internal/rbd/nodeserver.go populateRbdVol",
        csi("rook-ceph.rbd.csi.ceph.com", "i", staticVolume="true", clusterID="c", pool="p"),
        {"rbd": {"monitors": ["10.0.0.1:6789"], "pool": "p", "image": "i"}},
    ),
    "cephfs prefixed driver": (
        "ceph/ceph-csi internal/cephfs/store/volumeoptions.go NewVolumeOptionsFromStaticVolume",
        csi(
            "openshift-storage.cephfs.csi.ceph.com",
            "a",
            staticVolume="true",
            clusterID="c",
            fsName="f",
            rootPath="/w/a",
        ),
        csi("cephfs.csi.ceph.com", "b", staticVolume="true", clusterID="c", fsName="f", rootPath="/w"),
    ),
    "cephfs in tree": (
        "ceph/ceph-csi internal/cephfs/store/volumeoptions.go",
        csi("cephfs.csi.ceph.com", "a", staticVolume="true", clusterID="c", rootPath="/w/a"),
        {"cephfs": {"monitors": ["10.0.0.1"], "path": "/w/a"}},
    ),
    "alibaba nas": (
        "kubernetes-sigs/alibaba-cloud-csi-driver pkg/nas/nodeserver.go parseVolumeContext",
        csi("nasplugin.csi.alibabacloud.com", "a", server="x.cn-hangzhou.nas.aliyuncs.com", path="/atlas"),
        nfs("X.cn-hangzhou.nas.aliyuncs.com.", "/atlas"),
    ),
    "alibaba oss endpoints": (
        "kubernetes-sigs/alibaba-cloud-csi-driver pkg/oss/utils.go parseOptions",
        csi("ossplugin.csi.alibabacloud.com", "a", bucket="atlas", url="oss-cn-hangzhou.aliyuncs.com"),
        csi(
            "ossplugin.csi.alibabacloud.com",
            "b",
            bucket="atlas",
            url="oss-cn-hangzhou-internal.aliyuncs.com",
            path="/x",
        ),
    ),
    "hub": (
        "huggingface/hf-csi-driver pkg/driver/node.go NodePublishVolume",
        csi("hf.csi.huggingface.co", "a", sourceType="repo", sourceId="org/atlas"),
        inline("hf.csi.huggingface.co", sourceType="repo", sourceId="Org/Atlas", revision="main"),
    ),
    "nfs csi": (
        "kubernetes-csi/csi-driver-nfs pkg/nfs/nodeserver.go NodePublishVolume",
        nfs("10.0.0.9", "/export/atlas"),
        csi("nfs.csi.k8s.io", "h", Server="10.0.0.9", share="/export", subDir="atlas/x"),
    ),
    "nfs csi template": (
        "kubernetes-csi/csi-driver-nfs pkg/nfs/utils.go replaceWithMap",
        nfs("10.0.0.9", "/export/atlas"),
        csi(
            "nfs.csi.k8s.io",
            "h",
            server="10.0.0.9",
            share="/export",
            subDir="${pvc.metadata.name}",
            **{"csi.storage.k8s.io/pvc/name": "atlas"},
        ),
    ),
    "nfs ganesha of ceph": (
        "ceph/ceph-csi internal/nfs/nodeserver/nodeserver.go NodePublishVolume",
        nfs("10.0.0.9", "/export"),
        csi("x.nfs.csi.ceph.com", "h", server="10.0.0.9", share="/export/a"),
    ),
    "democratic nfs": (
        "democratic-csi/democratic-csi src/driver/index.js NodeStageVolume",
        nfs("10.0.0.9", "/export/atlas"),
        csi("org.democratic-csi.nfs", "h", node_attach_driver="nfs", server="10.0.0.9", share="/export"),
    ),
    "democratic iscsi": (
        "democratic-csi/democratic-csi src/driver/index.js NodeStageVolume",
        {"iscsi": {"targetPortal": "10.0.0.9:3260", "iqn": "iqn.2026-11.x:a", "lun": 0}},
        csi(
            "truenas.example",
            "h",
            node_attach_driver="iscsi",
            portal="10.9:3260",
            iqn="IQN.2026-11.x:a",
            lun="00",
        ),
    ),
    "iscsi csi": (
        "kubernetes-csi/csi-driver-iscsi pkg/iscsi/iscsi.go getISCSIInfo",
        {"iscsi": {"targetPortal": "10.0.0.9:3260", "iqn": "iqn.2026-11.x:a", "lun": 3}},
        csi("iscsi.csi.k8s.io", "h", targetPortal="10.0.0.10:3260", iqn="iqn.2026-11.x:a", lun="3"),
    ),
    "openzfs": (
        "kubernetes-sigs/aws-fsx-openzfs-csi-driver pkg/driver/node.go NodePublishVolume",
        nfs("fs-1.fsx.eu-west-1.amazonaws.com", "/fsx/atlas"),
        csi(
            "fsx.openzfs.csi.aws.com",
            "fs-1",
            DNSName="fs-1.fsx.eu-west-1.amazonaws.com",
            ResourceType="filesystem",
        ),
    ),
    "oci fss": (
        "oracle/oci-cloud-controller-manager pkg/csi-util/utils.go ValidateFssId",
        nfs("10.0.0.9", "/atlas"),
        csi("fss.csi.oraclecloud.com", "ocid1.fs:10.0.0.9:/atlas"),
    ),
    "oci fss other export": (
        "oracle/oci-cloud-controller-manager pkg/csi-util/utils.go ValidateFssId",
        csi("fss.csi.oraclecloud.com", "ocid1.fs:10.0.0.9:/atlas"),
        csi("fss.csi.oraclecloud.com", "ocid1.fs:mt.x.y:/b"),
    ),
    "vast": (
        "vast-data/vast-csi vast_csi/server.py NodePublishVolume",
        csi("csi.vastdata.com", "atlas", root_export="/k8s"),
        csi("csi.vastdata.com", "x", schema="2", export_path="/k8s"),
    ),
    "efs": (
        "kubernetes-sigs/aws-efs-csi-driver pkg/driver/node.go parseVolumeId",
        csi("efs.csi.aws.com", "fs-0a1:/models"),
        csi("efs.csi.aws.com", "efs:fs-0a1:/models/../models/a"),
    ),
    "fsx default name": (
        "kubernetes-sigs/aws-fsx-csi-driver pkg/driver/node.go NodePublishVolume",
        csi("fsx.csi.aws.com", "a", dnsname="fs-1.fsx.x", mountname="fsx"),
        csi("fsx.csi.aws.com", "b", dnsname="FS-1.fsx.x."),
    ),
    "blob attributes win": (
        "kubernetes-sigs/blob-csi-driver pkg/blob/blob.go GetAuthEnv",
        csi("blob.csi.azure.com", "rg#acct#atlas"),
        csi("blob.csi.azure.com", "rg#acct#decoy", containerName="ATLAS", storageAccount="Acct"),
    ),
    "azure file by smb": (
        "kubernetes-csi/csi-driver-smb pkg/smb/nodeserver.go NodeStageVolume",
        csi("file.csi.azure.com", "rg#acct#atlas#"),
        csi("smb.csi.k8s.io", "h", source="//acct.file.core.windows.net/Atlas"),
    ),
    "mountpoint": (
        "awslabs/mountpoint-s3-csi-driver pkg/driver/node/node.go NodePublishVolume",
        csi("s3.csi.aws.com", "a", bucketName="atlas"),
        csi("ru.yandex.s3.csi", "atlas/x"),
    ),
    "oss through an s3 driver": (
        "awslabs/mountpoint-s3-csi-driver pkg/driver/node/node.go NodePublishVolume",
        csi("ossplugin.csi.alibabacloud.com", "a", bucket="atlas"),
        csi(
            "s3.csi.aws.com",
            "b",
            bucketName="atlas",
            options=["endpoint-url https://oss-cn-hangzhou.aliyuncs.com"],
        ),
    ),
    "fluid": (
        "fluid-cloudnative/fluid pkg/csi/plugins/nodeserver.go NodePublishVolume",
        csi("fuse.csi.fluid.io", "a", fluid_path="/runtime-mnt/alluxio/ml/atlas/alluxio-fuse"),
        csi("fuse.csi.fluid.io", "b", fluid_path="/runtime-mnt/alluxio/ml/", fluid_sub_path="atlas"),
    ),
    "cubefs": (
        "cubefs/cubefs-csi pkg/cubefs/cfs_server.go newCfsServer",
        csi("csi.cubefs.com", "atlas", masterAddr="10.0.0.1:17010,10.0.0.2:17010"),
        csi("csi.cubefs.com", "x", volName="atlas", masterAddr="10.2:17010"),
    ),
}


@pytest.mark.parametrize(("source", "declarations", "alias"), SAME.values(), ids=SAME)
def test_an_alias_is_the_same_storage(source, declarations, alias):
    """Both volumes mount the same files, according to the driver's source."""
    assert source
    one, other = (backend_of(volume, "spec", inline="name" in volume) for volume in (declarations, alias))
    assert related(one.locations, other.locations) is Relation.SAME
    assert other.certain


OTHER = {
    "gcsfuse": (csi(GCS, "atlas"), csi(GCS, "photos:x")),
    "gcsfuse decoy": (csi(GCS, "atlas"), csi(GCS, "photos", bucketName="atlas")),
    "gcsfuse directory": (
        csi(GCS, "b", options=["only-dir=atlas"]),
        csi(GCS, "b:2", options=["only-dir=photos"]),
    ),
    "lustre": (
        csi("lustre.csi.storage.gke.io", "a", ip="10.0.0.1", filesystem="fs"),
        csi("lustre.csi.storage.gke.io", "b", ip="10.0.0.1", filesystem="fs2"),
    ),
    "weka": (csi("csi.weka.io", "dir/v1/fs/models"), csi("csi.weka.io", "dir/v1/fs/photos")),
    "beegfs": (csi("beegfs.csi.netapp.com", "beegfs://a/x"), csi("beegfs.csi.netapp.com", "beegfs://a/y")),
    "cephfs file system": (
        csi("cephfs.csi.ceph.com", "a", staticVolume="true", clusterID="c", fsName="f", rootPath="/w"),
        csi("cephfs.csi.ceph.com", "b", staticVolume="true", clusterID="c", fsName="g", rootPath="/w"),
    ),
    "rbd": (
        csi("rbd.csi.ceph.com", "i", staticVolume="true", clusterID="c", pool="p"),
        csi("rbd.csi.ceph.com", "j", staticVolume="true", clusterID="c", pool="p"),
    ),
    "nfs": (nfs("10.0.0.9", "/export/atlas"), nfs("10.0.0.9", "/export/atlas2")),
    "iscsi": (
        {"iscsi": {"targetPortal": "a", "iqn": "iqn.x", "lun": 0}},
        csi("iscsi.csi.k8s.io", "h", targetPortal="a", iqn="iqn.x", lun="1"),
    ),
    "efs": (csi("efs.csi.aws.com", "fs-0a1"), csi("efs.csi.aws.com", "fs-0a2")),
    "blob": (csi("blob.csi.azure.com", "rg#acct#atlas"), csi("blob.csi.azure.com", "rg#acct#photos")),
    "mountpoint": (
        csi("s3.csi.aws.com", "a", bucketName="atlas"),
        csi("s3.csi.aws.com", "b", bucketName="photos"),
    ),
    "mountpoint prefix": (
        csi("s3.csi.aws.com", "a", bucketName="b", options=["prefix atlas/"]),
        csi("s3.csi.aws.com", "b", bucketName="b", options=["--prefix photos/"]),
    ),
    "hub": (
        csi("hf.csi.huggingface.co", "a", sourceType="repo", sourceId="org/atlas"),
        csi("hf.csi.huggingface.co", "b", sourceType="repo", sourceId="org/photos"),
    ),
}


@pytest.mark.parametrize(("declarations", "candidate"), OTHER.values(), ids=OTHER)
def test_other_storage_of_the_same_driver_is_proven(declarations, candidate):
    one, other = backend_of(declarations, "spec"), backend_of(candidate, "spec")
    assert related(one.locations, other.locations) is Relation.OTHER
    assert other.certain


VAST, AZURE_FILE, AZURE_BLOB = "csi.vastdata.com", "file.csi.azure.com", "blob.csi.azure.com"

# A second volume that looks like other storage, and mounts the same: (source, declared volume, decoy).
DECOYS = {
    "azure file: the account in a Secret wins": (
        "kubernetes-sigs/azurefile-csi-driver pkg/azurefile/azurefile.go GetAccountInfo",
        csi(AZURE_FILE, "rg#acct#atlas#"),
        staged("keys", csi(AZURE_FILE, "x", shareName="atlas", storageAccount="other")),
    ),
    "azure file: the account in a named Secret wins": (
        "kubernetes-sigs/azurefile-csi-driver pkg/azurefile/azurefile.go GetAccountInfo",
        csi(AZURE_FILE, "rg#acct#atlas#"),
        csi(AZURE_FILE, "rg#other#atlas#", secretName="keys", secretNamespace="storage"),
    ),
    "azure blob: the account in a Secret wins": (
        "kubernetes-sigs/blob-csi-driver pkg/blob/blob.go GetAuthEnv",
        csi(AZURE_BLOB, "rg#acct#atlas"),
        staged("keys", csi(AZURE_BLOB, "x", containerName="atlas", storageAccount="other")),
    ),
    "azure blob: the endpoint wins with a SAS token": (
        "kubernetes-sigs/blob-csi-driver pkg/blob/nodeserver.go NodeStageVolume",
        csi(AZURE_BLOB, "rg#acct#atlas"),
        csi(
            AZURE_BLOB,
            "x",
            containerName="atlas",
            storageAccount="other",
            server="acct.blob.core.windows.net",
        ),
    ),
    "azure blob as a client of any NFS server": (
        "kubernetes-sigs/blob-csi-driver pkg/blob/nodeserver.go NodeStageVolume",
        nfs("nas.example.com", "/exports/atlas"),
        csi(
            AZURE_BLOB,
            "x",
            protocol="nfs",
            server="nas.example.com",
            storageAccount="exports",
            containerName="atlas",
        ),
    ),
    "vast: schema 1 ignores export_path": (
        "vast-data/vast-csi vast_csi/server.py NodePublishVolume",
        csi(VAST, "atlas", root_export="/k8s"),
        csi(VAST, "k8s/atlas", root_export="/", export_path="/photos"),
    ),
    "vast: the path of a snapshot": (
        "vast-data/vast-csi vast_csi/server.py ControllerPublishVolume",
        csi(VAST, "atlas", root_export="/k8s"),
        csi(VAST, "photos", root_export="/k8s", snapshot_base_path="atlas/.snapshot/one"),
    ),
    "vast: a key in another case is not read": (
        "vast-data/vast-csi vast_csi/server.py NodePublishVolume",
        csi(VAST, "atlas", root_export="/k8s"),
        csi(VAST, "k8s/atlas", root_export="/", Schema="2", export_path="/photos"),
    ),
    "fsx: a key in another case is not read": (
        "kubernetes-sigs/aws-fsx-csi-driver pkg/driver/node.go NodePublishVolume",
        csi("fsx.csi.aws.com", "fs-1", dnsname="fs-1.fsx.us-east-1.amazonaws.com"),
        csi("fsx.csi.aws.com", "x", dnsname="fs-1.fsx.us-east-1.amazonaws.com", MountName="zz"),
    ),
    "cephfs: a key in another case is not read": (
        "ceph/ceph-csi internal/cephfs/store/volumeoptions.go NewVolumeOptionsFromStaticVolume",
        csi("cephfs.csi.ceph.com", "a", staticVolume="true", fsName="f", rootPath="/w"),
        csi("cephfs.csi.ceph.com", "b", staticVolume="true", FsName="g", rootPath="/w"),
    ),
    "cephfs: the file system in a mount option": (
        "ceph/ceph-csi internal/cephfs/mounter/fuse.go mountFuse",
        csi("cephfs.csi.ceph.com", "a", staticVolume="true", fsName="f", rootPath="/w"),
        csi(
            "cephfs.csi.ceph.com",
            "b",
            staticVolume="true",
            fsName="g",
            rootPath="/w",
            fuseMountOptions="client_fs=f",
        ),
    ),
    "smb: a path in a mount option": (
        "kubernetes-csi/csi-driver-smb pkg/smb/nodeserver.go NodeStageVolume, mount.cifs(8)",
        csi("smb.csi.k8s.io", "a", source="//nas.example.com/atlas"),
        csi("smb.csi.k8s.io", "b", source="//nas.example.com/photos", options=["prefixpath=../atlas"]),
    ),
    "exascaler: a mount point that another volume mounted": (
        "DDNStorage/exa-csi-driver README.md, static volumes",
        csi("exa.csi.ddn.com", "a:10.0.0.1@tcp;/fs:/mnt:/atlas"),
        csi("exa.csi.ddn.com", "b:10.0.0.2@tcp;/other:/mnt:/atlas"),
    ),
    "rclone: the path in two parts": (
        "wunderio/csi-rclone pkg/rclone/nodeserver.go extractFlags",
        csi("csi-rclone", "a", remote="s3", remotePath="bucket/atlas"),
        csi("csi-rclone", "b", remote="s3", remotePath="bucket/at", remotePathSuffix="las"),
    ),
    "rclone: a configuration of its own": (
        "wunderio/csi-rclone pkg/rclone/nodeserver.go extractFlags",
        csi("csi-rclone", "a", remote="s3", remotePath="bucket/atlas"),
        csi("csi-rclone", "b", remote="x", remotePath="y", configData="[x]\ntype = alias"),
    ),
    "efs by the address of a mount target": (
        "kubernetes-sigs/aws-efs-csi-driver docs/README.md, cross-account mounts",
        csi("efs.csi.aws.com", "fs-0a1:/atlas"),
        nfs("10.0.0.9", "/"),
    ),
    "longhorn by its share manager": (
        "longhorn/longhorn-manager csi/node_server.go NodeStageVolume",
        csi("driver.longhorn.io", "pvc-1"),
        nfs("10.43.0.7", "/pvc-1"),
    ),
    "efs by the option mounttargetip": (
        "aws/efs-utils src/mount_efs/__init__.py get_dns_name_and_fallback_mount_target_ip_address",
        nfs("10.0.0.9", "/atlas"),
        csi("efs.csi.aws.com", "fs-0a2:/atlas", options=["mounttargetip=10.0.0.9"]),
    ),
    "portworx by its name": (
        "libopenstorage/openstorage csi/node.go NodePublishVolume",
        csi("pxd.portworx.com", "123456789"),
        csi("pxd.portworx.com", "atlas"),
    ),
    "vsphere by its path": (
        "kubernetes-sigs/vsphere-csi-driver pkg/csi/service/node.go NodeStageVolume",
        csi("csi.vsphere.vmware.com", UUID),
        {"vsphereVolume": {"volumePath": "[datastore] kubevols/atlas.vmdk"}},
    ),
    "mountpoint by an object lambda": (
        "awslabs/mountpoint-s3-csi-driver pkg/driver/node/node.go NodePublishVolume",
        csi("s3.csi.aws.com", "a", bucketName="atlas"),
        csi("s3.csi.aws.com", "b", bucketName="point-abc--ol-s3"),
    ),
    "rclone on the fly": (
        "wunderio/csi-rclone pkg/rclone/nodeserver.go NodePublishVolume",
        csi("csi-rclone", "a", remote="s3", remotePath="atlas"),
        csi("csi-rclone", "b", remote=":alias,remote=s3:", remotePath="x"),
    ),
    "trident by the export": (
        "NetApp/trident storage_drivers/ontap/ontap_nas.go",
        csi("csi.trident.netapp.io", "pvc-1", internalName="trident_pvc_1"),
        nfs("svm.example.com", "/trident_pvc_1"),
    ),
}


@pytest.mark.parametrize(("source", "declarations", "decoy"), DECOYS.values(), ids=DECOYS)
def test_a_decoy_is_never_proven_to_be_other_storage(source, declarations, decoy):
    """The driver's source mounts the declared storage, whatever the decoy's other fields say."""
    assert source
    one, other = backend_of(declarations, "spec"), backend_of(decoy, "spec")
    assert related(one.locations, other.locations) is not Relation.OTHER or not other.certain


UNLISTED = {
    "server and directory": (
        nfs("10.0.0.9", "/export/atlas"),
        csi("x.io", serverAddress="10.9", exportDir="/export/atlas"),
    ),
    "export": (
        nfs("10.0.0.9", "/export/atlas"),
        csi("x.io", **{"everest.io/share-export-location": "10.0.0.9:/export"}),
    ),
    "handle": (nfs("10.0.0.9", "/export/atlas"), csi("x.io", "v1:10.0.0.9:/export/atlas//x")),
    "server in the handle": (nfs("10.0.0.9", "/export/atlas"), csi("x.io", "10.0.0.9#export/atlas#x")),
    "lustre": (
        csi("fsx.csi.aws.com", "a", dnsname="10.0.0.1", mountname="fs"),
        csi("x.io", "10.0.0.1@tcp:/fs"),
    ),
    "target": (
        {"iscsi": {"targetPortal": "a", "iqn": "iqn.2001-04.com.x:a", "lun": 1}},
        csi("x.io", target="iqn.2001-04.com.x:a", lun="1"),
    ),
    "bucket": (csi("s3.csi.aws.com", "a", bucketName="atlas"), csi("x.io", **{"s3.bucket": "atlas"})),
    "bucket of an option": (
        csi("s3.csi.aws.com", "a", bucketName="atlas"),
        csi("x.io", options=["--bucket atlas"]),
    ),
    "address": (csi("s3.csi.aws.com", "a", bucketName="atlas"), csi("x.io", "s3://atlas/x")),
    "bucket in the handle": (csi("s3.csi.aws.com", "a", bucketName="atlas"), csi("csi-s3.x.io", "atlas/x")),
    "bucket by its ID": (csi("gcsfuse.csi.storage.gke.io", "atlas"), csi("x.io", bucketId="atlas")),
    "address of an export": (nfs("10.0.0.9", "/export/atlas"), csi("x.io", "nfs://10.9/export")),
    "export behind a port": (nfs("10.0.0.9", "/export/atlas"), csi("x.io", "v1:10.9:8000//export//atlas")),
    "export with a query": (
        nfs("10.0.0.9", "/export/atlas"),
        csi("x.io", source="10.9:/export/atlas?vers=4"),
    ),
    "directory in the handle": (nfs("10.0.0.9", "/export/atlas"), csi("x.io", "/export/atlas")),
    "target without a LUN": (
        {"iscsi": {"targetPortal": "a", "iqn": "iqn.2001-04.com.x:a", "lun": 1}},
        csi("x.io", target="iqn.2001-04.com.x:a"),
    ),
    "subsystem": (
        csi("org.democratic-csi.nvme", node_attach_driver="nvmeof", nqn="nqn.2014-08.org.x:uuid:a", nsid="1"),
        csi("x.io", nqn="nqn.2014-08.org.x:uuid:A"),
    ),
}


@pytest.mark.parametrize(("declarations", "alias"), UNLISTED.values(), ids=UNLISTED)
def test_values_of_an_unlisted_driver_name_storage_by_their_form(declarations, alias):
    one, other = backend_of(declarations, "spec"), backend_of(alias, "spec")
    assert related(one.locations, other.locations) is not Relation.OTHER


@pytest.mark.parametrize(
    "volume",
    [
        csi("x.io", "pvc-1", pool="p", type="ssd", zone="a"),
        csi("x.io", "zone-a/disk-1"),
        csi("x.io", server="10.0.0.10", share="/other"),
    ],
)
def test_other_values_of_an_unlisted_driver_name_other_storage(volume):
    one = backend_of(nfs("10.0.0.9", "/export/atlas"), "spec")
    assert related(one.locations, backend_of(volume, "spec").locations) is Relation.OTHER


def test_a_fibre_channel_disk_is_possibly_the_same_behind_another_port():
    one = backend_of({"fc": {"targetWWNs": ["50:06:0e:80:10:49:cf:d1"], "lun": 0}}, "spec").locations
    relations = [
        related(one, backend_of({"fc": source}, "spec").locations)
        for source in (
            {"targetWWNs": ["50060E801049CFD1"], "lun": 0},
            {"targetWWNs": ["50060e801049cfd2"], "lun": 0},
            {"wwids": ["3600508b400105e210000900000490000"]},
            {"targetWWNs": ["50060e801049cfd1"], "lun": 1},
        )
    ]
    assert relations == [Relation.SAME, Relation.POSSIBLE, Relation.POSSIBLE, Relation.OTHER]


@pytest.mark.parametrize(
    "option",
    [
        "hard",
        "nfsvers=4.1",
        "rsize=1048576",
        "actimeo=30",
        "timeo=600",
        "sec=krb5p",
        "cache=strict",
        "file_mode=0777",
    ],
)
def test_options_that_name_no_storage_are_harmless(option):
    assert backend_of(nfs("10.0.0.9", "/x") | {"mountOptions": [option]}, "spec").certain


@pytest.mark.parametrize(
    "option",
    ["addr=10.0.0.8", "mounthost=10.0.0.8", "remoteports=10.0.0.8-10.0.0.9", "newoption=10.0.0.8", "bind"],
)
def test_options_that_may_name_storage_make_a_volume_uncertain(option):
    assert not backend_of(nfs("10.0.0.9", "/x") | {"mountOptions": [option]}, "spec").certain


def test_paths_of_the_node_that_belong_to_a_driver_are_not_exposed():
    fluid = "fuse.csi.fluid.io"
    own = backend_of(csi(fluid, fluid_path="/runtime-mnt/juicefs/ml/data"), "spec")
    other = backend_of(csi(fluid, fluid_path="/runtime-mnt/../etc"), "spec")
    local = backend_of(csi("csi-rclone", remote=":local", remotePath="/etc"), "spec")
    assert list(own.node_paths) == ["/runtime-mnt/juicefs/ml/data"]
    assert list(own.exposed_paths) == []
    assert list(other.exposed_paths) == list(local.exposed_paths) == ["/etc"]


def test_driver_names_carry_prefixes():
    assert driver_of("openshift-storage.rbd.csi.ceph.com") is DRIVERS["rbd.csi.ceph.com"]
    assert driver_of("evil-rbd.csi.ceph.com.example.com") is None
    assert driver_of("org.democratic-csi.iscsi") is DRIVERS["org.democratic-csi.*"]
    assert driver_of("second.csi.weka.io") is DRIVERS["csi.weka.io"]


def test_driver_names_carry_numbers():
    assert driver_of("nfs2.csi.k8s.io") is DRIVERS["nfs.csi.k8s.io"]
    assert driver_of("blob-2.csi.azure.com") is DRIVERS["blob.csi.azure.com"]
    assert driver_of("nfs2.csi.example.com") is None


@pytest.mark.parametrize("source", [{"image": "a"}, {"image": "a@snapshot"}, {"image": "space/a@snapshot"}])
def test_a_snapshot_of_an_image_holds_its_data(source):
    """ceph/ceph-csi and the in-tree driver pass the name to rbd, which takes [namespace/]image[@snapshot]."""
    one = backend_of(csi("rbd.csi.ceph.com", "a", pool="p", clusterID="c", staticVolume="true"), "spec")
    other = backend_of({"rbd": {"monitors": ["m"], "pool": "p", **source}}, "spec")
    assert related(one.locations, other.locations) is Relation.SAME


def test_a_share_whose_export_is_unknown_may_be_any_export_but_proves_none():
    """kubernetes/cloud-provider-openstack pkg/csi/manila, ceph/ceph-csi internal/nfs."""
    export, plain = nfs("10.0.0.9", "/export"), csi("cephfs.csi.ceph.com", "a", fsName="f", rootPath="/a")
    for declared, driver in (
        (export, "nfs.manila.csi.openstack.org"),
        (plain, "cephfs.manila.csi.openstack.org"),
        (plain, "nfs.csi.ceph.com"),
    ):
        share = csi(driver, "s", shareID="1", server="10.0.0.8", share="/1")
        one, other = backend_of(declared, "spec").locations, backend_of(share, "spec").locations
        assert related(one, other) is Relation.POSSIBLE
        assert related(other, one) is Relation.OTHER


@pytest.mark.parametrize(
    "volume",
    [
        csi("nfs.csi.k8s.io", "h", server="10.0.0.9"),
        csi("nfs.csi.k8s.io", "h", server="10.0.0.9", SERVER="10.0.0.10", share="/x"),
        csi("nfs.csi.k8s.io", "h", server="10.0.0.9", share="/x", mountOptions="addr=10.0.0.8"),
        csi("blob.csi.azure.com", "rg#a#c", options=["--container-name=atlas"]),
        csi("ossplugin.csi.alibabacloud.com", "a", bucket="x", otherOpts="-o max_stat_cache_size=0 -o url=y"),
        csi("nasplugin.csi.alibabacloud.com", "a", server="x", containerNetworkFileSystem="cnfs"),
        csi("driver.longhorn.io", "v", fromBackup="s3://b@r/x?backup=1"),
        csi("spectrumscale.csi.ibm.com", "x;y"),
        csi("beegfs.csi.netapp.com", "beegfs://[/x"),
        csi("unknown.example.com", "v", server="x"),
    ],
)
def test_a_volume_that_its_entry_cannot_identify_is_uncertain(volume):
    assert not backend_of(volume, "spec").certain


def test_every_driver_cites_its_source():
    for name, entry in DRIVERS.items():
        repository, _, file = entry.source.partition(" ")
        assert repository.count("/") == 1, name
        assert "/" in file or file.startswith("README"), name
        assert entry.spaces, name


def test_the_mount_pod_of_juicefs_gets_paths_of_the_node():
    """juicedata/juicefs-csi-driver pkg/config/config.go: host-path is a list, and mount-image runs privileged."""
    plain = backend_of(csi("csi.juicefs.com", "a", secret="fs"), "spec")
    assert list(plain.exposed_paths) == []
    paths = backend_of(
        csi("csi.juicefs.com", "a", secret="fs", **{"juicefs/host-path": "/data, /etc/../root"}), "spec"
    )
    assert list(paths.exposed_paths) == ["/data", "/root"]
    image = backend_of(csi("csi.juicefs.com", "a", secret="fs", **{"juicefs/mount-image": "x"}), "spec")
    assert list(image.exposed_paths) == ["/"]
    resources = {"juicefs/mount-cpu-limit": "1", "juicefs/mount-cache-pvc": "cache"}
    assert list(backend_of(csi("csi.juicefs.com", "a", secret="fs", **resources), "spec").exposed_paths) == []
