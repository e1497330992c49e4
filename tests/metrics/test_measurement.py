"""Measuring a folder from Python: what is returned and written, and that nothing is printed."""

import csv
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from metrics.full_reference import psnr_paper, psnr_rgb
from metrics.measurement import Room, measure_folder


@pytest.fixture
def folders(tmp_path):
    """(folder of results a, b, small and broken, folder of ground truths)."""
    rng = np.random.default_rng(0)
    for folder in ("enhanced", "gt"):
        (tmp_path / folder).mkdir()
        for name, side in (("a", 24), ("b", 24), ("small", 8), ("broken", 24)):
            picture = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "enhanced" / "broken.png").write_text("no photo")
    return tmp_path / "enhanced", tmp_path / "gt"


def test_a_folder_from_python(folders, tmp_path, capsys):
    measured = measure_folder(*folders, lpips="off", stlpips="off")
    assert list(measured.scores) == ["a.png", "b.png", "small.png"]
    assert [name for name, _ in measured.failed] == ["broken.png"]
    pictures = {name: [np.array(Image.open(folder / name)) for folder in folders] for name in measured.scores}
    for protocol, psnr in (("rgb", psnr_rgb), ("paper", psnr_paper)):
        summary = measured.summary(protocol)
        assert summary.mean["psnr"] == pytest.approx(np.mean([psnr(*pair) for pair in pictures.values()]))
        assert summary.mean["lpips"] is None and summary.count == 3
    assert measured.summary("rgb").measured == {"psnr": 3, "ssim": 2, "lpips": 0, "stlpips": 0}  # 8 px are too few
    content = measured.write_json(tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == content
    assert content["mean"]["ssim"] == measured.summary("rgb").mean["ssim"]
    measured.write_csv(tmp_path / "m.csv")
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert float(rows["a.png"]["paper_psnr"]) == measured.scores["a.png"]["paper"]["psnr"]
    assert rows["small.png"]["rgb_ssim"] == "" and "broken.png" not in rows
    assert capsys.readouterr() == ("", "")


def test_the_first_protocol_leads(folders):
    content = measure_folder(*folders, ("paper",), lpips="off", stlpips="off").content()
    assert content["protocol"] == "paper" and list(content["protocols"]) == ["paper"]
    assert content["mean"]["psnr"] == content["protocols"]["paper"]["mean"]["psnr"]


@pytest.mark.parametrize("protocols", ["rgb", (), ("lab",)])
def test_unknown_protocols_are_refused(folders, protocols):
    with pytest.raises(ValueError, match="protocols: expected some of"):
        measure_folder(*folders, protocols)


def test_folders_without_a_common_name(folders):
    enhanced, truths = folders
    for path in truths.iterdir():
        path.rename(path.with_stem(f"other_{path.stem}"))
    with pytest.raises(UserError, match=r"no result has the name of a ground truth: 4 in .*enhanced \(such as a.png\)"):
        measure_folder(enhanced, truths)


def test_large_pairs_take_turns():
    room, inside, most = Room(100), [], []

    def work(pixels: int) -> None:
        with room.take(pixels):
            inside.append(pixels)
            most.append(sum(inside))
            time.sleep(0.005)
            inside.remove(pixels)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [40, 70, 30, 60, 250, 20, 90, 10] * 4))
    assert len(most) == 32 and max(total for total in most if total != 250) <= 100
