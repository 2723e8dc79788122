"""The broker's answers, with the shipped policies and a pod as admission makes it; only the cluster is not there."""

from __future__ import annotations

import asyncio
import base64
import copy
import dataclasses
import hashlib
import json
from datetime import timedelta

import jwt
import pytest
from cpuevidence import MEASUREMENT, Amd
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from keyworld import serving

from webhook.api.authorities import known
from webhook.api.modelweights import AccessRules
from webhook.core.access import Signer, Verifier
from webhook.core.access.parse import Parser
from webhook.core.access.record import Record, sign
from webhook.core.admission.provider import NotReadyError
from webhook.keys.agent.client import BrokerUnavailableError, lease_bytes
from webhook.keys.broker.challenge import evidence_nonce
from webhook.keys.broker.protocol import ChallengeRequest, ReleaseRequest, RenewRequest
from webhook.keys.broker.rate_limits import Limits, Rate
from webhook.keys.broker.refusal import RefusedError, UnavailableError
from webhook.keys.broker.service import retry_policy_within
from webhook.keys.envelope import AgentKey
from webhook.keys.errors import KmsUnavailableError, SealedDataError
from webhook.keys.kms.local import LocalKms
from webhook.server.tls import self_signed


async def release(broker, *, token="good", model="atlas-70b", attestation=None, agent=None, key_id=""):
    agent = agent or AgentKey.generate()
    public_key = base64.b64encode(agent.public).decode()
    nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
    request = ReleaseRequest(
        model=model, nonce=nonce, public_key=public_key, attestation=attestation, protocol=2, key_id=key_id
    )
    releases = await broker.release(token, request)
    lease = lease_bytes(json.loads(releases.lease.model_dump_json(by_alias=True)))
    opened = agent.open(base64.b64decode(releases.encrypted), nonce, model, lease)
    return {name: bytes(key.view()) for name, key in opened.items()}, releases.lease


async def refusal(broker, **options):
    with pytest.raises(RefusedError) as rejection:
        await release(broker, **options)
    return f"{rejection.value} [{rejection.value.code}]"


async def test_a_pod_that_holds_everything_gets_every_key(world):
    await world.wrap("2026-11")
    keys, lease = await release(world.broker())
    assert keys == {"k1": world.data_key, "2026-11": world.data_key}
    assert (lease.seconds, lease.renew_after) == (900, 300)
    (event,) = world.events
    assert event["result"] == "released"
    assert event["keys"] == ["k1", "2026-11"]
    assert (event["namespace"], event["pod"], event["uid"]) == ("research", "train", "pod-uid")
    assert base64.b64encode(world.data_key).decode() not in str(event)
    assert "good" not in str(event)


async def test_the_lease_never_outlasts_the_grant(world):
    broker = world.broker()
    world.now += timedelta(minutes=55)
    lease = await broker.renew("good", RenewRequest(model="atlas-70b"))
    assert 290 <= lease.seconds <= 300
    assert lease.renew_after <= 150
    world.now += timedelta(minutes=5)
    with pytest.raises(RefusedError, match="the grant from r1 expired at"):
        await broker.renew("good", RenewRequest(model="atlas-70b"))
    assert [event["result"] for event in world.events] == ["released", "refused"]


async def test_no_grant(world):
    world.state = [document for document in world.state if document["kind"] != "AccessApproval"]
    output = await refusal(world.broker())
    assert output == (
        'service account research/trainer has no active grant for model "atlas-70b". '
        "Fix: weightlock access request atlas-70b --for 8h --service-account research/trainer [WL326]"
    )
    assert world.events[0]["code"] == "WL326"
    assert world.events[0]["message"] + " [WL326]" == output


