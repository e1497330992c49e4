"""Weights on disk: what is accepted, what is refused, and that nothing is executed."""

import pickle
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from models.checkpoints import load_unet, read_tensors, save_unet
from models.unet import IlluminationUNet
from models.weight_files import read_metadata


@pytest.fixture
def unet() -> IlluminationUNet:
    torch.manual_seed(0)
    return IlluminationUNet("zeros", map_bias=1.0)


def test_round_trip_with_metadata(unet, tmp_path):
    save_unet(unet, tmp_path / "new" / "u.safetensors", {"method": "rave"})
    loaded = load_unet(tmp_path / "new" / "u.safetensors", "zeros")
    images = torch.rand(1, 3, 20, 20)
    assert torch.equal(loaded(images), unet(images))
    assert read_metadata(tmp_path / "new" / "u.safetensors") == {"method": "rave"}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["u.safetensors"]  # no temporary file is left


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_format_with_and_without_prefix(unet, tmp_path, prefix):
    torch.save({prefix + name: tensor for name, tensor in unet.state_dict().items()}, tmp_path / "u.pth")
    assert torch.equal(load_unet(tmp_path / "u.pth").cond1.weight, unet.cond1.weight)


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_pickled_code_is_never_executed(tmp_path):
    marker = tmp_path / "executed"
    torch.save({"cond1.weight": _Payload(marker)}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Payload(marker)))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(UserError):
            load_unet(tmp_path / name)
    assert not marker.exists()


def test_what_does_not_fit_is_told_in_one_line(unet, tmp_path):
    def refused(name: str) -> str:
        with pytest.raises(UserError) as caught:
            load_unet(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
        return str(caught.value)

    assert "found nothing there" in refused("absent.pth")
    (tmp_path / "folder.pth").mkdir()
    assert "found a folder" in refused("folder.pth")
    (tmp_path / "text.pth").write_text("hello")
    assert "not a readable weight file" in refused("text.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    assert "not a readable weight file" in refused("empty.safetensors")
    (tmp_path / "page.pth").write_text("<html>Not found</html>")
    assert "was the download complete?" in refused("page.pth")
    torch.save({1: torch.zeros(1)}, tmp_path / "keys.pth")
    assert "expected a state dict" in refused("keys.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "expected a state dict" in refused("list.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    assert "30 missing" in refused("other.pth")
    tensors = dict(unet.state_dict())
    torch.save({**tensors, "cond1.bias": torch.zeros(5)}, tmp_path / "shape.pth")
    assert "'cond1.bias': expected shape (32,)" in refused("shape.pth")
    torch.save({**tensors, "cond1.bias": torch.full((32,), float("nan"))}, tmp_path / "nan.pth")
    assert "found NaN" in refused("nan.pth")
    torch.save(tensors, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-1000])
    assert "found one that is cut off" in refused("cut.pth")


def test_a_file_is_read_by_its_content_whatever_its_suffix(unet, tmp_path):
    save_unet(unet, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    assert torch.equal(read_tensors(tmp_path / "a.pth")["cond1.bias"], unet.cond1.bias)


def test_npz_is_read_without_pickle(tmp_path):
    import numpy as np

    np.savez(tmp_path / "w.npz", a=np.ones(3, dtype=np.float32))
    assert torch.equal(read_tensors(tmp_path / "w.npz")["a"], torch.ones(3))
    np.savez(tmp_path / "o.npz", a=np.array([{}], dtype=object))
    with pytest.raises(UserError):
        read_tensors(tmp_path / "o.npz")
