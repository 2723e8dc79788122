"""A tiny language model, made on the spot, plain and sealed. Needs torch and transformers: `make loaders`."""

from __future__ import annotations

import pytest

from webhook.keys.sealed import operations


@pytest.fixture
def plain_model(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(3)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(vocab_size=64, tie_word_embeddings=False, **shape, **heads)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "plain", max_shard_size="30KB")
    return tmp_path / "plain"


@pytest.fixture
def sealed_model(plain_model, tmp_path, service, work):
    """The sealed directory and the options that open it."""
    manifest = operations.seal(plain_model, tmp_path / "sealed", service, "tiny", "k1", work)
    with service.unwrap(manifest.key, "tiny") as key, key.view() as view:
        (tmp_path / "key").write_bytes(view)
    return tmp_path / "sealed", {"key_file": str(tmp_path / "key")}
