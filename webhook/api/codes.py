"""The registry of reason codes: number, title, category and section of docs/denied.md, each in one place.

Metric labels, report classes, the constants of other modules and the test of docs/denied.md derive from it. A code is
stable: it is never reused for another meaning. A user-defined policy may use any ``WL`` code of three digits.

To add a code: add one `_reason` line here and one section with the same title to docs/denied.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Category(StrEnum):
    """What a code concerns. The value is the class of a report result."""

    WEIGHTS = "weights"
    DEVICES = "devices"
    KEYS = "keys"
    BROKER = "broker"
    ACCESS = "access"
    BASELINE = "baseline"
    FAULT = "weightlock"
    BROKER_FAULT = "broker-fault"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason code. ``title`` is the title of its section in docs/denied.md."""

    code: str
    title: str
    category: Category

    @property
    def section(self) -> str:
        """The anchor of the section in docs/denied.md."""
        return self.code


REASONS: Final[dict[str, Reason]] = {}


def _reason(code: str, title: str, category: Category) -> str:
    if code in REASONS:
        raise ValueError(f"reason code {code} is defined twice")
    REASONS[code] = Reason(code, title, category)
    return code


NO_GRANT: Final = _reason("WL101", "No active grant", Category.WEIGHTS)
UNRESOLVED_STORAGE: Final = _reason("WL102", "Storage that cannot be resolved", Category.WEIGHTS)
ACCOUNT_NOT_USABLE: Final = _reason(
    "WL103", "Service account has the grant, requester is not allowed to use it", Category.WEIGHTS
)
USER_GRANT_ONLY: Final = _reason(
    "WL104", "Warning: only the user's own grant covers this workload", Category.WEIGHTS
)
DECIDED_LATER: Final = _reason("WL105", "Warning: decided when pods are created", Category.WEIGHTS)
EXPOSES_WEIGHTS: Final = _reason("WL111", "Storage that would expose protected weights", Category.WEIGHTS)
COPIES_WEIGHTS: Final = _reason("WL112", "Pod that copies protected weights", Category.WEIGHTS)
ESCAPES_SANDBOX: Final = _reason("WL113", "Pod could escape its sandbox", Category.WEIGHTS)
CREATES_MEMORY_IMAGE: Final = _reason("WL114", "Memory image of a pod that reads weights", Category.WEIGHTS)
FORBIDS_MEMORY_IMAGE: Final = _reason("WL115", "Memory image that the ModelWeights forbids", Category.WEIGHTS)
NODE_VOLUME: Final = _reason("WL116", "Volume onto paths of the node", Category.WEIGHTS)
INTERACTIVE_ACCESS: Final = _reason(
    "WL121", "No interactive access to pods that read weights", Category.WEIGHTS
)
NODE_PROXY: Final = _reason("WL122", "No proxy to nodes", Category.WEIGHTS)
SERVICE_ACCOUNT_USE: Final = _reason(
    "WL141", "Service account that the requester is not allowed to use", Category.WEIGHTS
)
SERVICE_ACCOUNT_TOKEN: Final = _reason("WL142", "Not the service account's own token", Category.WEIGHTS)
OPERATOR_NOT_LISTED: Final = _reason("WL143", "Warning: operator is not listed", Category.WEIGHTS)

NOT_ENTITLED: Final = _reason("WL201", "Not entitled to this accelerator", Category.DEVICES)
DEVICE_BYPASS: Final = _reason(
    "WL202", "Route to an accelerator that bypasses the resource request", Category.DEVICES
)
SCHEDULER_BYPASS: Final = _reason(
    "WL203", "Pod that bypasses the scheduler or uses admin access to devices", Category.DEVICES
)
SHARED_DEVICES: Final = _reason(
    "WL204", "Shared accelerators for a model that excludes them", Category.DEVICES
)
UNRESOLVED_CLAIM: Final = _reason("WL205", "Device claim that does not exist yet", Category.DEVICES)

SIDECAR_MODIFIED: Final = _reason("WL301", "Key sidecar missing or modified", Category.KEYS)
RESERVED_NAME: Final = _reason("WL302", "Reserved name", Category.KEYS)
UNDELIVERABLE: Final = _reason("WL303", "Keys cannot be delivered to this pod", Category.KEYS)
UNREADABLE: Final = _reason("WL304", "Warning: delivered key may be unreadable", Category.KEYS)
BROKER_TOKEN: Final = _reason("WL311", "Tokens for the key broker", Category.KEYS)

