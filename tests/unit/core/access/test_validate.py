"""Every rule of admission for access objects, with the attempt it refuses and the words it answers with."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook.api import codes
from webhook.api.access import AccessSettings
from webhook.core.access import GrantIndex, Signer, Verifier
from webhook.core.access.stamp import stamp
from webhook.core.access.validate import validate_access
from webhook.core.kube.objects import Lookup, MissingObjectError, ObjectStore

CONTROLLER = "system:serviceaccount:weightlock-system:weightlock-controller"
RETENTION = "system:serviceaccount:weightlock-system:weightlock-retention"
SIGNER = Signer(Ed25519PrivateKey.generate())
VERIFIER = Verifier.of([SIGNER.key.public_key()])


@pytest.fixture
def cluster(story):
    return Cluster(story)


class Cluster:
    """The rules as admission applies them: stamp, then guard, against one index and one store."""

    def __init__(self, story):
        self.story = story
        self.settings = AccessSettings()
        self.models = [story.model()]
        self.requests, self.approvals, self.verifier = [], [], None
        self.store = ObjectStore(complete=True)
        self.store.put(
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "trainer", "namespace": "research"},
            }
        )
        self.now = story.at(10)

    def validate(self, request):
        index = GrantIndex.build(
            self.requests, self.approvals, self.models, self.settings, verifier=self.verifier
        )
        models = {model.metadata.name: model for model in self.models}
        return validate_access(request, index, models, self.now, self.settings, lookup=Lookup(self.store))

    def create(self, document, **who):
        request = self.story.review(document, **who)
        return self.validate(self.story.patched(request, stamp(request, None, self.now)))

    def codes(self, document, **who):
        return [problem.code for problem in self.create(document, **who)]

    def approve(self, by="bob", groups=("approvers",), name="a1", **vote):
        return self.create(self.story.approval(name, **vote), user=by, groups=groups)


def only(problems):
    (problem,) = problems
    return problem


def test_a_good_request_and_a_good_approval_go_through(cluster, story):
    assert cluster.create(story.request()) == ()
    cluster.requests = [story.request()]
    assert cluster.approve() == ()


REQUESTS = {
    "unknown model": ({"model": "atlsa"}, codes.UNKNOWN_MODEL),
    "unknown service account": (
        {"subject": {"kind": "ServiceAccount", "namespace": "research", "name": "ghost"}},
        codes.UNKNOWN_SUBJECT,
    ),
    "no time at all": ({"duration": "0s"}, codes.DURATION),
    "too long": ({"duration": "13h"}, codes.DURATION),
    "blank reason": ({"reason": " \n"}, codes.REASON),
    "emergency without right": ({"breakGlass": True, "duration": "1h"}, codes.BREAK_GLASS),
    "waiver where there are none": (
        {"waiver": {"code": "WL201", "namespace": "research", "podSelector": {}}},
        codes.NOT_WAIVABLE,
    ),
    "change of what is not governed": (
        {"change": {"kind": "Pod", "name": "p", "digest": "delete"}},
        codes.NOT_UNDER_CHANGE_CONTROL,
    ),
}


def test_the_export_of_a_key_needs_the_rules_of_its_model(cluster, story):
    """No change control needs to be configured: the model's own approvers decide."""
    change = {"kind": "KeyExport", "name": "atlas", "digest": "sha256:" + "0" * 64}
    assert not cluster.create(story.request(change=change))
    absent = cluster.create(story.request(change={**change, "name": "absent"}))
    assert [problem.code for problem in absent] == [codes.NOT_UNDER_CHANGE_CONTROL]
    long = cluster.create(story.request(change=change, duration="13h"))
    assert [problem.code for problem in long] == [codes.DURATION]


