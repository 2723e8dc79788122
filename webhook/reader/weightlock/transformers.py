"""Models of the package transformers from a sealed directory, without plaintext on any file system.

model = weightlock.transformers.from_pretrained("/weights", device="cuda:0")
with weightlock.small_files("/weights") as directory:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import transformers  # type: ignore[import-not-found, import-untyped, unused-ignore]

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed.reading import tensors
from webhook.keys.sealed.reading.client import open_weights

if TYPE_CHECKING:
    from pathlib import Path

_MAX_CONFIG = 16 << 20
_OPENING = ("keys", "key_file", "generation", "threads")


def from_pretrained(
    sealed: str | Path, kind: Any = None, *, device: str | int = "cpu", **options: Any
) -> Any:
    """Load the model of a sealed directory.

    ``kind`` is a model class of transformers; the default is the architecture that config.json names. ``options`` are
    those of `weightlock.open_weights`, and all others are passed to ``kind.from_pretrained``. Code in the directory is
    never run.

    Raises:
        KeysError: as `weightlock.safe_open`; or the configuration names no architecture of this transformers.
    """
    opening = {name: options.pop(name) for name in _OPENING if name in options}
    config = _config(sealed, opening)
    if kind is None:
        kind = _architecture(config)
    state = tensors.load_file(sealed, "pt", device=device, **opening)
    model = kind.from_pretrained(None, config=config, state_dict=state, **options)
    return model if str(device) == "cpu" else model.to(device)


def _config(sealed: str | Path, opening: dict[str, Any]) -> Any:
    with open_weights(sealed, **opening) as weights:
        if weights.size("config.json") > _MAX_CONFIG:
            raise SealedDataError("config.json is too large to be a configuration")
        content = weights.read("config.json")
    try:
        fields = json.loads(content)
        return transformers.AutoConfig.for_model(**fields)
    except (ValueError, TypeError, RecursionError) as error:
        raise SealedDataError(f"transformers cannot read config.json: {error}") from None


def _architecture(config: Any) -> Any:
    for name in config.architectures or ():
        kind = getattr(transformers, str(name), None)
        if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
            return kind
    raise BadInputError("config.json names no architecture that transformers has: pass the model class")


__all__ = ["from_pretrained"]
