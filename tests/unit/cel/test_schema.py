"""The typed variables agree with Kubernetes' own source and with what core hands over."""

from google.protobuf import descriptor_pb2

from webhook.cel import schema
from webhook.core.facts.model import DeviceUse, Escape, WeightUse


def fields(name):
    return set(schema.descriptors().FindMessageTypeByName(name).fields_by_name)


def test_request_has_the_fields_of_build_request_type():
    assert fields("kubernetes.AdmissionRequest") == {
        "kind", "resource", "subResource", "requestKind", "requestResource", "requestSubResource", "name", "namespace",
        "operation", "userInfo", "dryRun", "options",
    }  # fmt: skip
    assert set(schema.REQUEST_FIELDS) == fields("kubernetes.AdmissionRequest")


def test_namespace_has_the_fields_of_build_namespace_type():
    assert fields("kubernetes.NamespaceMetadata") == {
        "name", "generateName", "namespace", "labels", "annotations", "UID", "creationTimestamp",
        "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "resourceVersion", "finalizers",
    }  # fmt: skip


def test_the_facts_have_exactly_the_declared_fields():
    assert fields("weightlock.Weight") == set(WeightUse("m", "s", "v", "via").as_cel())
    assert fields("weightlock.Device") == set(DeviceUse("v", "r", 1, "via").as_cel())
    assert fields("weightlock.Escape") == set(Escape("k", "p").as_cel())


def test_other_files_join_the_pool():
    file = descriptor_pb2.FileDescriptorProto(name="x.proto", package="x", syntax="proto3")
    file.message_type.add(name="Opaque")
    assert schema.descriptors([file]).FindMessageTypeByName("x.Opaque").full_name == "x.Opaque"