BAD_REQUEST: Final = _reason("WL320", "Malformed request to the key broker", Category.BROKER)
NONCE: Final = _reason("WL321", "Invalid nonce", Category.BROKER)
TOKEN: Final = _reason("WL322", "Token not accepted by the broker", Category.BROKER)
NOT_A_POD: Final = _reason("WL323", "Token of an identity that is not a pod", Category.BROKER)
POD_GONE: Final = _reason("WL324", "Pod no longer exists", Category.BROKER)
NOT_ITS_MODEL: Final = _reason("WL325", "Pod does not read this model", Category.BROKER)
NO_GRANT_AT_RELEASE: Final = _reason("WL326", "No active grant at release", Category.BROKER)
POLICY_AT_RELEASE: Final = _reason("WL327", "Pod would not be admitted now", Category.BROKER)
INTEGRITY: Final = _reason("WL328", "Webhook configurations missing or modified", Category.BROKER)
NO_EVIDENCE: Final = _reason("WL329", "No attestation evidence", Category.BROKER)
EVIDENCE: Final = _reason("WL330", "Attestation failed", Category.BROKER)
NO_KEY: Final = _reason("WL331", "Model has no usable key", Category.BROKER)
KMS_DENIED: Final = _reason("WL332", "KMS denied the request", Category.BROKER)
RATE_LIMIT: Final = _reason("WL333", "Too many requests", Category.BROKER)
REPLAYED: Final = _reason("WL334", "Replayed nonce", Category.BROKER)
OVER_EGRESS: Final = _reason("WL335", "Pod sent more than its egress budget", Category.BROKER)
PROVENANCE: Final = _reason("WL338", "Provenance of the model not accepted", Category.BROKER)
RUNNING_IMAGE: Final = _reason("WL339", "Running image differs from the verified image", Category.BROKER)

INVALID_ACCESS_OBJECT: Final = _reason("WL401", "Object does not match its schema", Category.ACCESS)
STAMP: Final = _reason("WL402", "Object without the identity of its author", Category.ACCESS)
IMPERSONATED: Final = _reason("WL403", "Impersonated session", Category.ACCESS)
IMMUTABLE: Final = _reason("WL404", "Requests and approvals are immutable", Category.ACCESS)
UNDELETABLE: Final = _reason("WL405", "Approvals cannot be deleted", Category.ACCESS)
STATUS: Final = _reason("WL406", "Status is written by the controller only", Category.ACCESS)
UNKNOWN_MODEL: Final = _reason("WL411", "Unknown model", Category.ACCESS)
UNKNOWN_SUBJECT: Final = _reason("WL412", "Unknown service account", Category.ACCESS)
DURATION: Final = _reason("WL413", "Duration out of bounds", Category.ACCESS)
REASON: Final = _reason("WL414", "Reason required", Category.ACCESS)
NOT_WAIVABLE: Final = _reason("WL415", "Policy cannot be waived", Category.ACCESS)
BREAK_GLASS: Final = _reason("WL416", "Not authorized for break-glass access", Category.ACCESS)
NOT_UNDER_CHANGE_CONTROL: Final = _reason("WL417", "Kind not under change control", Category.ACCESS)
SERVICE_ACCOUNT_REQUEST: Final = _reason("WL418", "Service accounts cannot request access", Category.ACCESS)
UNKNOWN_REQUEST: Final = _reason("WL421", "Unknown request", Category.ACCESS)
OWN_REQUEST: Final = _reason("WL422", "Requesters cannot approve their own request", Category.ACCESS)
ALREADY_VOTED: Final = _reason("WL423", "One vote per approver", Category.ACCESS)
NOT_ELIGIBLE: Final = _reason("WL424", "Not an approver for this model", Category.ACCESS)
SERVICE_ACCOUNT_VOTE: Final = _reason("WL425", "Service accounts cannot approve", Category.ACCESS)
REQUEST_CLOSED: Final = _reason("WL426", "Request is closed", Category.ACCESS)
CHANGE_NEEDS_APPROVAL: Final = _reason("WL431", "Change needs approval", Category.ACCESS)
PROTECTION_LABELS: Final = _reason("WL441", "Protection labels of a namespace", Category.ACCESS)
WEAKENED: Final = _reason("WL442", "Protection would be weakened", Category.ACCESS)
SESSION: Final = _reason("WL451", "Sign-in session does not meet the requirements", Category.ACCESS)

