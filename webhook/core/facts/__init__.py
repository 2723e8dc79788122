"""Facts about a workload: the weights that it can read, the devices that it can reach, its sandbox escapes."""

from webhook.core.facts.gather import gather
from webhook.core.facts.model import DeviceUse, Escape, Facts, TemplateFacts, WeightUse
from webhook.core.facts.request import gather_request
from webhook.core.facts.storage import gather_object

__all__ = [
    "DeviceUse",
    "Escape",
    "Facts",
    "TemplateFacts",
    "WeightUse",
    "gather",
    "gather_object",
    "gather_request",
]
