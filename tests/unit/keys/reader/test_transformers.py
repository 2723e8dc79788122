"""The recipe for transformers: a model from a sealed directory computes what the plain one computes."""

from __future__ import annotations

import json

import pytest

from webhook.keys.errors import KeysError
from webhook.keys.sealed import operations

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")

import weightlock.transformers  # noqa: E402

TOKENS = torch.arange(10)[None]


def test_a_sealed_model_computes_the_same(sealed_model, plain_model):
    sealed, options = sealed_model
    assert len(list(plain_model.glob("*.safetensors"))) > 1, "shards"
    expected = transformers.AutoModelForCausalLM.from_pretrained(plain_model).eval()(TOKENS).logits
    model = weightlock.transformers.from_pretrained(sealed, **options)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert torch.equal(model.eval()(TOKENS).logits, expected)


def test_the_class_and_other_options_reach_transformers(sealed_model):
    sealed, options = sealed_model
    model = weightlock.transformers.from_pretrained(
        sealed, transformers.LlamaForCausalLM, dtype=torch.bfloat16, **options
    )
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama", "architectures": ["os"]}, "names no architecture"),
        ({"model_type": "llama", "architectures": ["AutoConfig"]}, "names no architecture"),
        ({"model_type": "no-such-type"}, "transformers cannot read config.json"),
        ([], "transformers cannot read config.json"),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path, service, work, config, message):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    manifest = operations.seal(tmp_path / "other", tmp_path / "sealed", service, "m", "k1", work)
    with service.unwrap(manifest.key, "m") as key, key.view() as view:
        (tmp_path / "key").write_bytes(view)
    with pytest.raises(KeysError, match=message):
        weightlock.transformers.from_pretrained(tmp_path / "sealed", key_file=tmp_path / "key")
