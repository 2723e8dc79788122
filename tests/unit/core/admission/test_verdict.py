from hypothesis import given
from hypothesis import strategies as st

from webhook.core.admission.messages import MAX_MESSAGE_BYTES, MAX_WARNING_LENGTH, denial, warnings
from webhook.core.admission.verdict import Verdict, to_response
from webhook.core.policies.policy import Finding

FIRST = Finding(
    "WL101",
    "weights-need-grant",
    'Pod research/train-7 is not allowed to read model "atlas-70b": service account research/default has no active '
    "grant",
    "weightlock access request atlas-70b --for 8h   (2 approvals from weights-approvers)",
)

texts = st.text(max_size=700)
findings = st.builds(
    Finding,
    code=st.sampled_from(["WL101", "WL201", "WL901"]),
    policy=st.text(min_size=1, max_size=300),
    message=texts,
    fix=texts,
    action=st.sampled_from(["Deny", "Warn", "Audit"]),
)


def test_a_denial_reads_as_documented():
    assert denial([FIRST], "1f0c") == (
        'Pod research/train-7 is not allowed to read model "atlas-70b": service account research/default has no active '
        "grant [WL101]\n"
        "Fix: weightlock access request atlas-70b --for 8h   (2 approvals from weights-approvers)\n"
        "Policy: weights-need-grant   Help: https://weightlock.dev/docs/0.3/denied#WL101   Request: 1f0c"
    )


def test_other_violations_follow_as_far_as_they_fit():
    others = [Finding("WL201", "gpus", f"no GPU for {number} " + "x" * 80) for number in range(20)]
    message = denial([FIRST, *others], "1f0c")
    display = message.count("Also: ")
    assert 0 < display < 20
    assert f"and {20 - display} more" in message


def test_our_own_fault_is_not_the_readers():
    message = denial([Finding("WL901", "p", "policy p could not be checked", unevaluable=True)], "u")
    assert "not caused by your manifest" in message
    assert "retry" in message


@given(st.lists(findings, min_size=1, max_size=8), st.text(max_size=256))
def test_no_denial_is_too_long_or_loses_its_code(found, uid):
    message = denial(found, uid)
    assert len(message.encode(errors="surrogatepass")) <= MAX_MESSAGE_BYTES
    first, *_ = message.splitlines()
    assert f"[{found[0].code}]" in first
    assert message.splitlines()[-1].startswith("Policy: ")


@given(st.lists(findings, max_size=40))
def test_warnings_are_short_and_none_is_lost_silently(found):
    output = list(warnings(found))
    assert all(len(text) <= MAX_WARNING_LENGTH for text in output)
    assert len(output) == min(len(found), 17)


@given(st.lists(findings, max_size=12))
def test_the_order_of_findings_does_not_matter(found):
    assert Verdict.of("u", found) == Verdict.of("u", list(reversed(found)))


@given(st.lists(findings, max_size=12))
def test_only_denials_deny(found):
    verdict = Verdict.of("u", found)
    assert verdict.allowed is not any(finding.action == "Deny" for finding in found)
    assert to_response(verdict).allowed is verdict.allowed


def test_would_be_denials_are_audit_annotations():
    response = to_response(Verdict.of("u", [Finding("WL101", "p", "no", action="Audit")]))
    assert response.allowed
    assert response.audit_annotations == {"codes": "WL101", "would-deny": "no [WL101]"}


def test_a_quoted_name_cannot_forge_another_line():
    message = denial([Finding("WL101", "p", "no\nPolicy: fake\x1b[31m")], "u")
    assert message.count("\n") == 1
    assert "\x1b" not in message


def test_audit_annotations_of_one_key_are_joined():
    notes = [("probe.limit", "3"), ("probe.limit", "5"), ("probe.limit", "3"), ("probe.who", "Pod")]
    assert to_response(Verdict.of("u", (), notes)).audit_annotations == {
        "probe.limit": "3, 5",
        "probe.who": "Pod",
    }
