"""Every refusal once, through the whole broker: the code, and the sentence that a person reads in the sidecar's log."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest

from tests.unit.core.images.test_images import GOOD, trust, verification
from webhook.api import codes
from webhook.api.images import ImageTrust
from webhook.core.admission.provider import NotReadyError
from webhook.core.images.statements import trust_hash
from webhook.keys.broker.protocol import ChallengeRequest, ReleaseRequest
from webhook.keys.broker.rate_limits import Limits, Rate
from webhook.keys.broker.refusal import RefusedError, UnavailableError
from webhook.keys.envelope import AgentKey
from webhook.keys.errors import KmsUnavailableError

TRAIN = "pod research/train"


class PreparedRequest:
    """One request as it will be sent, and the broker that will get it; a case spoils one of them."""

    def __init__(self, world):
        self.world, self.token, self.model, self.attestation = world, "good", "atlas-70b", None
        self.public_key = AgentKey.generate().public
        self.broker = world.broker()
        self.challenge()

    def challenge(self):
        public_key = base64.b64encode(self.public_key).decode()
        self.nonce = self.broker.challenge(ChallengeRequest(public_key=public_key)).nonce

    def again(self):
        """Another broker before the world as it is by now, and another nonce."""
        self.broker = self.world.broker()
        self.challenge()

    async def send(self):
        request = ReleaseRequest(
            model=self.model,
            nonce=self.nonce,
            public_key=base64.b64encode(self.public_key).decode(),
            attestation=self.attestation,
        )
        return await self.broker.release(self.token, request)


def attested(asked):
    asked.world.model["spec"]["attestation"] = {"required": True, "issuer": "https://issuer.example.com"}
    asked.again()


def weak_key(asked):
    asked.public_key = bytes(32)
    asked.nonce = asked.broker._challenges.issue(asked.public_key, asked.world.now.timestamp())


class FullLog:
    async def release(self, event, seconds):
        reason = "cannot log the key release: the queue of the audit log is full"
        raise UnavailableError(codes.RELEASE_NOT_LOGGED, reason)

    def record(self, event):
        pass


def log_full(asked):
    asked.broker._log = FullLog()


def late(asked):
    asked.world.now += timedelta(seconds=121)


def not_of_a_pod(asked):
    user = {"username": "system:serviceaccount:research:trainer", "extra": {}}
    asked.world.reviewed = {"authenticated": True, "audiences": ["weightlock.dev/broker"], "user": user}


def deleted(asked):
    asked.world.live["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z"


def without_grant(asked):
    asked.world.state = [d for d in asked.world.state if d["kind"] != "AccessApproval"]
    asked.again()


def no_sidecar(asked):
    asked.world.live["spec"].pop("initContainers")


def tampered(asked):
    asked.world.faults = ("ValidatingWebhookConfiguration weightlock was changed (failurePolicy)",)


def no_bundle(asked):
    attested(asked)
    asked.attestation = {"not": "a bundle"}


def key_entry(**change):
    def spoil(asked):
        asked.world.model["spec"]["keys"][0].update(change)
        asked.again()

    return spoil


def too_often(asked):
    asked.world.limits = Limits(pods=Rate(1, 0))
    asked.again()


async def replayed(asked):
    await asked.send()


def unmetered(asked):
    asked.world.model["spec"]["egress"] = {"size": "810Gi", "minimumTime": "30d", "perPod": "2M"}
    asked.world.live = asked.world.admitted()
    asked.again()


def without_statement(asked):
    key = f"sha256:{'a' * 64}"
    sealer = base64.b64encode(bytes(32)).decode()
    spec = {"provenance": {"signers": [{"key": key}]}, "manifest": {"signers": [sealer]}}
    asked.world.model["spec"] |= spec
    asked.again()


def other_image(asked):
    digest = asked.world.live["spec"]["containers"][0]["image"].partition("@")[2]
    rule = trust(images=["registry.example.com/research/*"])
    rule_hash = trust_hash(ImageTrust.model_validate(rule).spec)
    asked.world.state += [rule, verification({digest: GOOD}, rule=rule_hash)]
    name = asked.world.live["spec"]["containers"][0]["name"]
    running = {"name": name, "imageID": f"registry.example.com/research/train@sha256:{'9' * 64}"}
    asked.world.live["status"] = {**asked.world.live.get("status", {}), "containerStatuses": [running]}
    asked.again()


def not_ready(asked):
    def snapshot():
        raise NotReadyError("Weightlock has not read modelweights yet")

    asked.broker._source = type("Source", (), {"snapshot": staticmethod(snapshot), "fetch": None})()


def sealed_vault(asked):
    class Vault:
        async def unwrap(self, wrapped, context):
            raise KmsUnavailableError("vault://transit/atlas: the vault is sealed")

    asked.broker._services[asked.world.model["spec"]["keys"][0]["kms"]] = Vault()


def issuer_away(asked):
    attested(asked)
    asked.world.key_sets = UnavailableError(
        codes.ISSUER_UNAVAILABLE, "cannot fetch the attestation issuer's key set: x"
    )


CASES = {
    "WL320": (weak_key, "the agent's public key is invalid"),
    "WL321": (late, "the nonce is older than 120 seconds: request a new one"),
    "WL322": (
        lambda asked: setattr(asked, "token", "bad"),
        "the API server rejects the token: it is expired, forged or from another cluster",
    ),
    "WL323": (
        not_of_a_pod,
        "the token is not bound to a pod: the broker accepts only the sidecar's own token",
    ),
    "WL324": (deleted, f"{TRAIN} is being deleted"),
    "WL325": (lambda asked: setattr(asked, "model", "other"), 'ModelWeights "other" does not exist'),
    "WL326": (
        without_grant,
        (
            'service account research/trainer has no active grant for model "atlas-70b". Fix: weightlock access '
            "request atlas-70b --for 8h --service-account research/trainer"
        ),
    ),
    "WL327": (
        no_sidecar,
        (
            f"{TRAIN} was not admitted in its present form: the pod mounts protected weights, but "
            "its key sidecar is missing or modified [WL301]"
        ),
    ),
    "WL328": (
        tampered,
        (
            "keys are not released because webhook configurations are missing or modified: "
            "ValidatingWebhookConfiguration weightlock was "
            "changed (failurePolicy)"
        ),
    ),
    "WL329": (attested, "this model requires attested accelerators, but the sidecar sent no evidence"),
    "WL330": (no_bundle, "attestation: the evidence is not a detached EAT bundle"),
    "WL331": (key_entry(wrapped="***"), 'key "k1" of model "atlas-70b" is not base64'),
    "WL332": (
        key_entry(id="k2"),
        "the keyset KEYSET rejects this data key: it was wrapped for another model or key id, or changed",
    ),
    "WL333": (too_often, "too many requests for this pod: try again in 60 s"),
    "WL334": (replayed, "the nonce was used before: request a new one"),
    "WL335": (
        unmetered,
        (
            f'{TRAIN} gets no key of model "atlas-70b": its key sidecar reports no egress: set '
            "settings.injection.image to the image of this version"
        ),
    ),
    "WL338": (
        without_statement,
        (
            'the provenance of model "atlas-70b" is not accepted: spec.manifest.statement is empty. Fix: seal the '
            "model with --verify-signature and --signing-key, and copy the printed statement"
        ),
    ),
    "WL339": (
        other_image,
        (
            f"{TRAIN} runs another image than the verified one: container main runs sha256:{'9' * 64}, "
            f"the pod names sha256:{'4f' * 32}"
        ),
    ),
    "WL911": (not_ready, "Weightlock has not read modelweights yet"),
    "WL912": (sealed_vault, "vault://transit/atlas: the vault is sealed"),
    "WL913": (issuer_away, "cannot fetch the attestation issuer's key set: x"),
    "WL914": (log_full, "cannot log the key release: the queue of the audit log is full"),
}


def test_every_code_of_the_broker_has_a_case():
    assert set(CASES) == {*codes.BROKER_DENIALS, *codes.BROKER_FAULTS}


@pytest.mark.parametrize("code", CASES)
async def test_a_refusal_is_one_sentence_that_says_why(world, code):
    spoil, sentence = CASES[code]
    asked = PreparedRequest(world)
    pending = spoil(asked)
    if pending is not None:
        await pending
    with pytest.raises((RefusedError, UnavailableError)) as rejection:
        await asked.send()
    assert (rejection.value.code, str(rejection.value)) == (
        code,
        sentence.replace("KEYSET", f"{world.home}/keyset.json"),
    )
    assert isinstance(rejection.value, UnavailableError) is code.startswith("WL9")
    assert world.events[-1]["code"] == code
    assert world.events[-1]["message"] == str(rejection.value)
