"""The profiles: identifiers of controls and our own words for what Weightlock contributes. No text of a standard.

``criteria`` name functions of `assess`. In addition, every policy that names the control in its ``controls`` must be in
force. A control without criteria and without policies is not served by Weightlock, and is listed as such.
"""

from __future__ import annotations

from typing import NamedTuple


class Control(NamedTuple):
    """One control. ``id`` is its OSCAL id, ``reference`` its spelling in the policies' ``controls``."""

    id: str
    reference: str
    words: str
    criteria: tuple[str, ...] = ()


class Profile(NamedTuple):
    """A selection of controls. ``href`` names the catalog."""

    title: str
    href: str
    controls: tuple[Control, ...]


def _nist(name: str, words: str, *criteria: str) -> Control:
    number = name.lower().replace("(", ".").replace(")", "")
    return Control(number, f"NIST-800-53/{name}", words, criteria)


def _soc2(name: str, words: str, *criteria: str) -> Control:
    return Control(name.lower(), f"SOC2/{name}", words, criteria)


def _iso(name: str, words: str, *criteria: str) -> Control:
    return Control(name.lower(), f"ISO-27001/{name}", words, criteria)


def _ai(name: str, words: str, *criteria: str) -> Control:
    return Control(f"ai.{name.lower()}", f"ISO-42001/{name}", words, criteria)


_LOG = {
    "AU-2": "Weightlock logs every verdict, grant, release, change and drift.",
    "AU-3": "Each entry has type, time, source, user, object and outcome.",
    "AU-6": "Detection rules evaluate the log, and report their alerts.",
    "AU-9": "The log is a signed Merkle tree. Every change of it is detectable.",
    "AU-9(3)": "Checkpoints are signed, and witnesses can cosign them.",
    "AU-10": "A proof of an entry holds for third parties without access to the log.",
    "AU-12": "The webhook, the broker and the controller write entries for their decisions.",
}


def _log_criteria(name: str) -> tuple[str, ...]:
    """Return the criteria of a control of the log. A review of the log needs the evaluation of its entries."""
    return ("log", "detections") if name == "AU-6" else ("log",)


NIST = Profile(
    "NIST SP 800-53 Rev. 5, selected controls",
    "https://doi.org/10.6028/NIST.SP.800-53r5",
    (
        _nist("AC-2", "Grants expire, and only policies decide about service accounts."),
        _nist(
            "AC-3",
            "Policies at Deny decide every access to weights and accelerators.",
            "own-policies",
            "releases",
        ),
        _nist("AC-3(2)", "Several distinct approvers approve each grant.", "grants"),
        _nist("AC-4", "Policies restrict the network of pods with weights."),
        _nist("AC-5", "Requesters cannot approve their own requests.", "grants"),
        _nist("AC-6", "Grants are limited in time, model and namespace.", "grants"),
        _nist("AC-17", "Interactive access to pods with weights is denied."),
        *(_nist(name, words, *_log_criteria(name)) for name, words in _LOG.items()),
        _nist("CA-8", "Drills attack the cluster, and the log shows what stopped each attack.", "drills"),
        _nist("CM-3", "Changes under change control need approval."),
        _nist("CM-5", "The webhook configurations are guarded and restored.", "integrity"),
        _nist("CM-7", "Policies restrict runtimes, capabilities and host access."),
        _nist("CM-14", "Policies restrict images to trusted registries and digests."),
        _nist("IA-2", "Sessions of users must meet the sign-in requirements."),
        _nist("IA-5", "Tokens for the broker are issued to nodes only."),
        _nist("IA-9", "Pods authenticate to the broker with pod-bound tokens."),
        _nist("IA-11", "Sessions of users must be recent."),
        _nist("MP-4", "Volumes with weights are only mounted by pods with a grant."),
        _nist("SC-6", "Accelerators need an entitlement."),
        _nist("SC-7", "Egress of pods with weights is closed."),
        _nist("SC-12", "Keys are released with a receipt, and their leases end.", "releases"),
        _nist("SC-28", "Sealed weights need a released key.", "releases"),
        _nist("SC-39", "Sandbox escapes are denied."),
        _nist("SI-4", "Detection rules monitor the log for theft.", "log", "detections"),
        _nist("SI-7", "Modified sidecars and webhook configurations are detected.", "integrity"),
        _nist("SR-3", "Policies restrict the sources of images."),
        _nist("CP-9", "Weightlock makes no backups."),
        _nist("IR-4", "Weightlock reports events. Incidents are handled elsewhere."),
        _nist("PE-3", "Weightlock controls no physical access."),
        _nist("PS-3", "Weightlock screens no personnel."),
    ),
)

