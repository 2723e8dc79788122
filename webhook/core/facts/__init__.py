"""What a workload asks for: the weights it can read, the devices it can reach, the ways out of its sandbox."""

from webhook.core.facts.gather import (
    gather,
    gather_claim,
    gather_content,
    gather_resource_claim,
    gather_snapshot,
    gather_volume,
)
from webhook.core.facts.model import DeviceUse, Escape, Facts, TemplateFacts, WeightUse
from webhook.core.facts.request import gather_request

__all__ = [
    "DeviceUse",
    "Escape",
    "Facts",
    "TemplateFacts",
    "WeightUse",
    "gather",
    "gather_claim",
    "gather_content",
    "gather_request",
    "gather_resource_claim",
    "gather_snapshot",
    "gather_volume",
]
