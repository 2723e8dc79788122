"""The vLLM plug-in: ``load_format="weightlock"`` reads the weights from a sealed directory.

    with weightlock.small_files("/weights") as directory:
        llm = vllm.LLM(
            model=str(directory), load_format="weightlock", model_loader_extra_config={"sealed": "/weights"}
        )

vLLM finds `register` through the entry point ``vllm.general_plugins``, in each of its processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError
from webhook.keys.sealed.reading.tensors import safe_open

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = "weightlock"
_OPTIONS = frozenset({"keys", "key_file", "generation", "threads"})


def register() -> None:
    """Register the load format ``weightlock``. vLLM calls this; a second call changes nothing."""
    from vllm.model_executor import model_loader  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
    from vllm.model_executor.model_loader.base_loader import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
        BaseModelLoader,
    )

    class SealedModelLoader(BaseModelLoader):  # type: ignore[misc, unused-ignore]
        """Loads weights from the sealed directory that ``model_loader_extra_config`` names."""

        def download_model(self, model_config: Any) -> None:
            """Check that the weights can be opened. Nothing is downloaded."""
            with _open(self.load_config, model_config):
                pass

        def load_weights(self, model: Any, model_config: Any) -> None:
            """Pass each tensor to the model as soon as it is decrypted."""
            with _open(self.load_config, model_config) as tensors:
                model.load_weights(_stream(tensors))

    try:
        if type(model_loader.get_model_loader(_Format())).__name__ == SealedModelLoader.__name__:
            return
    except ValueError:
        pass  # not registered yet
    model_loader.register_model_loader(FORMAT)(SealedModelLoader)


class _Format:
    """The only field of vLLM's LoadConfig that selects a loader."""

    load_format = FORMAT


def _open(load_config: Any, model_config: Any) -> safe_open:
    extra = dict(load_config.model_loader_extra_config or {})
    sealed = extra.pop("sealed", model_config.model)
    if unknown := sorted(set(extra) - _OPTIONS):
        raise BadInputError(
            f"model_loader_extra_config has the unknown field {unknown[0]!r}: "
            f"use 'sealed' and {', '.join(sorted(_OPTIONS))}"
        )
    return safe_open(str(sealed), "pt", **extra)


def _stream(tensors: safe_open) -> Iterator[tuple[str, Any]]:
    for name in tensors.offset_keys():
        yield name, tensors.get_tensor(name)


__all__ = ["register"]