SL5 = Profile(
    "SL5 overlay v0.1, selected controls",
    "https://doi.org/10.6028/NIST.SP.800-53r5",
    (
        _nist("AC-3(2)", "Several distinct approvers approve each grant.", "grants"),
        _nist(
            "SC-7(10)",
            "Egress of pods with weights is closed or on an allow-list, and each model has a minimum time to leave.",
            "policies:SC-7",
            "egress",
        ),
        _nist("CA-8", "Drills attack the cluster, and the log shows what stopped each attack.", "drills"),
        _nist("CM-7(5)", "Only listed images and runtimes run beside weights.", "policies:CM-7"),
        _nist("SI-7(15)", "Images beside weights are named by digest.", "policies:CM-14"),
        _nist("SC-12", "Keys are released with a receipt, and their leases end.", "releases"),
        _nist("SC-28", "Sealed weights need a released key.", "releases"),
        _nist("SI-4", "Detection rules monitor the log for theft.", "log", "detections"),
        *(_nist(name, words, *_log_criteria(name)) for name, words in _LOG.items()),
    ),
)

SOC2 = Profile(
    "SOC 2, common criteria, selected",
    "https://www.aicpa-cima.com/",
    (
        _soc2(
            "CC6.1",
            "Policies at Deny restrict access to weights and accelerators.",
            "own-policies",
            "releases",
        ),
        _soc2("CC6.2", "Access is requested, approved and expires.", "grants"),
        _soc2("CC6.3", "Several distinct approvers approve each grant.", "grants"),
        _soc2("CC6.6", "Policies restrict the network of pods with weights."),
        _soc2("CC6.7", "Policies restrict routes by which weights leave."),
        _soc2("CC6.8", "Policies restrict images and sandbox escapes."),
        _soc2("CC7.1", "Drift of the webhook configurations is detected.", "integrity"),
        _soc2("CC7.2", "Every decision is in a tamper-evident log.", "log"),
        _soc2("CC8.1", "Changes under change control need approval."),
        _soc2("CC1.1", "Weightlock does not serve organizational criteria."),
        _soc2("A1.2", "Weightlock does not serve availability criteria."),
    ),
)

ISO27001 = Profile(
    "ISO/IEC 27001:2022 Annex A, selected",
    "https://www.iso.org/standard/27001",
    (
        _iso("A.5.3", "Requesters cannot approve their own requests.", "grants"),
        _iso("A.5.15", "Policies at Deny decide every access to weights.", "own-policies", "releases"),
        _iso("A.5.16", "Service accounts are restricted."),
        _iso("A.5.17", "Broker tokens are issued to nodes only."),
        _iso("A.5.18", "Access is requested, approved and expires.", "grants"),
        _iso("A.5.21", "Policies restrict the sources of images."),
        _iso("A.5.28", "The log is evidence that third parties can verify.", "log"),
        _iso("A.8.2", "Privileged pods are denied beside weights."),
        _iso("A.8.3", "Mounts of weights need a grant."),
        _iso("A.8.5", "Sessions of users must meet the sign-in requirements."),
        _iso("A.8.9", "The webhook configurations are guarded.", "integrity"),
        _iso("A.8.12", "Policies restrict routes by which weights leave."),
        _iso("A.8.15", "Every decision is in a tamper-evident log.", "log"),
        _iso("A.8.18", "Privileged tools are denied beside weights."),
        _iso("A.8.19", "Policies restrict images."),
        _iso("A.8.22", "Policies restrict the network of pods with weights."),
        _iso("A.8.24", "Keys are released with a receipt.", "releases"),
        _iso("A.8.32", "Changes under change control need approval."),
        _iso("A.7.1", "Weightlock controls no physical access."),
        _iso("A.6.1", "Weightlock screens no personnel."),
    ),
)

ISO42001 = Profile(
    "ISO/IEC 42001:2023 Annex A, selected",
    "https://www.iso.org/standard/42001",
    (
        _ai("A.4.2", "Models and their sensitivity are registered.", "models"),
        _ai("A.6.2.8", "Every decision about models is in a tamper-evident log.", "log"),
        _ai("A.9.2", "Access to models is approved and time-bound.", "grants"),
        _ai("A.2.2", "Weightlock contains no AI policy of the organization."),
        _ai("A.5.2", "Weightlock assesses no impact of AI systems."),
    ),
)

PROFILES: dict[str, Profile] = {
    "nist-800-53": NIST,
    "sl5": SL5,
    "soc2": SOC2,
    "iso-27001": ISO27001,
    "iso-42001": ISO42001,
}