CUSTOM_POLICY: Final = _reason("WL500", "Policy of your organization", Category.BASELINE)
UNSAFE_DOCUMENT: Final = _reason("WL501", "Document that cannot be evaluated safely", Category.BASELINE)
MALFORMED_OBJECT: Final = _reason("WL502", "Malformed object", Category.BASELINE)
INVALID_MODELWEIGHTS: Final = _reason("WL503", "Invalid ModelWeights", Category.BASELINE)
INVALID_POLICY: Final = _reason("WL504", "WeightPolicy that does not compile", Category.BASELINE)
TOO_LARGE: Final = _reason("WL505", "Object too large to evaluate", Category.BASELINE)
BASELINE_BESIDE_WEIGHTS: Final = _reason("WL511", "Beside weights: Pod Security baseline", Category.BASELINE)
RESTRICTED_BESIDE_WEIGHTS: Final = _reason(
    "WL512", "Beside weights: Pod Security restricted", Category.BASELINE
)
EGRESS_NOT_CLOSED: Final = _reason("WL521", "Egress is not closed", Category.BASELINE)
EGRESS_NOT_ALLOWED: Final = _reason("WL522", "Egress beyond the allow-list", Category.BASELINE)
DEFAULT_DENY_EGRESS: Final = _reason(
    "WL523", "NetworkPolicy default-deny-egress is required", Category.BASELINE
)
UNSUPPORTED_EGRESS_POLICY: Final = _reason("WL524", "Only NetworkPolicies beside weights", Category.BASELINE)
EGRESS_BUDGET: Final = _reason("WL525", "Model could leave in less than its minimum time", Category.BASELINE)
EGRESS_LIMIT: Final = _reason("WL526", "Egress limit missing or modified", Category.BASELINE)
EGRESS_UNENFORCED: Final = _reason(
    "WL527", "Warning: the network may enforce no egress limit", Category.BASELINE
)
SANDBOXED_RUNTIME: Final = _reason("WL531", "Sandboxed runtime required", Category.BASELINE)
IMAGE_REGISTRY: Final = _reason("WL541", "Image from a registry that is not trusted", Category.BASELINE)
IMAGE_DIGEST: Final = _reason("WL542", "Image without a digest", Category.BASELINE)
IMAGE_UNSIGNED: Final = _reason("WL543", "Image without a signature", Category.BASELINE)
IMAGE_SIGNER: Final = _reason("WL544", "Image not signed by a trusted signer", Category.BASELINE)
IMAGE_REGISTRY_UNAVAILABLE: Final = _reason(
    "WL545", "Image cannot be verified: registry unavailable", Category.BASELINE
)
IMAGE_SIGNATURE: Final = _reason("WL546", "Image with an invalid signature", Category.BASELINE)
IMAGE_TAG: Final = _reason("WL547", "Image by tag cannot be verified", Category.BASELINE)
IMAGE_UNCOVERED: Final = _reason("WL548", "Beside weights: image without a trust rule", Category.BASELINE)
IMAGE_PROVENANCE: Final = _reason("WL549", "Image without the required provenance", Category.BASELINE)

UNEVALUABLE: Final = _reason("WL901", "Policy could not be evaluated", Category.FAULT)
INTERNAL_ERROR: Final = _reason("WL902", "Internal error of Weightlock", Category.FAULT)
NOT_READY: Final = _reason("WL903", "Weightlock has no current snapshot", Category.FAULT)
OVERLOADED: Final = _reason("WL904", "Weightlock is overloaded", Category.FAULT)
LOOKUP_FAILED: Final = _reason("WL905", "Lookup in the cluster failed", Category.FAULT)
NOT_LOGGED: Final = _reason("WL906", "Audit log unavailable", Category.FAULT)

CLUSTER_UNAVAILABLE: Final = _reason("WL911", "Broker cannot query the cluster", Category.BROKER_FAULT)
KMS_UNAVAILABLE: Final = _reason("WL912", "KMS unavailable", Category.BROKER_FAULT)
ISSUER_UNAVAILABLE: Final = _reason("WL913", "Attestation issuer unavailable", Category.BROKER_FAULT)
RELEASE_NOT_LOGGED: Final = _reason("WL914", "Key release cannot be logged", Category.BROKER_FAULT)


def codes_of(*categories: Category) -> tuple[str, ...]:
    """Return the codes of these categories, in order."""
    return tuple(code for code, reason in sorted(REASONS.items()) if reason.category in categories)


KNOWN: Final = frozenset(REASONS)
BROKER_DENIALS: Final = codes_of(Category.BROKER)
BROKER_FAULTS: Final = codes_of(Category.BROKER_FAULT)
FAULTS: Final = codes_of(Category.FAULT)
ADMISSION: Final = tuple(sorted(KNOWN.difference(BROKER_DENIALS, BROKER_FAULTS)))
# A retry can help: the cause is outside the object. Value: seconds to wait.
RETRY_AFTER_SECONDS: Final = {NOT_READY: 5, OVERLOADED: 2, LOOKUP_FAILED: 2, INTERNAL_ERROR: 5, NOT_LOGGED: 5}
