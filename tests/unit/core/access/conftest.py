"""Builders for requests and approvals as the API server stores them."""

import copy
from datetime import UTC, datetime, timedelta

import pytest

from webhook.api.access import AccessApproval, AccessRequest
from webhook.api.base import API_VERSION
from webhook.api.modelweights import ModelWeights
from webhook.core.kube.review import AdmissionRequest, GroupVersionName, UserInfo
from webhook.core.kube.time import format_time

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


class Story:
    """Short words for the objects of one test; times are minutes after `START`."""

    start = START

    @staticmethod
    def model(
        name="atlas", approvals=2, groups=("approvers",), users=("root-cat",), **access
    ) -> ModelWeights:
        access = {
            "approvals": approvals,
            "approvers": {"groups": list(groups), "users": list(users)},
            "maxDuration": "12h",
            **access,
        }
        spec = {
            "sensitivity": "frontier",
            "volumes": [{"nfs": {"server": "s", "path": "/p"}}],
            "access": access,
        }
        return ModelWeights.model_validate(
            {"apiVersion": API_VERSION, "kind": "ModelWeights", "metadata": {"name": name}, "spec": spec}
        )

    @staticmethod
    def at(minutes: float) -> datetime:
        return START + timedelta(minutes=minutes)

    def request(
        self, name="r1", at=0, by="alice", by_uid="", by_groups=(), uid=None, **spec
    ) -> AccessRequest:
        body = {
            "model": "atlas",
            "subject": {"kind": "ServiceAccount", "namespace": "research", "name": "trainer"},
            "namespaces": ["research"],
            "duration": "8h",
            "reason": "evals",
            "requester": {"username": by, "uid": by_uid, "groups": list(by_groups)},
        }
        if "change" in spec or "waiver" in spec:
            for key in ("model", "subject", "namespaces"):
                del body[key]
        body.update(spec)
        metadata = {
            "name": name,
            "uid": f"uid-{name}" if uid is None else uid,
            "creationTimestamp": format_time(self.at(at)),
        }
        return AccessRequest.model_validate(
            {"apiVersion": API_VERSION, "kind": "AccessRequest", "metadata": metadata, "spec": body}
        )

    def approval(
        self,
        name,
        at=1,
        by="bob",
        by_uid="",
        by_groups=("approvers",),
        request="r1",
        uid=None,
        decision="Approve",
    ) -> AccessApproval:
        return AccessApproval.model_validate(
            {
                "apiVersion": API_VERSION,
                "kind": "AccessApproval",
                "metadata": {
                    "name": name,
                    "uid": f"uid-{name}",
                    "creationTimestamp": format_time(self.at(at)),
                },
                "spec": {
                    "request": {"name": request, "uid": f"uid-{request}" if uid is None else uid},
                    "decision": decision,
                    "approver": {"username": by, "uid": by_uid, "groups": list(by_groups)},
                },
            }
        )

    @staticmethod
    def review(
        document,
        old=None,
        operation="CREATE",
        user="alice",
        uid="",
        groups=(),
        extra=None,
        resource=None,
        subresource="",
        dry_run=False,
    ) -> AdmissionRequest:
        """A request as the API server sends it; typed objects are written out."""
        documents = [
            item if item is None or isinstance(item, dict) else item.model_dump(mode="json", by_alias=True)
            for item in (document, old)
        ]
        body = documents[0] or documents[1]
        group, _, version = body["apiVersion"].rpartition("/")
        info = UserInfo(
            user, uid, tuple(groups), {key: tuple(values) for key, values in (extra or {}).items()}
        )
        return AdmissionRequest(
            uid="0f3c",
            kind=GroupVersionName(group, version, body["kind"]),
            resource=GroupVersionName(group, version, resource or body["kind"].lower() + "s"),
            subresource=subresource,
            operation=operation,
            name=body["metadata"].get("name", ""),
            namespace=body["metadata"].get("namespace", ""),
            user=info,
            object=documents[0],
            old_object=documents[1],
            dry_run=dry_run,
            raw={},
        )

    @staticmethod
    def patched(request: AdmissionRequest, patch) -> AdmissionRequest:
        """The request after the API server applied a patch of adds."""
        document = copy.deepcopy(request.object)
        for operation in patch:
            assert operation["op"] == "add"
            *path, last = operation["path"].strip("/").split("/")
            place = document
            for step in path:
                place = place[step]
            place[last] = operation["value"]
        return request._replace(object=document, name=document["metadata"].get("name", ""))


@pytest.fixture
def story() -> Story:
    return Story()
