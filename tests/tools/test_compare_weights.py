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


def test_a_name_without_a_file_is_not_the_current_folder(folders):
    with pytest.raises(UserError, match=r"^--weights: expected NAME=FILE, found ours=$"):
        compare_weights.main(["--backlit", str(folders / "backlit"), "--gt", str(folders / "gt"), "--weights", "ours="])


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
    assert harm["share_above_0.05"] == 1
    assert rows["ours"]["probes"]["region_lift"] > 0.5 and "probes" in rows["CLAHE"]
    assert [rows[name]["all"]["clipped"] for name in ("untouched input", "ours", "nets/triple")] == [0, 0, 1]
    assert "nets/triple" in capsys.readouterr().out


def test_list_and_mistakes(folders):
    command = ["--backlit", str(folders / "backlit"), "--gt", str(folders / "gt")]
    stay = ["--well-lit", str(folders / "welllit"), "--well-lit-list", str(folders / "names.txt")]
    assert compare_weights.main([*command, *stay, "--json", str(folders / "out.json")]) == 0
    assert json.loads((folders / "out.json").read_text())["well_lit_photos"] == {"names": 1}
    pixels = np.full((24, 24, 3), 200, np.uint8)
    pixels[:10, :10] = 30
    Image.fromarray(pixels).save(folders / "welllit" / "a.png")
    weights(folders / "double.safetensors", 2.0)
    with_low_key = [*command, *stay, "--weights", str(folders / "double.safetensors")]
    assert compare_weights.main([*with_low_key, "--json", str(folders / "out.json")]) == 0
    found = json.loads((folders / "out.json").read_text())
    assert found["well_lit_photos"] == {"names": 1, "low key": 1}
    assert found["rows"]["double"]["change, low key"]["mean"] == pytest.approx(30 / 255, abs=1e-3)
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
    with pytest.raises(UserError, match=r"--weights: expected a file, found nothing there: .*none$"):
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


def test_results_of_another_program_are_rows_too(folders):
    for name, value in (("theirs", 200), ("theirs_stay", 128)):
        (folders / name).mkdir()
        for file in ("a.png", "b.jpg"):  # the name counts, not the format
            Image.new("RGB", (24, 24), (value,) * 3).save(folders / name / file)
    command = ["--backlit", str(folders / "backlit"), "--gt", str(folders / "gt"), "--json", str(folders / "out.json")]
    other = ["--other", f"theirs={folders / 'theirs'}"]
    assert compare_weights.main([*command, *other, "--well-lit", str(folders / "welllit")]) == 0
    row = json.loads((folders / "out.json").read_text())["rows"]["theirs"]
    assert row["all"]["psnr"] > 48 and row["all"]["seconds_per_megapixel"] is None
    assert not row.keys() & {"probes", "change, well-lit"}
    stay = ["--well-lit", str(folders / "welllit"), "--other-well-lit", f"theirs={folders / 'theirs_stay'}"]
    assert compare_weights.main([*command, *other, *stay, "--sheet", str(folders / "s.png")]) == 0
    assert json.loads((folders / "out.json").read_text())["rows"]["theirs"]["change, well-lit"]["mean"] < 0.01
    for wrong, message in (
        (["--other", "theirs"], "--other: expected NAME=FOLDER, found theirs"),
        (["--other", f"CLAHE={folders / 'theirs'}"], "--other: expected a name that no other row has, found CLAHE"),
        ([*other, "--other-well-lit", f"x={folders / 'theirs'}"], "--other-well-lit: expected --well-lit with it"),
    ):
        with pytest.raises(UserError, match=message):
            compare_weights.main([*command, *wrong])
    Image.new("RGB", (24, 20)).save(folders / "theirs" / "a.png")
    with pytest.raises(UserError, match=r"--other: expected 24 x 24 pixels, found 24 x 20: .*a\.png"):
        compare_weights.main([*command, *other])
    (folders / "theirs" / "a.png").unlink()
    with pytest.raises(UserError, match=r"--other: expected a result of each of 2 photos, found none of 1 .*a\.png"):
        compare_weights.main([*command, *other])


