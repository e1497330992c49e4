"""Weights on disk: what is accepted, what is refused, and that nothing is executed."""

import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from models.checkpoints import load_unet, read_tensors, save_tensors
from models.unet import IlluminationUNet
from models.weight_files import read_metadata
from training.state import TrainState


@pytest.fixture
def unet() -> IlluminationUNet:
    torch.manual_seed(0)
    return IlluminationUNet("zeros", map_bias=1.0)


def test_round_trip_with_metadata(unet, tmp_path):
    save_tensors(unet.state_dict(), tmp_path / "new" / "u.safetensors", {"method": "rave"})
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
    save_tensors(unet.state_dict(), tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    assert torch.equal(read_tensors(tmp_path / "a.pth")["cond1.bias"], unet.cond1.bias)


def test_npz_is_read_without_pickle(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.ones(3, dtype=np.float32))
    assert torch.equal(read_tensors(tmp_path / "w.npz")["a"], torch.ones(3))
    np.savez(tmp_path / "o.npz", a=np.array([{}], dtype=object))
    with pytest.raises(UserError):
        read_tensors(tmp_path / "o.npz")


def wrapped(tensors: dict, *keys: str, prefix: str = "") -> dict:
    """A state dict as trainers save it: below keys, each name behind a prefix."""
    content = {prefix + name: tensor for name, tensor in tensors.items()}
    for key in reversed(keys):
        content = {key: content}
    return content


@pytest.mark.parametrize("keys", [(), ("model",), ("state_dict",), ("params",), ("net",), ("netG",), ("ema", "model")])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model.module.net."])
def test_checkpoints_of_the_field(unet, tmp_path, keys, prefix):
    torch.save({**wrapped(unet.state_dict(), *keys, prefix=prefix), "epoch": 3}, tmp_path / "c.pth")
    assert all(map(torch.equal, load_unet(tmp_path / "c.pth").state_dict().values(), unet.state_dict().values()))


@pytest.mark.parametrize("averaged", ["params_ema", "model_ema", "state_dict_ema", "ema"])
def test_averaged_weights_are_preferred_wherever_they_stand(unet, tmp_path, averaged):
    last = {name: tensor + 1 for name, tensor in unet.state_dict().items()}
    torch.save({"params": last, averaged: unet.state_dict()}, tmp_path / "c.pth")
    assert torch.equal(load_unet(tmp_path / "c.pth").cond1.weight, unet.cond1.weight)
    assert torch.equal(read_tensors(tmp_path / "c.pth")["cond1.weight"], unet.cond1.weight)


def test_the_network_is_found_beside_others_and_below_compiled_parts(unet, tmp_path):
    other = {"loss.conv.weight": torch.ones(500), "optimizer.cond1.bias": torch.ones(2)}
    inner = {name.replace("conv1.", "_orig_mod.conv1."): tensor for name, tensor in unet.state_dict().items()}
    content = {"state_dict": {**other, **{f"enhancer.{name}": tensor for name, tensor in inner.items()}}}
    torch.save({**content, "discriminator": {str(i): torch.ones(1) for i in range(99)}}, tmp_path / "lightning.ckpt")
    assert torch.equal(load_unet(tmp_path / "lightning.ckpt").cond_add1.weight, unet.cond_add1.weight)


def test_the_state_of_a_training_gives_its_best_weights(unet, tmp_path):
    """`last.pt`: the network as it was last, its best snapshot, optimiser and counters."""
    optimizer = torch.optim.Adam(unet.parameters())
    sum(parameter.sum() for parameter in unet.parameters()).backward()
    optimizer.step()
    state = TrainState({"unet": unet}, {"unet": optimizer})
    best = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    state.keep_best(best)
    optimizer.step()
    state.save(tmp_path / "last.pt")
    assert not torch.equal(unet.cond1.weight, best["cond1.weight"])
    assert torch.equal(load_unet(tmp_path / "last.pt").cond1.weight, best["cond1.weight"])


def test_what_does_not_fit_is_named_with_its_place(unet, tmp_path):
    tensors = dict(unet.state_dict())
    tensors.pop("cond1.bias")
    torch.save({"params": wrapped(tensors, prefix="net.")}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"in 'params': .*30 tensors.*1 missing \(such as 'cond1.bias'\)"):
        load_unet(tmp_path / "c.pth")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to_sparse(), "found a sparse one"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "found a quantised one"),
        (lambda t: (100 * t).to(torch.int64), "found torch.int64"),
        (lambda t: t.to(torch.complex64), "found torch.complex64"),
        (lambda t: t.to("meta"), "found a meta one"),
        (lambda t: torch.full_like(t, 1e30), "overflow on a small picture"),
        (lambda t: torch.full_like(t, float("inf")), "found NaN or infinity"),
        (lambda t: t * 0, "found zeros everywhere"),
    ],
)
def test_unusable_tensors_are_refused_in_one_line(unet, tmp_path, change, message):
    torch.save({name: change(tensor) for name, tensor in unet.state_dict().items()}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=message) as caught:
        load_unet(tmp_path / "odd.pth")
    assert "odd.pth" in str(caught.value) and "\n" not in str(caught.value)


