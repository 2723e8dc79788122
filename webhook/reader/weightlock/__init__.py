"""Read sealed weights under the product's name: ``import weightlock``.

    with weightlock.open_weights("/weights") as weights:
        config = json.load(weights.open("config.json"))
    with weightlock.safe_open("/weights/model.safetensors", framework="pt", device="cuda:0") as tensors:
        weight = tensors.get_tensor("lm_head.weight")

The code is in `webhook.keys.sealed`. This package only names its public part; see docs/loaders.md.
"""

from webhook.keys.errors import BadInputError, KeysError, SealedDataError, StorageError, WrongKeyError
from webhook.keys.sealed.format.paths import KEYS
from webhook.keys.sealed.reading.client import SealedFile, Tensors, Weights, open_weights
from webhook.keys.sealed.reading.small import small_files
from webhook.keys.sealed.reading.tensors import load_file, safe_open

__all__ = [
    "KEYS",
    "BadInputError",
    "KeysError",
    "SealedDataError",
    "SealedFile",
    "StorageError",
    "Tensors",
    "Weights",
    "WrongKeyError",
    "load_file",
    "open_weights",
    "safe_open",
    "small_files",
]
