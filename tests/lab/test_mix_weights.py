"""python -m lab.mix_weights: the mean of weights, and what it refuses."""

import json

import pytest
import torch

from common.errors import UserError
from common.files import file_digest
from lab.mix_weights import main
from models.checkpoints import load_unet, read_tensors, save_unet
from models.unet import IlluminationUNet
from models.weight_files import read_metadata


@pytest.fixture
def two(tmp_path):
    """Two weight files, of nets that differ by a little."""
    torch.manual_seed(0)
    unet, files = IlluminationUNet(map_bias=1.0), []
    for name in ("careful", "strong"):
        files.append(tmp_path / f"{name}.safetensors")
        save_unet(unet, files[-1], {"run": name})
        with torch.no_grad():
            for weights in unet.parameters():
                weights.add_(torch.randn_like(weights) * 0.01)
    return files


def test_each_tensor_is_the_weighted_mean_and_the_file_names_its_parts(two, tmp_path, capsys):
    output = tmp_path / "mean.safetensors"
    assert main([*map(str, two), "--shares", "3", "1", "--output", str(output)]) == 0
    assert "0.75 x " in capsys.readouterr().out
    careful, strong, mean = (read_tensors(file) for file in (*two, output))
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, 0.75 * careful[name] + 0.25 * strong[name])
    assert json.loads(read_metadata(output)["average"]) == [
        {"file": file.name, "sha256": file_digest(file), "share": share, "made_by": read_metadata(file)}
        for file, share in zip(two, (0.75, 0.25), strict=True)
    ]
    load_unet(output, must_enhance=True)


def test_shares_are_equal_unless_given(two, tmp_path):
    output = tmp_path / "mean.safetensors"
    assert main([str(two[0]), str(two[0]), "--output", str(output)]) == 0
    same, mean = read_tensors(two[0]), read_tensors(output)
    assert all(torch.equal(mean[name], tensor) for name, tensor in same.items())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shares", "1"], "--shares: expected 2 numbers, one for each file, found 1"),
        (["--shares", "1", "0"], "--shares: expected numbers above 0, found 0"),
        (["--shares", "1", "nan"], "--shares: expected numbers above 0, found nan"),
        (["--shares", "1e308", "1e308"], "--shares: expected numbers with a finite sum, found 1e\\+308 1e\\+308"),
        (["--output", "mean.pth"], "--output: expected a name that ends in .safetensors, found mean.pth"),
    ],
)
def test_what_does_not_fit_is_one_line(two, tmp_path, more, said):
    with pytest.raises(UserError, match=said):
        main([*map(str, two), "--output", str(tmp_path / "mean.safetensors"), *more])
    assert not (tmp_path / "mean.safetensors").exists()


def test_an_average_that_enhances_nothing_is_not_written(two, tmp_path):
    opposite, output = tmp_path / "opposite.safetensors", tmp_path / "mean.safetensors"
    unet = load_unet(two[0])
    with torch.no_grad():
        unet.cond_add1.bias.fill_(-1.0)
        unet.cond_add1.weight.neg_()
    save_unet(unet, opposite)
    with pytest.raises(UserError, match="the average of these files: expected weights that enhance"):
        main([str(two[0]), str(opposite), "--output", str(output)])
    assert not output.exists()


def test_one_file_is_not_enough(two, tmp_path):
    with pytest.raises(UserError, match="expected two files or more, found 1"):
        main([str(two[0]), "--output", str(tmp_path / "mean.safetensors")])


def test_a_file_that_is_mixed_is_not_replaced(two):
    before = two[0].read_bytes()
    with pytest.raises(UserError, match=r"--output: expected another file than the ones read, found .*careful"):
        main([*map(str, two), "--output", str(two[0])])
    assert two[0].read_bytes() == before
