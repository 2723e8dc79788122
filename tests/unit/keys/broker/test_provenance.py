"""Release with spec.provenance: only for a statement that pinned signers signed and that satisfies the rule."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from keyworld import serving

from webhook.core.provenance.models import Attestation, ModelProvenance, ModelSignature, Signer
from webhook.keys.agent.client import lease_bytes
from webhook.keys.broker.protocol import ChallengeRequest, ReleaseRequest, RenewRequest
from webhook.keys.broker.refusal import RefusedError
from webhook.keys.envelope import AgentKey
from webhook.keys.errors import SealedDataError
from webhook.keys.sealed import operations
from webhook.keys.sealed.format.manifest import KeyRef, Manifest, signer_id
from webhook.keys.sealed.format.statement import sign_statement
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.signed_content import SignedContent, whole_file
from webhook.keys.sealed.transfer import NoProgress

SEALER = Ed25519PrivateKey.generate()
KEY = f"sha256:{'a' * 64}"
SIGNER = Signer("key", KEY)
SLSA = Attestation(
    "https://slsa.dev/provenance/v1",
    f"sha256:{'d' * 64}",
    (SIGNER,),
    {"runDetails": {"builder": {"id": "https://ci.example.com"}}},
)
PROVENANCE = ModelProvenance(
    ModelSignature(SIGNER, f"sha256:{'b' * 64}", "atlas", "files", "sha256", 5, f"sha256:{'c' * 64}"), (SLSA,)
)
MANIFEST = Manifest(
    "atlas-70b",
    3,
    "2026-11-29T00:00:00Z",
    KeyRef("k1", "local:///k", b"x"),
    (),
    digest=f"sha256:{'e' * 64}",
    provenance=PROVENANCE,
)
RULE = (
    "object.signature.kind == 'key' && object.attestations.exists(a, a.type == 'https://slsa.dev/provenance/v1'"
    " && size(a.signers) > 0 && a.predicate.runDetails.builder.id == 'https://ci.example.com')"
)


def require(world, manifest=MANIFEST, sealer=SEALER, pinned=(SEALER,), **required):
    spec = world.model["spec"]
    spec["provenance"] = {"signers": [{"key": KEY}], "rule": RULE, **required}
    spec["manifest"] = {
        "signers": [signer_id(signer) for signer in pinned],
        "statement": sign_statement(manifest, sealer),
    }
    return spec


async def release(world, key_id="k1"):
    broker, agent = world.broker(), AgentKey.generate()
    public_key = base64.b64encode(agent.public).decode()
    nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
    request = ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=public_key, protocol=2, key_id=key_id)
    releases = await broker.release("good", request)
    lease = lease_bytes(json.loads(releases.lease.model_dump_json(by_alias=True)))
    return set(agent.open(base64.b64decode(releases.encrypted), nonce, "atlas-70b", lease)), releases.lease


async def refused(world, key_id="k1"):
    with pytest.raises(RefusedError) as error:
        await release(world, key_id)
    assert error.value.code == "WL338"
    return str(error.value)


async def test_a_statement_that_satisfies_the_rule(world):
    require(world)
    keys, lease = await release(world)
    assert keys == {"k1"}
    assert lease.manifest_digest == MANIFEST.digest


async def test_only_the_key_of_the_statement(world):
    """A key under which other files may be sealed stays with the broker."""
    await world.wrap("k2")
    require(world)
    assert (await release(world, ""))[0] == {"k1"}
    assert (await release(world, ""))[1].keys == ("k1",)
    assert 'sealed with key "k1"' in await refused(world, "k2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "object.signature.kind == 'sigstore'"}, "does not satisfy"),
        ({"rule": "object.signature.missing == 1"}, "cannot be evaluated"),
        ({"rule": "object.attestations.all(a, a.predicate.none)"}, "cannot be evaluated"),
        ({"rule": "1 + 1"}, "does not compile|does not satisfy"),
        ({"rule": "("}, "does not compile"),
        ({"signers": [{"key": f"sha256:{'0' * 64}"}]}, "not in spec.provenance.signers"),
        ({"signers": [{"issuer": "https://i", "subject": "*"}]}, "not in spec.provenance.signers"),
        ({"signers": [{"ca": KEY}]}, "not in spec.provenance.signers"),
        ({"sealer": Ed25519PrivateKey.generate()}, "not in spec.manifest.signers"),
        ({"manifest": replace(MANIFEST, model="other")}, 'about model "other"'),
        ({"manifest": replace(MANIFEST, key=KeyRef("k9", "local:///k", b"x"))}, 'sealed with key "k9"'),
    ],
)
async def test_refusals(world, changes, message):

    require(world, **changes)
    assert re.search(message, await refused(world))


async def test_no_statement(world):
    require(world)["manifest"]["statement"] = ""
    assert "statement is empty" in await refused(world)


async def test_a_changed_statement(world):
    manifest = require(world)["manifest"]
    other = sign_statement(replace(MANIFEST, generation=9), SEALER).split(".")
    manifest["statement"] = ".".join([other[0], *manifest["statement"].split(".")[1:]])
    assert "was changed" in await refused(world)


async def test_an_older_generation(world):
    require(world)["minGeneration"] = 4
    assert "generation 3" in await refused(world)


async def test_another_pinned_manifest(world):
    require(world)["manifest"]["digest"] = f"sha256:{'f' * 64}"
    assert "another manifest" in await refused(world)


async def test_a_renewal_is_evaluated_again(world):
    """An admin who tightens the rule revokes the keys that were released before."""
    require(world)
    await release(world)
    assert (
        await world.broker().renew("good", RenewRequest(model="atlas-70b"))
    ).manifest_digest == MANIFEST.digest
    require(world, rule="false")
    with pytest.raises(RefusedError, match="does not satisfy"):
        await world.broker().renew("good", RenewRequest(model="atlas-70b"))


async def test_a_model_without_keys(world):
    require(world)
    world.model["spec"]["keys"] = []
    assert "not the requested key" in await refused(world, "")


async def test_any_verified_signer_is_enough_without_signers_and_rule(world):
    require(world, rule="")
    world.model["spec"]["provenance"] = {}
    assert (await release(world))[0] == {"k1"}
    world.model["spec"]["manifest"]["statement"] = ""
    assert "statement is empty" in await refused(world)


async def test_from_the_signed_model_to_its_reader(world, tmp_path):
    """Seal a signed model, release its key by its statement, and read it; the next, unsigned generation is not read."""
    source, directory = tmp_path / "model", tmp_path / "sealed"
    source.mkdir()
    (source / "w.bin").write_bytes(b"weights")
    service = KeyService(f"local://{world.home}/keyset.json")
    work = Work(1, NoProgress(), "2026-11-29T00:00:00Z", SEALER)
    content = SignedContent({"w.bin": whole_file(b"weights")}, lambda _: False, False, PROVENANCE)
    manifest = await asyncio.to_thread(
        operations.seal, source, directory, service, "atlas-70b", "k9", work, content=content
    )
    require(world, manifest)
    wrapped = base64.b64encode(manifest.key.wrapped).decode()
    world.model["spec"]["keys"] = [{"id": "k9", "kms": manifest.key.kms, "wrapped": wrapped}]
    async with serving(world, tmp_path) as endpoint:
        keys, lease = await asyncio.to_thread(endpoint.client().release, "atlas-70b", "k9")
        with operations.open_sealed(directory, keys["k9"], pins=lease.pins) as sealed:
            assert sealed.manifest.provenance == PROVENANCE
        (source / "w.bin").write_bytes(b"other weights")
        await asyncio.to_thread(
            operations.seal, source, directory, service, "atlas-70b", "", work, update=True
        )
        keys, lease = await asyncio.to_thread(endpoint.client().release, "atlas-70b", "k9")
        with (
            pytest.raises(SealedDataError, match="does not contain the manifest that the ModelWeights pins"),
            operations.open_sealed(directory, keys["k9"], pins=lease.pins),
        ):
            pass
