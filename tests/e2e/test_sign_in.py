"""Identity end to end: people sign in at an OIDC issuer, the API server maps their claims, admission evaluates them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.controlplane import ControlPlane, Options
from harness.lab import API, Lab
from harness.oidc import KEYS, Issuer
from harness.rest import Client
from harness.waiting import eventually
from harness.weightlock import POLICIES, Weightlock

CREDENTIAL = "authentication.kubernetes.io/credential-id"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    matches = Issuer(tmp_path_factory.mktemp("oidc")).start()
    yield matches
    matches.stop()


class Office:
    """A cluster whose people sign in with tokens, and its lab."""

    def __init__(self, lab: Lab, issuer: Issuer, directory: Path) -> None:
        self.lab, self.issuer, self.directory = lab, issuer, directory
        kubeconfig = yaml.safe_load(lab.cluster.kubeconfig().read_text())
        self.server = kubeconfig["clusters"][0]["cluster"]
        self._clients: list[Client] = []

    def person(self, user: str, **claims: Any) -> Client:
        client = self.issuer.client(self.server, self.directory, user, **claims)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def ask(self, name: str, client: Client, **query: str) -> Any:
        return client.post(f"{API}/accessrequests", self.lab.request(name), **query)

    def approve(self, request: dict[str, Any], name: str, client: Client) -> Any:
        return client.post(f"{API}/accessapprovals", self.lab.approval(request, name))


def _policies(directory: Path) -> Path:
    """The policies this is about, without the params that ship with them: those are the admin's here."""
    for name in ("weights-need-grant", "session-risk"):
        documents = list(yaml.safe_load_all((POLICIES / f"{name}.yaml").read_text()))
        policies = [document for document in documents if document["kind"] == "WeightPolicy"]
        (directory / f"{name}.yaml").write_text(yaml.safe_dump_all(policies))
    return directory


@pytest.fixture(scope="module")
def office(
    issuer: Issuer,
    new_control_plane: Callable[[Options], ControlPlane],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Office]:
    cluster = new_control_plane(Options(authentication=issuer.configuration()))
    policies = _policies(tmp_path_factory.mktemp("policies"))
    weightlock = Weightlock(cluster, policies=policies, settings={"access": {"requiredExtra": [CREDENTIAL]}})
    weightlock.install()
    me = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    admin = cluster.client().post("/apis/authentication.k8s.io/v1/selfsubjectreviews", me).ok()
    session = {
        "methodKey": KEYS["methods"],
        "methods": "mfa fido",
        "timeKey": KEYS["time"],
        "maxAge": "8h",
        "riskKey": KEYS["risk"],
        "risks": "none low",
        "exempt": admin["status"]["userInfo"]["username"],
    }
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "session-risk", "namespace": "weightlock-system"},
            "data": session,
        }
    )
    lab = Lab(cluster, cluster.new_namespace()).build()
    matches = Office(lab, issuer, tmp_path_factory.mktemp("tokens"))
    alice, stale = matches.person("alice"), matches.person("alice", amr=["pwd"])
    eventually(lambda: alice.get(f"{API}/modelweights").status == 200, "tokens work", seconds=30)
    eventually(
        lambda: matches.ask("probe", stale, dryRun="All").status == 403, "sessions are judged", seconds=15
    )
    yield matches
    matches.close()
    weightlock.uninstall()


def test_users_with_a_strong_sign_in_request_and_approve(office: Office) -> None:
    request = office.ask("r", office.person("alice")).ok()
    requester = request["spec"]["requester"]
    assert (requester["username"], requester["uid"]) == ("alice", "sub-of-alice")
    assert requester["extra"][KEYS["methods"]] == ["pwd", "mfa"]
    assert requester["extra"][CREDENTIAL][0].startswith("JTI=")
    for who in ("bob", "carol"):
        approval = office.approve(request, who, office.person(who, groups=["weights-approvers"])).ok()
        assert "weights-approvers" in approval["spec"]["approver"]["groups"]
    pods = f"/api/v1/namespaces/{office.lab.namespace}/pods"
    pod = office.person("alice")
    eventually(
        lambda: pod.post(pods, office.lab.pod(), dryRun="All").status == 201, "the pod is admitted", seconds=5
    )


SESSIONS = {
    "with a password alone": ({"amr": ["pwd"]}, "not signed in with mfa or fido"),
    "too long ago": ({"auth_time": int(time.time()) - 9 * 3600}, "signed in too long ago"),
    "at a risk": ({"risk": "high"}, "risk is not none or low"),
}


@pytest.mark.parametrize(("claims", "words"), SESSIONS.values(), ids=SESSIONS.keys())
def test_a_weak_session_is_denied_and_the_fix_is_to_sign_in_again(office: Office, claims, words) -> None:
    output = office.ask("bad", office.person("alice", **claims))
    assert output.status == 403
    assert "[WL451]" in output.message
    assert words in output.message
    assert "sign in again" in output.message
    request = office.ask(f"for-{words[:3]}-{time.monotonic_ns()}", office.person("alice")).ok()
    voted = office.approve(request, "bad", office.person("bob", groups=["weights-approvers"], **claims))
    assert "[WL451]" in voted.message


def test_two_names_of_one_person_are_one_person(office: Office) -> None:
    request = office.ask("twice", office.person("alice")).ok()
    own = office.person("alice-admin", sub="sub-of-alice", groups=["weights-approvers"])
    assert "[WL422]" in office.approve(request, "own", own).message
    office.approve(request, "bob", office.person("bob", groups=["weights-approvers"])).ok()
    again = office.person("robert", sub="sub-of-bob", groups=["weights-approvers"])
    eventually(
        lambda: "[WL423]" in office.approve(request, "again", again).message, "it is bob again", seconds=5
    )


def test_an_approval_by_impersonation_is_denied(office: Office) -> None:
    request = office.ask("impersonated", office.person("alice")).ok()
    document = office.lab.approval(request, "as-bob")
    output = office.lab.cluster.kubectl(
        "create", "-f", "-", "--as", "bob", "--as-group", "weights-approvers", stdin=document
    ).failed()
    assert "[WL403]" in output
    assert "appears to be impersonated" in output