async def test_a_public_model_needs_no_grant(world):
    world.state = [document for document in world.state if document["kind"] != "AccessApproval"]
    world.model["spec"]["sensitivity"] = "public"
    keys, lease = await release(world.broker())
    assert set(keys) == {"k1"}
    assert lease.grant_ends == ""


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (
            lambda pod: pod["spec"].pop("initContainers"),
            "its key sidecar is missing or modified [WL301]",
        ),
        (
            lambda pod: pod["spec"]["initContainers"][0].update(image="evil.example.com/agent:1"),
            "was not admitted in its present form",
        ),
        (
            lambda pod: pod["spec"].update(hostPID=True),
            "would not be admitted now",
        ),
        (
            lambda pod: pod["spec"]["containers"][0]["securityContext"].update(privileged=True),
            "would not be admitted now",
        ),
        (
            lambda pod: pod["spec"]["containers"].append(
                {
                    "name": "spy",
                    "image": pod["spec"]["containers"][0]["image"],
                    "volumeMounts": [copy.deepcopy(pod["spec"]["containers"][0]["volumeMounts"][-1])],
                }
            ),
            "was not admitted in its present form",
        ),
        (
            lambda pod: pod["spec"].update(
                ephemeralContainers=[
                    {"name": "debug", "image": "busybox", "securityContext": {"privileged": True}}
                ]
            ),
            "would not be admitted now",
        ),
    ],
    ids=["no sidecar", "other image", "hostPID", "privileged", "a spy mounts the key", "ephemeral container"],
)
async def test_a_pod_that_admission_would_deny_receives_no_key(world, change, output):
    world.live = world.admitted()
    change(world.live)
    matches = await refusal(world.broker())
    assert output in matches
    assert matches.endswith("[WL327]")


async def test_a_pod_that_runs_keeps_its_keys_through_an_upgrade(world):
    world.broker()
    old = world.settings.injection.image
    world.inject_by(image="registry.example.com/weightlock:next")
    assert "WL301" in await refusal(world.broker())
    world.inject_by(previous_images=[old])
    assert (await release(world.broker()))[0]


async def test_a_pod_that_trusts_another_ca_gets_nothing(world):
    ours, other = (self_signed.make(["broker"]).authority.decode() for _ in range(2))
    world.use_authorities(ours)
    world.live = world.admitted()
    keys, lease = await release(world.broker())
    assert set(keys) == {"k1"}
    assert lease.authorities == known(ours)
    words = world.live["spec"]["initContainers"][0]["args"]
    words[words.index(f"--authority={known(ours)[0]}")] = f"--authority={known(other)[0]}"
    assert (await refusal(world.broker())).endswith("is missing or modified [WL301] [WL327]")


async def test_a_pod_that_does_not_read_the_model(world):
    world.live = world.admitted()
    world.live["spec"]["containers"][0]["volumeMounts"] = []
    world.live["spec"]["volumes"] = []
    world.live["spec"].pop("initContainers")
    assert await refusal(world.broker()) == 'pod research/train does not mount model "atlas-70b" [WL325]'
    assert await refusal(world.broker(), model="nothing") == 'ModelWeights "nothing" does not exist [WL325]'


async def test_a_token_the_api_server_does_not_know(world):
    assert (await refusal(world.broker(), token="bad")).endswith("[WL322]")
    assert (await refusal(world.broker(), token="")).endswith("[WL322]")
    assert (await refusal(world.broker(), token="x" * 20_000)).endswith("[WL322]")


