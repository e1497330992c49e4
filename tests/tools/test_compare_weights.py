"""tools/compare_weights.py: every row and both figures of harm, on photos whose scores are known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from models.checkpoints import save_tensors
from models.unet import IlluminationUNet
from tools import compare_weights


@pytest.fixture
def folders(tmp_path):
    """Two pairs and a well-lit photo: truth 200, input 100 (grey), so that PSNR of the input is known."""
    for name, value in (("backlit", 100), ("gt", 200), ("welllit", 128)):
        (tmp_path / name).mkdir()
        for file in ("a.png", "b.png"):
            Image.fromarray(np.full((24, 24, 3), value, np.uint8)).save(tmp_path / name / file)
    (tmp_path / "kinds.csv").write_text("file,kind\na.png,backlit\nb.png,underexposed\n")
    (tmp_path / "names.txt").write_text("a.png\n")
    return tmp_path


def weights(path, gain: float) -> None:
    """A network whose map is 1 / gain everywhere."""
    state = IlluminationUNet(map_bias=1 / gain).state_dict()
    state["cond_add1.weight"] = torch.zeros_like(state["cond_add1.weight"])
    save_tensors(state, path, {})


def test_rows_and_figures_of_harm(folders, capsys):
    (folders / "nets").mkdir()
    weights(folders / "nets" / "double.safetensors", 2.0)
    weights(folders / "nets" / "triple.safetensors", 3.0)
    save_tensors({"encoder.weight": torch.ones(2)}, folders / "nets" / "other.safetensors", {})  # left out, and told
    command = [
        "--backlit",
        str(folders / "backlit"),
        "--gt",
        str(folders / "gt"),
        "--kinds",
        str(folders / "kinds.csv"),
    ]
    command += [
        "--well-lit",
        str(folders / "welllit"),
        "--weights",
        f"ours={folders / 'nets' / 'double.safetensors'}",
        str(folders / "nets"),
    ]
    with pytest.raises(UserError, match="other"):  # asked for by its name it is not passed over
        compare_weights.main([*command, str(folders / "nets" / "other.safetensors")])
    assert compare_weights.main([*command, "--json", str(folders / "out.json"), "--sheet", str(folders / "s.png")]) == 0
    assert np.asarray(Image.open(folders / "s.png").convert("RGB")).std() > 10  # rows of photos, columns of methods
    result = json.loads((folders / "out.json").read_text())
    rows = result["rows"]
    assert list(rows) == [
        "untouched input",
        "gamma 2.2",
        "CLAHE",
        "computed start map",
        "ours",
        "nets/double",
        "nets/triple",
    ]
    assert result["pairs"] == {"all": 2, "backlit": 1, "underexposed": 1}
    assert rows["untouched input"]["all"]["psnr"] == pytest.approx(20 * np.log10(255 / 100), abs=1e-3)
    assert rows["ours"]["all"]["psnr"] > 60  # 100 · 2 = 200: exact
    harm = rows["ours"]["change, well-lit"]
    assert harm["mean"] == harm["largest"] == pytest.approx((255 - 128) / 255, abs=1e-3)  # 128 · 2 is cut at 255
    assert harm["photos_above_0.05"] == 2
    assert [rows[name]["all"]["clipped"] for name in ("untouched input", "ours", "nets/triple")] == [0, 0, 1]
    assert "nets/triple" in capsys.readouterr().out


def test_list_and_mistakes(folders):
    command = ["--backlit", str(folders / "backlit"), "--gt", str(folders / "gt")]
    stay = ["--well-lit", str(folders / "welllit"), "--well-lit-list", str(folders / "names.txt")]
    assert compare_weights.main([*command, *stay, "--json", str(folders / "out.json")]) == 0
    assert json.loads((folders / "out.json").read_text())["well_lit_photos"] == {"names": 1}
    assert (
        compare_weights.main([*command, "--list", str(folders / "names.txt"), "--json", str(folders / "out.json")]) == 0
    )
    assert json.loads((folders / "out.json").read_text())["pairs"] == {"all": 1}
    lists = [str(folders / "names.txt"), str(folders / "more.txt")]
    (folders / "more.txt").write_text("a.png\nb.png\n")
    kinds = ["--kinds", str(folders / "kinds.csv")]
    assert compare_weights.main([*command, *kinds, "--list", *lists, "--json", str(folders / "out.json")]) == 0
    counts = json.loads((folders / "out.json").read_text())["pairs"]
    assert counts["all"] == counts["more"] == 2 and counts["names"] == counts["more, backlit"] == 1
    with pytest.raises(UserError, match="--weights: expected a weight file or a folder of them"):
        compare_weights.main([*command, "--weights", str(folders / "none")])
    with pytest.raises(UserError, match="columns file and kind"):
        compare_weights.main([*command, "--kinds", str(folders / "names.txt")])


def test_a_damaged_photo_costs_its_pair_and_not_the_others(folders, capsys):
    weights(folders / "double.safetensors", 2.0)
    command = ["--backlit", str(folders / "backlit"), "--gt", str(folders / "gt"), "--json", str(folders / "out.json")]
    command += ["--weights", str(folders / "double.safetensors")]
    (folders / "gt" / "b.png").write_bytes((folders / "gt" / "b.png").read_bytes()[:40])
    assert compare_weights.main(command) == 3
    assert f"failed: {folders / 'gt' / 'b.png'}: " in capsys.readouterr().err
    assert json.loads((folders / "out.json").read_text())["pairs"] == {"all": 1}
