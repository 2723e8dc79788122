"""torch tensors from sealed files are those that safetensors reads from the plain files."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402
import weightlock.torch  # noqa: E402

from webhook.keys.sealed import operations  # noqa: E402

TYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int64",
    "int8",
    "uint8",
    "bool",
)


@pytest.fixture
def sealed(tmp_path, service, work):
    (tmp_path / "plain").mkdir()
    tensors = {name: torch.randn(300, 70).to(getattr(torch, name)) for name in TYPES}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "large": torch.randn(1500, 1024)}
    safetensors.torch.save_file(tensors, tmp_path / "plain/model.safetensors", {"format": "pt"})
    manifest = operations.seal(tmp_path / "plain", tmp_path / "sealed", service, "m", "k1", work)
    with service.unwrap(manifest.key, "m") as key, key.view() as view:
        (tmp_path / "key").write_bytes(view)
    return tmp_path


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist()


def test_load_file_equals_safetensors(sealed):
    mine = weightlock.torch.load_file(str(sealed / "sealed"), key_file=sealed / "key")
    theirs = safetensors.torch.load_file(sealed / "plain/model.safetensors")
    assert set(mine) == set(theirs)
    assert all(same(mine[name], theirs[name]) for name in theirs)
    assert all(tensor.device.type == "cpu" for tensor in mine.values())


def test_safe_open_equals_safetensors(sealed):
    path = sealed / "plain/model.safetensors"
    with (
        weightlock.safe_open(
            sealed / "sealed/model.safetensors", "pt", "cpu", key_file=sealed / "key"
        ) as mine,
        safetensors.safe_open(path, "pt", "cpu") as theirs,
    ):
        assert sorted(mine.keys()) == sorted(theirs.keys())
        assert mine.metadata() == theirs.metadata()
        for name in theirs.keys():  # noqa: SIM118 - not a dict
            assert same(mine.get_tensor(name), theirs.get_tensor(name))
        for index in ((slice(3, 9),), (slice(None), slice(2, 5)), (7,)):
            one, other = mine.get_slice("bfloat16")[index], theirs.get_slice("bfloat16")[index]
            assert same(one, other)


def test_a_tensor_can_be_changed_and_outlives_the_file(sealed):
    with weightlock.safe_open(sealed / "sealed", "pt", key_file=sealed / "key") as tensors:
        tensor = tensors.get_tensor("large")
    tensor += 1
    assert torch.isfinite(tensor).all()


def test_tensors_on_an_accelerator(sealed):
    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    mine = weightlock.torch.load_file(str(sealed / "sealed"), device="cuda:0", key_file=sealed / "key")
    theirs = safetensors.torch.load_file(sealed / "plain/model.safetensors")
    torch.cuda.synchronize()
    assert all(tensor.is_cuda and same(tensor.cpu(), theirs[name]) for name, tensor in mine.items())