async def test_a_pod_that_is_gone(world):
    world.live = world.admitted()
    world.live["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z"
    assert await refusal(world.broker()) == "pod research/train is being deleted [WL324]"


async def test_webhooks_that_are_not_as_they_should_be(world):
    world.faults = ("ValidatingWebhookConfiguration weightlock is missing",)
    assert (await refusal(world.broker())).endswith(
        "ValidatingWebhookConfiguration weightlock is missing [WL328]"
    )


SIGNER = Signer(Ed25519PrivateKey.generate())


def recorded(world, sensitivity="frontier", signer=SIGNER, **access):
    """A broker before the world, with a record of other access rules than those of the world's model."""
    rules = AccessRules.model_validate(world.model["spec"]["access"] | access)
    models = {"atlas-70b": rules.model_dump(mode="json", by_alias=True)}
    encoded = Record(models=models, sensitivities={"atlas-70b": sensitivity}).encode()
    world.record = encoded, sign(encoded, signer)
    broker = world.broker()
    snapshot = broker._source.snapshot()
    verifier = Verifier.of([SIGNER.key.public_key()])
    access = dataclasses.replace(snapshot.access, parser=Parser(verifier))
    snapshot = dataclasses.replace(snapshot, access=access)

    class Source:
        fetch = staticmethod(broker._source.fetch)
        snapshot = staticmethod(lambda: snapshot)

    broker._source = Source
    return broker


async def unavailable(broker):
    with pytest.raises(UnavailableError) as error:
        await release(broker)
    return f"{error.value} [{error.value.code}]"


async def test_rules_that_became_weaker_release_no_key_before_the_controller_accepted_them(world):
    """The time from weaker rules to the suspension of the request is long enough for a release."""
    message = await unavailable(recorded(world, approvals=2))
    assert message.startswith('the access rules of model "atlas-70b" became weaker, and the controller has')
    assert message.endswith("[WL328]")


@pytest.mark.parametrize(
    "access",
    [{}, {"approvals": 0}, {"maxDuration": "24h"}, {"approvers": {"groups": ["weights-approvers", "b"]}}],
)
async def test_rules_that_are_as_recorded_or_stricter_release_keys(world, access):
    assert (await release(recorded(world, **access)))[0]


async def test_a_grant_that_the_recorded_rules_give_too_is_not_withheld(world):
    broker = recorded(world, maxDuration="1h")
    assert broker._source.snapshot().access.models["atlas-70b"].max_duration == "12h"
    assert (await release(broker))[0]


async def test_a_model_that_became_public_releases_no_key(world):
    world.model["spec"]["sensitivity"] = "public"
    world.state = [item for item in world.state if item["kind"] not in ("AccessRequest", "AccessApproval")]
    world.live = world.admitted()
    assert (await unavailable(recorded(world))).endswith("[WL328]")
    assert (await release(recorded(world, "public")))[0]


async def test_a_record_of_another_signer_releases_no_key(world):
    message = await unavailable(recorded(world, signer=Signer(Ed25519PrivateKey.generate())))
    assert message == "the record of access rules is invalid: its signature refers to an unknown key [WL328]"


async def test_a_nonce_is_for_one_key_and_one_use(world):
    broker, agent = world.broker(), AgentKey.generate()
    public_key = base64.b64encode(agent.public).decode()
    nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
    thief = base64.b64encode(AgentKey.generate().public).decode()
    with pytest.raises(RefusedError, match="not issued by this broker for this agent's key"):
        await broker.release("good", ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=thief))
    request = ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=public_key)
    await broker.release("good", request)
    with pytest.raises(RefusedError, match="was used before"):
        await broker.release("good", request)
    # Another replica does not know that; what it answers, only the agent can open.
    world.limits = Limits()
    other = world.broker()
    again = await other.release("good", request)
    assert agent.open(base64.b64decode(again.encrypted), nonce, "atlas-70b", None)


async def test_no_more_releases_than_the_sidecar_can_need(world):
    broker = world.broker()
    await release(broker)
    await release(broker)
    assert (await refusal(broker)).endswith("[WL334]")
    world.live["status"]["initContainerStatuses"] = [{"name": "weightlock-agent", "restartCount": 1}]
    await release(broker)


async def test_too_many_requests(world):
    world.limits = Limits()
    broker = world.broker()
    for _ in range(12):
        await broker.renew("good", RenewRequest(model="atlas-70b"))
    with pytest.raises(RefusedError, match="too many requests for this pod") as rejection:
        await broker.renew("good", RenewRequest(model="atlas-70b"))
    assert rejection.value.code == "WL333"


async def test_keys_that_cannot_be_had(world):
    entry = world.model["spec"]["keys"][0]
    for change, code in (
        ({"wrapped": "***"}, "WL331"),
        ({"id": "other"}, "WL332"),
        ({"kms": "nonsense://x"}, "WL332"),
        ({"wrapped": base64.b64encode(b"x" * 80).decode()}, "WL332"),
    ):
        world.model["spec"]["keys"] = [{**entry, **change}]
        assert (await refusal(world.broker())).endswith(f"[{code}]")
    world.model["spec"]["keys"] = [entry]
    assert "not allowed in production" in await refusal(world.broker(production=True))


