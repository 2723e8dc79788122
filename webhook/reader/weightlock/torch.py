"""``safetensors.torch`` for sealed files: ``weightlock.torch.load_file(path, device="cuda:0")``."""

from __future__ import annotations

from typing import Any

from webhook.keys.sealed.reading import tensors


def load_file(path: str, device: str | int = "cpu", **options: Any) -> dict[str, Any]:
    """Load all tensors of a sealed safetensors file, or of a sharded index, onto ``device``.

    ``options`` are those of `weightlock.safe_open`.
    """
    return tensors.load_file(path, framework="pt", device=device, **options)


__all__ = ["load_file"]
