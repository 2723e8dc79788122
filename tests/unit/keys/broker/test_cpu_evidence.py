"""CPU evidence against chains of our own with the real layouts. No confidential machine is used."""

from __future__ import annotations

import random

import pytest
from cpuevidence import CHIP, MEASUREMENT, NOW, TCB, Amd, Intel
from cryptography.hazmat.primitives.asymmetric import ec

from webhook.api.codes import EVIDENCE, NO_EVIDENCE
from webhook.api.modelweights import CpuAttestation
from webhook.keys.broker.cpu_evidence import verify
from webhook.keys.broker.refusal import RefusedError

NONCE = "c7" * 32


@pytest.fixture(scope="module")
def amd():
    return Amd()


@pytest.fixture(scope="module")
def intel():
    return Intel()


def required(maker, **fields):
    return CpuAttestation(
        **{"kinds": [maker.kind], "roots": maker.roots, "measurements": [MEASUREMENT], **fields}
    )


def check(maker, evidence, now=NOW, **fields):
    return verify(evidence, required(maker, **fields), NONCE, now.timestamp())


def test_a_sev_snp_report(amd):
    claims = check(amd, amd.evidence(NONCE))
    assert claims["kind"] == "sev-snp"
    assert claims["measurement"] == MEASUREMENT
    assert claims["tcb"] == {"bootloader": 4, "tee": 0, "snp": 22, "microcode": 213}
    assert (claims["vmpl"], claims["chipId"]) == (0, CHIP.hex())
    assert "data" not in claims
    assert check(amd, amd.evidence(NONCE, certificates=[amd.vcek, amd.ask, amd.ark])) == claims


def test_a_tdx_quote(intel):
    claims = check(intel, intel.evidence(NONCE))
    assert (claims["kind"], claims["measurement"]) == ("tdx", MEASUREMENT)
    assert claims["rtmr"] == ["00" * 48] * 4
    assert claims["tcbSvn"] == [0] * 16


def put(offset, value):
    def edit(raw):
        raw[offset : offset + len(value)] = value

    return edit


SNP = {
    "debugging": (put(10, b"\x0b"), "permits debugging"),
    "migration": (put(10, b"\x07"), "migration agent"),
    "another nonce": (put(0x50, b"\0"), "not made for this release"),
    "data after the nonce": (put(0x8F, b"\1"), "not made for this release"),
    "another measurement": (put(0x90, b"\0"), "is not an accepted one"),
    "an old version": (put(0, b"\1"), "unknown version or signature"),
    "another algorithm": (put(0x34, b"\2"), "unknown version or signature"),
    "an older microcode": (put(0x187, b"\x01"), "not for the reported version of microcode"),
    "another chip": (put(0x1A0, b"\xff"), "not for the reported chip"),
    "no key": (put(0x48, b"\x1c"), "neither a VCEK nor a VLEK"),
    "Turin's layout with Milan's certificate": (
        lambda raw: (put(0, b"\3")(raw), put(0x188, b"\x1a")(raw)),
        "reported version",
    ),
}


@pytest.mark.parametrize(("edit", "message"), SNP.values(), ids=SNP)
def test_a_sev_snp_report_that_is_not_accepted(amd, edit, message):
    with pytest.raises(RefusedError, match=message) as error:
        check(amd, amd.evidence(NONCE, edit=edit))
    assert error.value.code == EVIDENCE


def test_turin_has_a_layout_of_its_own():
    turin = Amd(tcb={"1.3.9": 1, "1.3.1": 4, "1.3.2": 0, "1.3.3": 22, "1.3.8": 213}, chip=b"\x04\x40" + CHIP)

    def edit(raw):
        raw[0], raw[0x188] = 3, 0x1A
        raw[0x180:0x188] = bytes([1, 4, 0, 22, 0, 0, 0, 213])

    assert check(turin, turin.evidence(NONCE, edit=edit))["tcb"]["fmc"] == 1


def test_a_masked_chip_needs_no_chip_in_the_certificate(amd):
    leaf = amd.leaf(chip=bytes(64))

    def edit(raw):
        raw[0x48] = 2
        raw[0x1A0:0x1E0] = bytes(64)

    assert check(amd, amd.evidence(NONCE, certificates=[leaf, amd.ask], edit=edit))


def test_chains_that_do_not_end_at_a_root(amd, intel):
    other = Amd()
    for certificates, message in (
        ([], "has no certificates"),
        ([amd.ark], "has no certificates"),
        ([amd.vcek], "does not end at a root"),
        ([amd.ask, amd.vcek], "does not end at a root"),
        ([amd.ask], "key of a CA"),
        ([other.vcek, other.ask, other.ark], "does not end at a root"),
        ([other.vcek, amd.ask], "is broken"),
    ):
        with pytest.raises(RefusedError, match=message):
            check(amd, amd.evidence(NONCE, certificates=certificates))
    with pytest.raises(RefusedError, match="does not end at a root"):
        check(amd, amd.evidence(NONCE), roots=intel.roots)
    with pytest.raises(RefusedError, match="no usable root certificates"):
        check(amd, amd.evidence(NONCE), roots="nothing")