async def test_a_model_without_keys_delays_no_pod_unless_plaintext_is_requested(world):
    world.model["spec"]["keys"] = []
    keys, lease = await release(world.broker())
    assert (keys, lease.seconds) == ({}, 900)
    assert world.events[-1]["keys"] == []
    world.model["spec"]["delivery"] = "plaintext"
    world.live = world.admitted()
    output = await refusal(world.broker())
    assert (
        "uses delivery: plaintext but has no keys: add the entry printed by `weightlock weights seal`"
        in output
    )
    assert output.endswith("[WL331]")


async def test_an_unwrapped_value_of_another_length_is_not_released(world):
    world.data_key = b"short"
    world.model["spec"]["keys"] = []
    await world.wrap()
    assert (await refusal(world.broker())).endswith("[WL331]")


async def test_unavailable_data_differs_from_a_denial(world, monkeypatch):
    broker = world.broker()
    world.reviewed = UnavailableError("WL911", "the broker could not ask the API server: down")
    with pytest.raises(UnavailableError, match="down"):
        await release(broker)
    world.reviewed = None

    class Down:
        async def unwrap(self, wrapped, context):
            raise KmsUnavailableError("vault is sealed")

        async def close(self):
            pass

    broker._services[world.model["spec"]["keys"][0]["kms"]] = Down()
    with pytest.raises(UnavailableError, match="vault is sealed") as error:
        await release(broker)
    assert error.value.code == "WL912"

    def not_ready():
        raise NotReadyError("Weightlock has not read pods yet")

    monkeypatch.setattr(broker._source, "snapshot", not_ready)
    with pytest.raises(UnavailableError, match="has not read pods yet"):
        await release(broker)
    assert [event["result"] for event in world.events] == ["unavailable"] * 3
    await broker.close()


@pytest.mark.parametrize(("seconds", "each"), [(2, 60), (1, 5)], ids=["hangs", "is slow"])
async def test_a_slow_kms_is_reported_as_a_kms_error(world, tmp_path, monkeypatch, seconds, each):
    for number in range(4):
        await world.wrap(f"more-{number}")

    async def slow(_self, _wrapped, _context):
        await asyncio.sleep(each)
        return bytearray(32)

    monkeypatch.setattr(LocalKms, "unwrap", slow)
    async with serving(world, tmp_path, request_timeout_seconds=seconds) as endpoint:
        with pytest.raises(BrokerUnavailableError, match=r"^local://.* timed out .* \[WL912\]$"):
            await endpoint.release()
    assert world.events[0]["code"] == "WL912"


@pytest.mark.parametrize(
    ("seconds", "call", "attempts"), [(10, 5, 2), (60, 5, 4), (4, 4, 1), (0.5, 0.5, 1), (5, 5, 1)]
)
def test_kms_timeouts_fit_into_the_request_timeout(seconds, call, attempts):
    policy = retry_policy_within(seconds)
    assert (policy.call, policy.attempts) == (call, attempts)


async def test_a_lease_names_the_keys_that_the_model_has(world):
    broker = world.broker()
    _, lease = await release(broker)
    assert lease.keys == ("k1",)
    world.model["spec"]["keys"] = []
    await world.wrap("k2")
    broker._source = world.source()
    assert (await broker.renew("good", RenewRequest(model="atlas-70b"))).keys == ("k2",)