def test_half_precision_is_taken(unet, tmp_path):
    torch.save({name: tensor.half() for name, tensor in unet.state_dict().items()}, tmp_path / "half.pth")
    assert load_unet(tmp_path / "half.pth").cond1.weight.dtype == torch.float32


def test_weights_that_cannot_enhance_are_refused_where_they_must(unet, tmp_path):
    with torch.no_grad():
        unet.cond_add1.bias.fill_(-1)  # the ReLU lets nothing through
        save_tensors(unet.state_dict(), tmp_path / "dead.safetensors")
        unet.cond_add1.bias.fill_(1e6)
        save_tensors(unet.state_dict(), tmp_path / "black.safetensors")
    load_unet(tmp_path / "dead.safetensors")  # untrained weights may be so
    with pytest.raises(UserError, match="a map of zeros everywhere"):
        load_unet(tmp_path / "dead.safetensors", must_enhance=True)
    with pytest.raises(UserError, match="turn a small picture black"):
        load_unet(tmp_path / "black.safetensors")


def test_damaged_archives_of_numpy_are_told_in_one_line(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.ones(400, dtype=np.float32), b=np.arange(9.0))
    whole = (tmp_path / "w.npz").read_bytes()
    generator = np.random.default_rng(0)
    told = 0
    for number in range(60):
        data = bytearray(whole)
        if number % 3:
            data[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
        else:
            del data[generator.integers(len(data)) :]
        (tmp_path / "d.npz").write_bytes(data)
        try:
            read_tensors(tmp_path / "d.npz")
        except UserError as error:
            assert "d.npz" in str(error) and "\n" not in str(error)
            told += 1
    assert told > 40  # a flipped bit may hit what nobody reads


def test_a_flipped_bit_in_a_file_of_pytorch_is_found(unet, tmp_path):
    """PyTorch itself does not look at the checksums; files that were written without any are taken."""
    whole, flipped, without = (tmp_path / f"{name}.pth" for name in ("whole", "flipped", "without"))
    torch.save(unet.state_dict(), whole)
    data = bytearray(whole.read_bytes())
    data[len(data) // 2] ^= 0x40
    flipped.write_bytes(data)
    with pytest.raises(UserError, match=r"flipped\.pth: damaged, the checksum of whole/data/\d+ in it does not fit"):
        load_unet(flipped)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(unet.state_dict(), without)
        torch.save({"a": torch.ones(5), "empty": torch.empty(0)}, tmp_path / "small.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_tensors(tmp_path / "small.pth")["a"], torch.ones(5))
    assert torch.equal(load_unet(without).state_dict()["cond1.weight"], load_unet(whole).state_dict()["cond1.weight"])


def test_archives_that_unpack_out_of_proportion_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(150_000_000, dtype=np.uint8))
    with pytest.raises(UserError, match="unpack to 150,0"):
        read_tensors(tmp_path / "bomb.npz")


def test_what_is_no_file_of_weights_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    for name, message in (("pipe.pth", "found a pipe"), ("x" * 300, "too long"), ("a\0b.pth", "embedded null")):
        with pytest.raises(UserError, match=message):
            read_tensors(tmp_path / name)


def test_metadata_of_a_file_that_only_claims_to_be_safetensors(tmp_path):
    (tmp_path / "fake.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    with pytest.raises(UserError, match=r"fake.safetensors: not a readable weight file"):
        read_metadata(tmp_path / "fake.safetensors")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    assert read_metadata(tmp_path / "other.safetensors") == {}
    assert torch.equal(read_tensors(tmp_path / "other.safetensors")["a"], torch.ones(1))


def test_files_follow_the_umask(unet, tmp_path):
    save_tensors(unet.state_dict(), tmp_path / "u.safetensors")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "u.safetensors").stat().st_mode) == 0o666 & ~mask