def test_a_leaf_that_issues_certificates_makes_no_chain(amd):
    """The owner of one VCEK cannot certify another key with it."""
    from cpuevidence import certificate

    key = ec.generate_private_key(ec.SECP384R1())
    versions = [
        (oid, bytes([2, 1, value]) if value < 128 else bytes([2, 2, 0, value])) for oid, value in TCB.items()
    ]
    forged = certificate("SEV-VCEK", key, (amd.vcek, amd.key), extensions=[*versions, ("1.4", CHIP)])
    with pytest.raises(RefusedError, match="is broken"):
        check(amd, amd.evidence(NONCE, sign=key, certificates=[forged, amd.vcek, amd.ask]))


@pytest.mark.parametrize("options", [{"start": 1}, {"days": -0.5}])
def test_times_of_certificates(amd, options):
    with pytest.raises(RefusedError, match="expired or not valid yet"):
        check(amd, amd.evidence(NONCE, certificates=[amd.leaf(**options), amd.ask]))


TD = {
    "debugging": ({"edit": put(48 + 120, b"\1")}, "permits debugging"),
    "another nonce": ({"edit": put(48 + 520, b"\0")}, "not made for this release"),
    "another measurement": ({"edit": put(48 + 136, b"\0")}, "is not an accepted one"),
    "SGX": ({"edit": put(4, b"\0")}, "unknown version, key type or TEE type"),
    "version 5": ({"edit": put(0, b"\5")}, "unknown version"),
    "enclave in debug mode": ({"edit_qe": put(48, b"\2")}, "in debug mode"),
    "another enclave": ({"edit_qe": put(128, b"\0")}, "is not Intel's"),
    "the enclave for SGX": ({"edit_qe": put(256, b"\1")}, "is not Intel's"),
    "another attestation key": ({"edit_qe": put(320, b"\0\0")}, "did not certify the attestation key"),
    "no enclave": ({"kind": 5}, "is not certified by a quoting enclave"),
}


@pytest.mark.parametrize(("options", "message"), TD.values(), ids=TD)
def test_a_tdx_quote_that_is_not_accepted(intel, options, message):
    with pytest.raises(RefusedError, match=message):
        check(intel, intel.evidence(NONCE, **options))


def test_signatures_of_other_keys(amd, intel):
    with pytest.raises(RefusedError, match="signature of the SEV-SNP report is invalid"):
        check(amd, amd.evidence(NONCE, sign=ec.generate_private_key(ec.SECP384R1())))
    with pytest.raises(RefusedError, match="signature of the quoting enclave's report is invalid"):
        check(intel, _foreign(intel))


def _foreign(intel):
    """A quote whose enclave was signed by another PCK key than the one of the chain."""
    own, intel.key = intel.key, ec.generate_private_key(ec.SECP256R1())
    try:
        return intel.evidence(NONCE)
    finally:
        intel.key = own


@pytest.mark.parametrize("maker", ["amd", "intel"])
def test_no_changed_byte_of_a_signed_report_is_accepted(maker, request):
    maker = request.getfixturevalue(maker)
    raw, chance = maker.report(NONCE), random.Random(7)
    for _ in range(150):
        changed = bytearray(raw)
        changed[chance.randrange(0x2A0 if maker.kind == "sev-snp" else 632 + 4 + 128)] ^= (
            1 << chance.randrange(8)
        )
        with pytest.raises(RefusedError):
            check(maker, maker.evidence(NONCE, report=bytes(changed)))


@pytest.mark.parametrize("maker", ["amd", "intel"])
def test_a_truncated_report_is_a_refusal(maker, request):
    maker = request.getfixturevalue(maker)
    raw = maker.report(NONCE)
    for size in [*range(0, len(raw), 97), len(raw) - 1]:
        with pytest.raises(RefusedError):
            check(maker, maker.evidence(NONCE, report=raw[:size] or b"\0"))


@pytest.mark.parametrize(
    "evidence",
    [
        [], "x", 1, {}, {"kind": "sgx", "report": ""}, {"kind": "tdx"}, {"kind": "tdx", "report": 1},
        {"kind": ["tdx"], "report": ""}, {"kind": "tdx", "report": "!!"},
        {"kind": "sev-snp", "report": "", "certificates": {}},
        {"kind": "sev-snp", "report": "", "certificates": [1]},
        {"kind": "sev-snp", "report": "", "certificates": ["AA=="] * 5},
        {"kind": "tdx", "report": "A" * 100_000},
    ],
)  # fmt: skip
def test_evidence_of_another_shape(intel, evidence):
    with pytest.raises(RefusedError) as error:
        check(intel, evidence, kinds=["tdx", "sev-snp"])
    assert error.value.code == EVIDENCE


def test_evidence_that_is_missing_or_of_another_kind(amd, intel):
    with pytest.raises(RefusedError) as error:
        check(amd, None)
    assert error.value.code == NO_EVIDENCE
    with pytest.raises(RefusedError, match="tdx is not an accepted kind"):
        check(amd, intel.evidence(NONCE))