@pytest.mark.parametrize(("spec", "expected"), REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_that_breaks_a_rule_is_refused_in_words(cluster, story, spec, expected):
    problem = only(cluster.create(story.request(**spec)))
    assert problem.code == expected
    assert problem.message
    assert problem.fix


WRITTEN = {
    "no reason": ("reason", None, codes.REASON),
    "a duration in words": ("duration", "two hours", codes.DURATION),
    "an unknown field": ("forever", True, codes.INVALID_ACCESS_OBJECT),
    "a service account without namespace": (
        "subject",
        {"kind": "ServiceAccount", "name": "x"},
        codes.INVALID_ACCESS_OBJECT,
    ),
    "no namespaces": ("namespaces", [], codes.INVALID_ACCESS_OBJECT),
    "two things at once": (
        "change",
        {"kind": "Pod", "name": "p", "digest": "delete"},
        codes.INVALID_ACCESS_OBJECT,
    ),
}


@pytest.mark.parametrize(("field", "value", "expected"), WRITTEN.values(), ids=WRITTEN.keys())
def test_a_request_that_does_not_fit_its_type_is_refused_at_the_field(cluster, story, field, value, expected):
    document = story.request().model_dump(mode="json", by_alias=True)
    document["spec"][field] = value
    if value is None:
        del document["spec"][field]
    assert expected in cluster.codes(document)


def test_a_misspelt_model_is_answered_with_the_likely_one(cluster, story):
    assert only(cluster.create(story.request(model="atlsa"))).fix == "did you mean atlas?"
    assert "kubectl get modelweights" in only(cluster.create(story.request(model="zzz"))).fix


def test_all_faults_are_reported_together(cluster, story):
    subject = {"kind": "ServiceAccount", "namespace": "research", "name": "ghost"}
    inputs = cluster.codes(story.request(reason=" ", duration="13h", subject=subject))
    assert sorted(inputs) == [codes.UNKNOWN_SUBJECT, codes.DURATION, codes.REASON]


def test_the_default_service_account_and_users_need_no_object(cluster, story):
    default = {"kind": "ServiceAccount", "namespace": "anywhere", "name": "default"}
    assert cluster.create(story.request(subject=default)) == ()
    assert cluster.create(story.request(subject={"kind": "User", "name": "zoe"})) == ()


def test_an_uncached_service_account_is_fetched(cluster, story):
    cluster.store = ObjectStore(complete=False)
    with pytest.raises(MissingObjectError):
        cluster.create(story.request())


APPROVALS = {
    "one's own request": ({"by": "alice"}, codes.OWN_REQUEST),
    "one's own request in capitals": ({"by": "Alice"}, codes.OWN_REQUEST),
    "no approver": ({"groups": ("dev",)}, codes.NOT_ELIGIBLE),
    "a service account in the group": ({"by": "system:serviceaccount:ci:bot"}, codes.SERVICE_ACCOUNT_VOTE),
    "a node": ({"by": "system:node:n1"}, codes.SERVICE_ACCOUNT_VOTE),
    "an unknown request": ({"request": "r9"}, codes.UNKNOWN_REQUEST),
    "another uid": ({"uid": "uid-of-the-last-one"}, codes.UNKNOWN_REQUEST),
    "nobody's refusal": ({"groups": (), "decision": "Deny"}, codes.NOT_ELIGIBLE),
}


@pytest.mark.parametrize(("vote", "expected"), APPROVALS.values(), ids=APPROVALS.keys())
def test_an_approval_that_breaks_a_rule_is_refused_in_words(cluster, story, vote, expected):
    cluster.requests = [story.request()]
    vote = {"by": "bob", "groups": ("approvers",), **vote}
    by, groups = vote.pop("by"), vote.pop("groups")
    problem = only(cluster.create(story.approval("a1", **vote), user=by, groups=groups))
    assert problem.code == expected
    assert problem.message
    assert problem.fix


def test_the_denial_names_the_approvers(cluster, story):
    cluster.requests = [story.request()]
    problem = only(cluster.approve(groups=()))
    assert (problem.message, problem.fix) == (
        "bob is not an approver for model atlas",
        "approvers: members of approvers, root-cat",
    )


def test_an_approver_cannot_approve_twice_but_can_revoke(cluster, story):
    cluster.requests, cluster.approvals = [story.request()], [story.approval("a1", by="bob", by_uid="7")]
    assert only(cluster.approve(by="bob", name="a2")).code == codes.ALREADY_VOTED
    again = cluster.create(story.approval("a2"), user="robert", uid="7", groups=["approvers"])
    assert only(again).code == codes.ALREADY_VOTED
    assert cluster.create(story.approval("a2", decision="Revoke"), user="bob", groups=["approvers"]) == ()
    assert cluster.approve(by="carol", name="a2") == ()


def test_the_requester_may_withdraw_without_being_an_approver(cluster, story):
    cluster.requests = [story.request()]
    assert cluster.create(story.approval("a1", decision="Revoke"), user="alice") == ()


@pytest.mark.parametrize("decision", ["Approve", "Revoke"])
def test_a_request_that_is_over_takes_no_more_decisions(cluster, story, decision):
    vote = story.approval("new", decision=decision)
    who = {"user": "erin", "groups": ["approvers"]}
    votes = [story.approval("a1"), story.approval("a2", by="carol")]
    cluster.requests = [story.request()]
    for approvals, now in (
        ([story.approval("d", decision="Deny")], 10),
        ([*votes, story.approval("d", by="dave", at=5, decision="Revoke")], 10),
        (votes, 9 * 60),
        ([], 8 * 24 * 60),
    ):
        cluster.approvals, cluster.now = approvals, story.at(now)
        assert only(cluster.create(vote, **who)).code == codes.REQUEST_CLOSED
    cluster.approvals, cluster.now = votes, story.at(10)
    assert cluster.create(vote, **who) == ()


def test_a_request_that_only_the_store_knows_yet_can_be_approved(cluster, story):
    cluster.store.put(story.request().model_dump(mode="json", by_alias=True))
    assert cluster.approve() == ()
    cluster.store.put({**story.request("r2").model_dump(mode="json", by_alias=True), "spec": {}})
    assert only(cluster.approve(request="r2")).code == codes.UNKNOWN_REQUEST


def test_the_denial_distinguishes_unsigned_and_missing_requests(cluster, story):
    cluster.requests, cluster.verifier = [story.request()], VERIFIER
    problem = only(cluster.approve())
    assert "is not signed yet" in problem.message
    assert problem.fix.startswith("retry in a few seconds")


@pytest.mark.parametrize(
    "extra", [{"Impersonator": ["x"]}, {"original-user-info.impersonation-proxy.example": ["x"]}]
)
def test_an_impersonated_session_neither_asks_nor_approves(cluster, story, extra):
    assert cluster.codes(story.request(), extra=extra) == [codes.IMPERSONATED]
    cluster.requests = [story.request()]
    assert cluster.codes(story.approval("a1"), user="bob", groups=["approvers"], extra=extra) == [
        codes.IMPERSONATED
    ]


def test_a_session_without_a_credential_id_can_be_refused(cluster, story):
    key = "authentication.kubernetes.io/credential-id"
    cluster.settings = AccessSettings(required_extra=[key])
    assert cluster.codes(story.request()) == [codes.IMPERSONATED]
    assert cluster.create(story.request(), extra={key: ["JTI=1"]}) == ()


def test_an_approver_cannot_ask_through_a_service_account_they_control(cluster, story):
    bot = "system:serviceaccount:ci:bot"
    assert cluster.codes(story.request(), user=bot) == [codes.SERVICE_ACCOUNT_REQUEST]
    cluster.settings = AccessSettings(service_account_requesters=[bot])
    assert cluster.create(story.request(), user=bot) == ()


def test_a_listed_service_account_may_approve(cluster, story):
    bot = "system:serviceaccount:ci:bot"
    cluster.requests = [story.request()]
    cluster.settings = AccessSettings(service_account_approvers=[bot])
    assert cluster.approve(by=bot) == ()


@pytest.mark.parametrize(
    "spec",
    [
        {"requester": {"username": "bob"}},
        {"requester": None},
        {"stampedAt": ""},
        {"stampedAt": "2026-11-02T08:00:00Z"},
    ],
)
def test_an_object_that_was_kept_from_stamping_is_refused(cluster, story, spec):
    request = story.review(story.request(stampedAt="2026-11-02T09:10:00Z"))
    unstamped = request._replace(object={**request.object, "spec": {**request.object["spec"], **spec}})
    assert codes.STAMP in [problem.code for problem in cluster.validate(unstamped)]


def test_a_signature_that_another_webhook_broke_is_refused(cluster, story):
    cluster.verifier = VERIFIER
    request = story.review(story.request())
    signed = story.patched(request, stamp(request, SIGNER, cluster.now, trusted_caller=True))
    assert cluster.validate(signed) == ()
    signed.object["spec"]["namespaces"].append("default")
    assert only(cluster.validate(signed)).code == codes.STAMP


def update(story, cluster, kind, user="alice", metadata=None, **spec):
    old = (story.request() if kind == "AccessRequest" else story.approval("a1")).model_dump(
        mode="json", by_alias=True
    )
    new = {**old, "metadata": {**old["metadata"], **(metadata or {})}, "spec": {**old["spec"], **spec}}
    return cluster.validate(story.review(new, old=old, operation="UPDATE", user=user))


@pytest.mark.parametrize("kind", ["AccessRequest", "AccessApproval"])
def test_nothing_decided_on_can_be_changed(cluster, story, kind):
    for user in ("alice", CONTROLLER, RETENTION):
        assert only(update(story, cluster, kind, user=user, comment="x", reason="y")).code == codes.IMMUTABLE
    assert only(update(story, cluster, kind, signature="x")).code == codes.IMMUTABLE
    assert update(story, cluster, kind, metadata={"labels": {"a": "b"}}) == ()
    assert update(story, cluster, kind, user=CONTROLLER, signature="x") == ()
    assert (
        only(update(story, cluster, kind, user=CONTROLLER, signature="x", stampedAt="y")).code
        == codes.IMMUTABLE
    )


def test_until_it_is_signed_not_even_a_label_changes(cluster, story):
    cluster.verifier = VERIFIER
    assert (
        only(update(story, cluster, "AccessApproval", metadata={"labels": {"a": "b"}})).code
        == codes.IMMUTABLE
    )
    assert update(story, cluster, "AccessApproval", user=CONTROLLER, metadata={"labels": {"a": "b"}}) == ()


def test_a_signature_is_given_once(cluster, story):
    old = story.approval("a1").model_dump(mode="json", by_alias=True)
    old["spec"]["signature"] = "first"
    new = {**old, "spec": {**old["spec"], "signature": "second"}}
    request = story.review(new, old=old, operation="UPDATE", user=CONTROLLER)
    assert only(cluster.validate(request)).code == codes.IMMUTABLE


@pytest.mark.parametrize("user", ["alice", CONTROLLER])
def test_status_belongs_to_the_controller(cluster, story, user):
    request = story.review(
        story.request(), old=story.request(), operation="UPDATE", user=user, subresource="status"
    )
    assert [problem.code for problem in cluster.validate(request)] == (
        [] if user == CONTROLLER else [codes.STATUS]
    )


def test_requests_may_be_deleted_and_approvals_only_by_retention_once_the_request_is_gone(cluster, story):
    def delete(resource, user):
        return cluster.validate(story.review(None, old=resource, operation="DELETE", user=user))

    assert delete(story.request(), "anybody") == ()
    assert only(delete(story.approval("a1"), "bob")).code == codes.UNDELETABLE
    cluster.requests = [story.request()]
    assert only(delete(story.approval("a1", decision="Deny"), RETENTION)).code == codes.UNDELETABLE
    cluster.requests = [story.request(uid="a-later-one")]
    assert delete(story.approval("a1"), RETENTION) == ()
    cluster.requests = []
    assert delete(story.approval("a1"), RETENTION) == ()
    forged = {**story.approval("a1").model_dump(mode="json", by_alias=True), "spec": 1}
    assert delete(forged, RETENTION) == ()


def test_waivers_follow_their_own_rules(cluster, story):
    cluster.settings = AccessSettings(
        waivers={"rules": {"approvals": 1, "approvers": {"groups": ["sec"]}, "maxDuration": "2h"}}
    )
    waiver = {"code": "WL201", "namespace": "research", "podSelector": {"matchLabels": {"a": "b"}}}
    assert cluster.create(story.request(waiver=waiver, duration="2h")) == ()
    assert cluster.codes(story.request(waiver=waiver, duration="3h")) == [codes.DURATION]
    assert cluster.codes(story.request(waiver={**waiver, "code": "WL101"}, duration="2h")) == [
        codes.NOT_WAIVABLE
    ]
    bad = {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}
    assert cluster.codes(story.request(waiver={**waiver, "podSelector": bad}, duration="2h")) == [
        codes.INVALID_ACCESS_OBJECT
    ]
    cluster.requests = [story.request(waiver=waiver, duration="2h")]
    assert cluster.approve(groups=("sec",)) == ()
    assert (
        only(cluster.approve(groups=("approvers",))).message == "bob is not an approver for waivers of WL201"
    )


def test_break_glass_access_is_for_users_of_the_group(cluster, story):
    cluster.settings = AccessSettings(break_glass={"groups": ["sre"], "maxDuration": "1h"})
    queries = story.request(breakGlass=True, duration="1h")
    assert cluster.create(queries, groups=["sre"]) == ()
    assert cluster.codes(queries, groups=["dev"]) == [codes.BREAK_GLASS]
    bot = "system:serviceaccount:ci:bot"
    assert cluster.codes(queries, groups=["sre"], user=bot) == [
        codes.SERVICE_ACCOUNT_REQUEST,
        codes.BREAK_GLASS,
    ]
    assert cluster.codes(story.request(breakGlass=True, duration="2h"), groups=["sre"]) == [codes.DURATION]


def test_other_kinds_and_operations_are_none_of_its_business(cluster, story):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    assert cluster.validate(story.review(pod)) == ()
    assert cluster.validate(story.review(story.request(), operation="CONNECT")) == ()


def test_every_problem_is_one_short_sentence_with_a_code_of_the_table(cluster, story):
    cluster.requests = [story.request()]
    problems = [
        *cluster.create(story.request(model="x", reason=" ", breakGlass=True, duration="99h")),
        *cluster.approve(by="system:serviceaccount:ci:bot", groups=()),
        *cluster.approve(by="alice", groups=()),
    ]
    assert len(problems) >= 5
    for problem in problems:
        assert problem.code in codes.REASONS
        assert "\n" not in problem.message + problem.fix
        assert len(problem.message) < 200
