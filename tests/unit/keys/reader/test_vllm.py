"""The vLLM plug-in, with vLLM's own registry of loaders and a tiny model."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from webhook.keys.errors import BadInputError, KeysError


def test_the_distribution_has_the_entry_point():
    matches = [
        point.value for point in entry_points(group="vllm.general_plugins") if point.name == "weightlock"
    ]
    assert matches == ["weightlock.vllm:register"]


@pytest.fixture(scope="module")
def loaders():
    pytest.importorskip("torch")
    pytest.importorskip("vllm", exc_type=ImportError)
    import weightlock.vllm
    from vllm.config.load import LoadConfig
    from vllm.model_executor import model_loader
    from vllm.plugins import load_general_plugins

    load_general_plugins()  # finds the entry point
    first = model_loader.get_model_loader(LoadConfig(load_format="weightlock"))
    weightlock.vllm.register()
    assert type(first) is type(model_loader.get_model_loader(LoadConfig(load_format="weightlock")))
    return model_loader


class Settings:
    """The field of vLLM's ModelConfig that a loader reads."""

    def __init__(self, model):
        self.model = str(model)


def loader_for(loaders, **extra):
    from vllm.config.load import LoadConfig

    return loaders.get_model_loader(LoadConfig(load_format="weightlock", model_loader_extra_config=extra))


def test_a_model_gets_all_weights_through_its_own_load_weights(loaders, sealed_model, plain_model):
    import torch
    import transformers

    sealed, options = sealed_model
    model = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(plain_model))

    class Model(torch.nn.Module):
        def load_weights(self, weights):
            own = dict(model.named_parameters())
            with torch.no_grad():
                for name, tensor in weights:
                    own.pop(name).copy_(tensor)
            assert not own

    loader = loader_for(loaders, sealed=str(sealed), **options)
    assert isinstance(loader, loaders.BaseModelLoader)
    loader.download_model(Settings(plain_model))
    loader.load_weights(Model(), Settings(plain_model))
    expected = transformers.AutoModelForCausalLM.from_pretrained(plain_model).eval()
    tokens = torch.arange(10)[None]
    assert torch.equal(model.eval()(tokens).logits, expected(tokens).logits)


def test_the_loader_rejects_invalid_options(loaders, sealed_model, plain_model, tmp_path):
    sealed, options = sealed_model
    with pytest.raises(BadInputError, match="unknown field 'seald'"):
        loader_for(loaders, seald="x", **options).download_model(Settings(sealed))
    with pytest.raises(KeysError, match="is not in a sealed directory"):
        loader_for(loaders, **options).download_model(Settings(plain_model))
    (tmp_path / "key").write_bytes(bytes(32))
    with pytest.raises(KeysError, match="does not match the manifest"):
        loader_for(loaders, sealed=str(sealed), **options).load_weights(None, Settings(plain_model))