def test_the_rule_picks_among_weights_on_validation_photos(folders, capsys):
    weights(folders / "double.safetensors", 2.0)
    names = {"pairs_validation": "a.png", "pairs_test": "b.png", "stay_dark": "a.png", "stay_other": "b.png"}
    for name, photo in names.items():
        (folders / f"{name}.txt").write_text(photo + "\n")
    lists = {key: [str(folders / f"{name}.txt") for name in names if name.startswith(key)] for key in ("pairs", "stay")}
    command = ["--backlit", str(folders / "backlit"), "--gt", str(folders / "gt"), "--list", *lists["pairs"]]
    command += ["--well-lit", str(folders / "welllit"), "--well-lit-list", *lists["stay"]]
    command += ["--weights", f"ours={folders / 'double.safetensors'}", "--json", str(folders / "out.json")]
    assert compare_weights.main(command) == 0
    told = capsys.readouterr().out
    assert "picks: none" in told and "not ours: mean of change, stay_dark 0.4980, limit 0.03" in told
    assert json.loads((folders / "out.json").read_text())["picked"] is None


def test_rows_lists_and_kinds_have_names_of_their_own(folders):
    command = ["--backlit", str(folders / "backlit"), "--gt", str(folders / "gt")]
    for name in ("one", "two"):
        (folders / name).mkdir()
        weights(folders / name / "best.safetensors", 2.0)
        (folders / name / "list.txt").write_text("a.png\n")
    best = [str(folders / name / "best.safetensors") for name in ("one", "two")]
    lists = [str(folders / name / "list.txt") for name in ("one", "two")]
    (folders / "all.txt").write_text("a.png\n")
    (folders / "none.txt").write_text("z.png\n")
    (folders / "kinds.csv").write_text("file,kind\na.png,probes\n")
    (folders / "lists.csv").write_text("file,kind\na.png,list\n")
    (folders / "others.csv").write_text("file,kind\nz.png,night\n")
    for more, message in (
        (["--weights", *best], "--weights: expected a name for each row"),
        (["--weights", f"CLAHE={best[0]}"], "--weights: expected a name that no other row has, found CLAHE"),
        (["--list", *lists], "--list: expected lists of different names"),
        (["--list", str(folders / "all.txt")], "found the name of a column"),
        (["--list", str(folders / "none.txt")], "--list: expected names of the 2 photos, found none"),
        (["--well-lit-list", lists[0]], "--well-lit-list: expected --well-lit with it"),
        (["--well-lit-photos", "3"], "--well-lit-photos: expected --well-lit with it"),
        (["--sheet-photos", "3"], "--sheet-photos: expected --sheet with it"),
        (["--gt", str(folders / "backlit")], "--backlit, --gt: expected two folders"),
        (["--kinds", str(folders / "lists.csv"), "--list", lists[0]], "--kinds: expected other kinds than lists"),
        (["--other", f"A={folders / 'gt'}", f"A={folders / 'gt'}"], "--other: expected a name for each folder"),
        (["--json", str(folders / "x.png"), "--sheet", str(folders / "x.png")], "--json, --sheet: expected two files"),
        (["--weights", "mini-clip.safetensors"], "mini-clip.safetensors"),
        (["--kinds", str(folders / "others.csv")], "--kinds: expected names of the 2 photos, found none"),
        (
            ["--kinds", str(folders / "kinds.csv")],
            "--kinds: expected other kinds than all, probes, low key, found probes",
        ),
    ):
        with pytest.raises(UserError, match=message):
            compare_weights.main([*command, *more])


def test_what_is_read_and_files_of_others_are_not_replaced(folders):
    command = ["--backlit", str(folders / "backlit"), "--gt", str(folders / "gt")]
    (folders / "mine.jpg").write_bytes(b"\xff\xd8 a photo")
    with pytest.raises(UserError, match="--json: expected a new name"):
        compare_weights.main([*command, "--json", str(folders / "mine.jpg")])
    with pytest.raises(UserError, match="--sheet: expected a new name"):
        compare_weights.main([*command, "--sheet", str(folders / "gt" / "a.png")])
    for _ in range(2):  # its own is replaced
        assert compare_weights.main([*command, "--sheet", str(folders / "sheet.png")]) == 0


def test_a_pair_of_two_sizes_is_told_and_the_others_scored(folders, capsys):
    Image.new("RGB", (30, 24)).save(folders / "gt" / "b.png")
    command = ["--backlit", str(folders / "backlit"), "--gt", str(folders / "gt"), "--json", str(folders / "o.json")]
    assert compare_weights.main(command) == 3
    assert "b.png: expected 24 x 24 pixels as its photo, found 30 x 24" in capsys.readouterr().err
    assert json.loads((folders / "o.json").read_text())["pairs"]["all"] == 1