async def test_a_fault_of_ours_is_audited_and_releases_nothing(world, monkeypatch):
    broker = world.broker()

    def fault(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr("webhook.keys.broker.service.seal_keys", fault)
    with pytest.raises(RuntimeError):
        await release(broker)
    assert world.events[0]["result"] == "error"
    assert "secret" not in str(world.events)


async def test_a_namespace_that_is_exempt_from_policies_gets_no_keys(world, monkeypatch):
    world.live = world.admitted()
    source = world.source()
    exempt = source.snapshot().settings.model_copy(update={"exempt_namespaces": ["research"]})
    broker = world.broker()
    snapshot = dataclasses.replace(source.snapshot(), settings=exempt)
    monkeypatch.setattr(broker._source, "snapshot", lambda: snapshot)
    assert "is exempt from admission" in await refusal(broker)


async def test_attestation_where_the_model_asks_for_it(world):
    world.model["spec"]["attestation"] = {"required": True, "issuer": "https://nras.example.com"}
    assert (await refusal(world.broker())).endswith("sidecar sent no evidence [WL329]")
    assert (await refusal(world.broker(), attestation="junk")).endswith("[WL330]")
    world.key_sets = UnavailableError("WL913", "cannot fetch the attestation issuer's key set")
    with pytest.raises(UnavailableError):
        await release(world.broker(), attestation=[["JWT", "a.b.c"], {"GPU-0": "a.b.c"}])
    world.model["spec"]["attestation"] = {"required": True}
    assert (await refusal(world.broker())).endswith("names no issuer [WL320]")


async def test_attested_and_released(world):
    key = ec.generate_private_key(ec.SECP384R1())
    public = json.loads(jwt.algorithms.ECAlgorithm(hashlib.sha384).to_jwk(key.public_key()))
    world.key_sets = {"keys": [{**public, "kid": "k"}]}
    rule = "object.devices.all(d, d.hwmodel == 'GH100')"
    world.model["spec"]["attestation"] = {"required": True, "issuer": "https://i.example.com", "rule": rule}
    broker, agent = world.broker(), AgentKey.generate()
    public_key = base64.b64encode(agent.public).decode()
    nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
    moment = int(world.now.timestamp())

    def token(**claims):
        times = {"iss": "https://i.example.com", "iat": moment, "nbf": moment, "exp": moment + 60}
        return jwt.encode(
            {**times, "eat_nonce": evidence_nonce(nonce), **claims},
            key,
            algorithm="ES384",
            headers={"kid": "k"},
        )

    gpu = token(
        measres="success",
        secboot=True,
        dbgstat="disabled",
        hwmodel="GH100",
        **{
            f"x-nvidia-gpu-{claim}": True
            for claim in (
                "attestation-report-nonce-match",
                "attestation-report-signature-verified",
                "attestation-report-cert-chain-validated",
                "driver-rim-signature-verified",
                "driver-rim-cert-validated",
                "vbios-rim-signature-verified",
                "vbios-rim-cert-validated",
            )
        },
    )
    digest = hashlib.sha256(gpu.encode()).hexdigest()
    overall = token(
        **{"x-nvidia-overall-att-result": True}, submods={"GPU-0": ["DIGEST", ["SHA-256", digest]]}
    )
    evidence = [["JWT", overall], {"GPU-0": gpu}]
    request = ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=public_key, attestation=evidence)
    assert (await broker.release("good", request)).encrypted
    with pytest.raises(RefusedError, match="was not issued for this release"):
        await release(broker, attestation=evidence)


async def test_cpu_evidence_alone_and_composite(world):
    """Both kinds are bound to the nonce of this release, and a rule sees both."""
    amd = Amd()
    cpu = {"kinds": ["sev-snp"], "roots": amd.roots, "measurements": [MEASUREMENT]}
    rule = "object.cpu.tcb.microcode >= 213 && object.cpu.vmpl == 0"
    world.model["spec"]["attestation"] = {"required": True, "cpu": cpu, "rule": rule}
    broker, agent = world.broker(), AgentKey.generate()
    public_key = base64.b64encode(agent.public).decode()

    async def attested(broker, evidence):
        nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
        requests = evidence(evidence_nonce(nonce))
        request = ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=public_key, attestation=requests)
        return await broker.release("good", request)

    assert (await attested(broker, lambda nonce: {"cpu": amd.evidence(nonce)})).encrypted
    with pytest.raises(RefusedError, match="sent no CPU evidence"):
        await attested(broker, lambda _nonce: {"gpu": [["JWT", "a.b.c"], {"GPU-0": "a.b.c"}]})
    with pytest.raises(RefusedError, match="was not made for this release"):
        await attested(broker, lambda _nonce: {"cpu": amd.evidence("00" * 32)})
    world.model["spec"]["attestation"]["rule"] = "object.cpu.tcb.microcode > 213"
    with pytest.raises(RefusedError, match="do not meet the rule"):
        await attested(world.broker(), lambda nonce: {"cpu": amd.evidence(nonce)})
    world.model["spec"]["attestation"] |= {"rule": "", "issuer": "https://i.example.com"}
    with pytest.raises(RefusedError, match="requires attested accelerators"):
        await attested(world.broker(), lambda nonce: {"cpu": amd.evidence(nonce)})


async def test_only_the_requested_key_is_unwrapped(world, monkeypatch):
    for key_id in ("k2", "k3"):
        await world.wrap(key_id)
    queries, unwrap = [], LocalKms.unwrap

    async def spy(self, wrapped, context):
        queries.append(context.key_id)
        return await unwrap(self, wrapped, context)

    monkeypatch.setattr(LocalKms, "unwrap", spy)
    keys, lease = await release(world.broker(), key_id="k2")
    assert list(keys) == queries == ["k2"]
    assert lease.keys == ("k1", "k2", "k3")
    assert world.events[-1]["keys"] == ["k2"]
    assert "has no key" in await refusal(world.broker(), key_id="k9")


async def test_a_lease_carries_the_pins_of_the_model(world):
    signer = "A" * 43 + "="
    world.model["spec"] |= {
        "minGeneration": 7,
        "manifest": {"digest": "sha256:" + "a" * 64, "signers": [signer]},
    }
    _, lease = await release(world.broker())
    assert (lease.min_generation, lease.manifest_digest, lease.signers) == (
        7,
        "sha256:" + "a" * 64,
        (signer,),
    )


async def test_a_pod_that_may_not_read_a_model_does_not_use_its_rate(world):
    world.limits = Limits(models=Rate(0.001, 1))
    broker = world.broker()
    world.live["spec"]["serviceAccountName"] = "other"
    for _ in range(3):
        assert "WL324" in await refusal(broker)
    world.live["spec"]["serviceAccountName"] = "trainer"
    await release(broker)
    assert "too many requests for this model" in await refusal(broker)


@pytest.mark.parametrize(("scope", "calls"), [("model", 1), ("node", 1)])
async def test_cached_keys_are_used_by_the_next_release(world, monkeypatch, scope, calls):
    queries, unwrap = [], LocalKms.unwrap

    async def spy(self, wrapped, context):
        queries.append(context.key_id)
        return await unwrap(self, wrapped, context)

    monkeypatch.setattr(LocalKms, "unwrap", spy)
    broker = world.broker(unwrap_cache_seconds=30, unwrap_cache_scope=scope)
    first, _ = await release(broker)
    second, _ = await release(broker)
    assert first == second
    assert len(queries) == calls
    await broker.close()


async def test_an_agent_of_version_0_2_still_gets_its_keys(world):
    agent = AgentKey.generate()
    public_key = base64.b64encode(agent.public).decode()
    broker = world.broker()
    nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
    request = ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=public_key)
    releases = await broker.release("good", request)
    assert agent.open(base64.b64decode(releases.encrypted), nonce, "atlas-70b", None)


async def test_a_lease_that_a_proxy_extends_opens_no_key(world):
    agent = AgentKey.generate()
    public_key = base64.b64encode(agent.public).decode()
    broker = world.broker()
    nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
    request = ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=public_key, protocol=2)
    releases = await broker.release("good", request)
    longer = releases.lease.model_copy(update={"seconds": 86_400})
    with pytest.raises(SealedDataError, match="does not belong to this request"):
        agent.open(base64.b64decode(releases.encrypted), nonce, "atlas-70b", longer.canonical())
