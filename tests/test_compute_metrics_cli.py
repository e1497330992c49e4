"""compute_metrics.py as a user runs it: files written, what is said, exit codes."""

import csv
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

import compute_metrics
from common.errors import UserError
from metrics.full_reference import PROTOCOLS, psnr_paper, psnr_rgb, ssim_paper, ssim_rgb
from metrics.report import difference_map
from metrics.stlpips import StLpips

ROOT = Path(compute_metrics.__file__).parent


def _picture(seed: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Results a(1), a(2), b and ground truths a, b, as PNG; {name: pixels} in `pictures`."""
    pictures = {}
    for seed, name in enumerate(["enhanced/a(1).png", "enhanced/a(2).png", "enhanced/b.png", "gt/a.png", "gt/b.png"]):
        pictures[name] = _picture(seed)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pictures[name]).save(path)
    return tmp_path, pictures


def _call(folder: Path, *more: str, lpips: str = "off") -> int:
    """`main` on the two folders of `folder`."""
    return compute_metrics.main(
        ["--gt", str(folder / "gt"), "--enhanced", str(folder / "enhanced"), "--lpips", lpips, "--stlpips=off", *more]
    )


def _summary(folder: Path) -> dict:
    return json.loads((folder / "enhanced_metrics.json").read_text())


def test_a_pair_too_large_for_memory_does_not_cost_the_others(folders, capsys, monkeypatch):
    folder, _ = folders

    def measure(result, truth, lpips):
        if result[0, 0, 0] == _picture(2)[0, 0, 0]:
            raise MemoryError
        return {"psnr": 1.0, "ssim": 1.0, "lpips": None}

    monkeypatch.setitem(PROTOCOLS, "rgb", measure)
    assert _call(folder, "--protocol", "rgb") == 3
    assert len(_summary(folder)["images"]) == 2
    assert "failed: b.png: expected a pair that fits into memory" in capsys.readouterr().err


def test_a_photo_is_never_overwritten_by_figures(folders):
    folder, _ = folders
    with pytest.raises(UserError, match="--json: expected a name that is no photo's"):
        _call(folder, "--json", str(folder / "gt" / "a.png"))


def test_json_csv_and_table(folders, capsys):
    folder, pictures = folders
    assert _call(folder) == 0
    summary = _summary(folder)
    expected, none = {}, {"lpips": None, "stlpips": None}
    for name, truth in (("a(1).png", "gt/a.png"), ("a(2).png", "gt/a.png"), ("b.png", "gt/b.png")):
        images = pictures[f"enhanced/{name}"], pictures[truth]
        expected[name] = {"psnr": psnr_rgb(*images), "ssim": ssim_rgb(*images), **none}
        if name != "a(2).png":  # protocol paper: one result a family
            expected[name]["paper"] = {"psnr": psnr_paper(*images), "ssim": ssim_paper(*images), **none}
    assert summary["protocol"] == "rgb"
    assert {image.pop("name"): image for image in summary["images"]} == expected
    for protocol, count, values in (
        ("rgb", 3, list(expected.values())),
        ("paper", 2, [v["paper"] for v in expected.values() if "paper" in v]),
    ):
        entry = summary["protocols"][protocol]
        assert entry["count"] == count
        assert entry["mean"]["psnr"] == pytest.approx(np.mean([v["psnr"] for v in values]))
        assert entry["mean"]["ssim"] == pytest.approx(np.mean([v["ssim"] for v in values]))
    reasons = {f"{name}_reason": f"switched off (metrics.{name}=off)" for name in none}
    assert summary["mean"] == summary["protocols"]["rgb"]["mean"] | reasons
    assert summary["unmatched"] == {"enhanced": [], "ground_truth": []} and summary["failed"] == []
    assert summary["gt_images_path"] == str(folder / "gt") and summary["versions"]["scikit-image"]

    with (folder / "enhanced_metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a(1).png", "a(2).png", "b.png"]
    assert float(rows[1]["rgb_psnr"]) == expected["a(2).png"]["psnr"]
    assert rows[1]["paper_psnr"] == rows[1]["rgb_lpips"] == "" != rows[0]["paper_psnr"]
    assert sorted(p.name for p in folder.iterdir()) == [
        "enhanced",
        "enhanced_metrics.csv",
        "enhanced_metrics.json",
        "gt",
    ]

    out = capsys.readouterr().out
    assert out.count("switched off") == 1 and "ST-LPIPS" not in out and "family, so 1 not measured" in out
    assert f"{summary['mean']['psnr']:.2f}" in out and "a(2).png" in out and "enhanced_metrics.json" in out


def test_paper_alone_is_the_top_level(folders):
    folder, pictures = folders
    assert _call(folder, "--protocol", "paper") == 0
    summary = _summary(folder)
    assert summary["protocol"] == "paper" and list(summary["protocols"]) == ["paper"]
    assert [image["name"] for image in summary["images"]] == ["a(1).png", "b.png"]
    assert summary["images"][1]["psnr"] == psnr_paper(pictures["enhanced/b.png"], pictures["gt/b.png"])
    assert summary["mean"]["psnr"] == summary["protocols"]["paper"]["mean"]["psnr"]


def test_same_folder_twice_and_chosen_files(folders):
    folder, _ = folders
    gt = str(folder / "gt")
    chosen = ["--json", str(folder / "new/m.json"), "--csv", str(folder / "new/table.csv")]
    assert compute_metrics.main(["--gt", gt, "--enhanced", gt, "--lpips=off", *chosen]) == 0
    mean = json.loads((folder / "new/m.json").read_text())["mean"]
    assert mean["psnr"] == 100 and mean["ssim"] == pytest.approx(1)
    assert (folder / "new/table.csv").is_file()


def test_bad_files_are_named_and_the_others_measured(folders, capsys):
    folder, _ = folders
    Image.fromarray(_picture(9, (30, 48))).save(folder / "enhanced/a(1).png")
    for name in (
        "enhanced/c.png",
        "enhanced/d.png",
        "enhanced/flat.png",
        "gt/c.png",
        "gt/d.png",
        "gt/d.jpg",
        "gt/flat.png",
    ):
        Image.fromarray(_picture(3)).save(folder / name)
    (folder / "enhanced/c.png").write_bytes(b"not a picture")
    Image.new("RGB", (48, 32), "grey").save(folder / "enhanced/flat.png")
    assert _call(folder) == 3
    summary = _summary(folder)
    assert [image["name"] for image in summary["images"]] == ["a(2).png", "b.png", "flat.png"]
    assert "paper" not in summary["images"][2] and summary["protocols"]["paper"]["count"] == 1
    reasons = {entry["name"]: entry["reason"] for entry in summary["failed"]}
    assert list(reasons) == ["a(1).png", "c.png", "d.png", "flat.png"]
    assert "expected 32 x 48 px (H x W) as the ground truth, found 30 x 48" in reasons["a(1).png"]
    assert "d.jpg, d.png" in reasons["d.png"] and "flat" in reasons["flat.png"]
    err = capsys.readouterr().err
    assert all(f"failed: {name}: " in err for name in reasons) and len(err.splitlines()) == 4


def test_unmatched_files_are_listed(folders, capsys):
    folder, _ = folders
    for number in range(12):
        Image.fromarray(_picture(number)).save(folder / f"enhanced/extra{number:02}.png")
    (folder / "gt/a.png").rename(folder / "gt/aa.png")
    assert _call(folder) == 0
    summary = _summary(folder)
    assert summary["unmatched"]["ground_truth"] == ["aa.png"]
    assert summary["unmatched"]["enhanced"] == ["a(1).png", "a(2).png", *(f"extra{n:02}.png" for n in range(12))]
    out = capsys.readouterr().out
    assert "results without a ground truth: 14\n  a(1).png" in out and "extra07.png" in out and "extra08.png" not in out
    assert "... and 4 more" in out and "ground truths without a result: 1\n  aa.png" in out


def test_many_images_show_the_extremes(tmp_path, capsys):
    for number in range(41):
        truth = _picture(number, (16, 16))
        for name, pixels in (("gt", truth), ("enhanced", np.maximum(truth, number + 100))):  # a higher number is worse
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"photo{number:02}.png")
    assert _call(tmp_path, "--protocol", "rgb") == 0
    out = capsys.readouterr().out
    order = [int(line[5:7]) for line in out.splitlines() if line.startswith("photo")]
    assert len(out.splitlines()) < 30
    psnr = {int(image["name"][5:7]): image["psnr"] for image in _summary(tmp_path)["images"]}
    by_psnr = sorted(psnr, key=psnr.get)
    assert order == by_psnr[:5] + by_psnr[:-6:-1]


def test_lpips_offline(folders, monkeypatch, capsys):
    def no_network(*_, **__):
        raise URLError("offline")

    folder, _ = folders
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    assert _call(folder, lpips="auto") == 0
    mean = _summary(folder)["mean"]
    assert mean["lpips"] is None and mean["lpips_reason"].startswith(
        "not available: AlexNet weights could not be fetched (offline)"
    )
    assert capsys.readouterr().out.count("could not be fetched") == 1
    with pytest.raises(UserError, match=r"metrics\.lpips=on"):
        _call(folder, lpips="on")


def test_mistakes(folders, tmp_path):
    folder, _ = folders
    Image.fromarray(_picture(0)).save(tmp_path / "x.png")
    (tmp_path / "123").mkdir()
    (tmp_path / "x.png").rename(tmp_path / "123/x.png")
    with pytest.raises(
        UserError,
        match=r"no result has the name of a ground truth: 1 in .*123 \(such as x\.png\), 2 in .*gt \(such as a\.png\)",
    ):
        compute_metrics.main(["--gt", str(folder / "gt"), "--enhanced", str(tmp_path / "123")])
    for arguments, message in (
        (
            ["--gt", str(folder / "gt")],
            r"data\.enhanced_images_path: expected a folder, found nothing there: .*--enhanced DIR",
        ),
        (["--gt", "it's: 123", "--enhanced", "1"], "found nothing there: 1"),
        (["--gt", "1", "--enhanced", str(folder / "enhanced")], "found nothing there: 1"),
        (["--protocol", "grey"], "--protocol: expected 'rgb', 'paper' or 'both'"),
        (["--set", "metrics.lpip=off"], "did you mean 'metrics.lpips'"),
        (
            ["--gt", str(folder / "gt"), "--enhanced", str(folder / "gt"), "--json", str(folder)],
            "expected a file, found a folder",
        ),
        (
            ["--gt", str(folder / "gt"), "--enhanced", str(folder / "gt"), "--json", "m.csv"],
            "expected two files, found one",
        ),
    ):
        with pytest.raises(UserError, match=message):
            compute_metrics.main(arguments)


def test_as_a_process_a_mistake_is_one_line_and_quick():
    command = [sys.executable, "-X", "importtime", "compute_metrics.py", "--gt", "nowhere", "--enhanced", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and done.stdout == ""
    assert said == ["error: --enhanced: expected a folder, found nothing there: nowhere"]
    assert not any(
        line.split("|")[-1].strip() in {"torch", "skimage", "numpy"} for line in done.stderr.splitlines() if "|" in line
    )


def test_two_results_of_one_ground_truth_are_not_both_in_the_mean(folders, capsys):
    folder, _ = folders
    Image.fromarray(_picture(5)).save(folder / "enhanced" / "b.jpg")
    assert _call(folder, "--protocol", "rgb") == 3
    assert [image["name"] for image in _summary(folder)["images"]] == ["a(1).png", "a(2).png"]
    assert "failed: b.png: several results have its name: b.jpg, b.png" in capsys.readouterr().err


def test_small_photos_have_a_psnr(tmp_path, capsys):
    for name, size in (("a.png", (10, 30)), ("b.png", (40, 40))):
        for folder, seed in (("gt", 1), ("enhanced", 2)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(_picture(seed, size)).save(tmp_path / folder / name)
    assert _call(tmp_path, "--protocol", "rgb") == 0
    small, large = _summary(tmp_path)["images"]
    assert small["ssim"] is None and small["psnr"] > 0 and large["ssim"] is not None
    assert _summary(tmp_path)["mean"]["ssim"] == large["ssim"]
    assert "rgb: SSIM of 1 images, the others are too small for it" in capsys.readouterr().out


def test_names_cannot_write_to_the_terminal(tmp_path, capsys):
    for folder in ("gt", "enhanced"):
        (tmp_path / folder).mkdir()
        Image.fromarray(_picture(1)).save(tmp_path / folder / "a\x1b[2Jb.png")
    Image.fromarray(_picture(1)).save(tmp_path / "gt" / "c\nd.png")
    assert _call(tmp_path, "--protocol", "rgb") == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "a\\x1b[2Jb.png" in printed and "c\\nd.png" in printed


def test_st_lpips_beside_the_others(folders, capsys):
    if importlib.util.find_spec("stlpips_pytorch") is None:
        pytest.skip("requirements-metrics.txt is not installed")
    folder, pictures = folders
    assert _call(folder, "--stlpips", "auto") == 0
    summary = _summary(folder)
    distance = StLpips("alex")(pictures["enhanced/b.png"], pictures["gt/b.png"])
    image = next(image for image in summary["images"] if image["name"] == "b.png")
    assert image["stlpips"] == image["paper"]["stlpips"] == distance > 0
    assert "stlpips_reason" not in summary["mean"] and "ST-LPIPS" in capsys.readouterr().out


def test_a_page_shows_the_worst_and_the_best_with_difference_maps(tmp_path, capsys):
    for number in range(12):
        truth = _picture(number, (16, 24))
        for name, pixels in (("gt", truth), ("enhanced", np.maximum(truth, 15 * number))):  # a higher number is worse
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"<b>{number:02}.png")
    page = tmp_path / "page.html"
    assert _call(tmp_path, "--protocol", "rgb", "--report", str(page), "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    html = page.read_text(encoding="utf-8")
    assert "<b>1" not in html and not re.search(r"https?://|<script|@import|url\(", html)
    assert re.findall(r"&lt;b&gt;(\d\d)\.png <span", html) == [
        *("11", "10", "09", "08", "07"),
        *("00", "01", "02", "03", "04"),
    ]
    sources = re.findall(r"src=[\"']([^\"']*)", html)
    assert len(sources) == 1 + 10 * 3 and all(source.startswith("data:image/") for source in sources)


def test_difference_maps_tell_brighter_from_darker():
    truth = np.full((2, 3, 3), 100, np.uint8)
    assert (difference_map(truth, truth) == 255).all()
    brighter, darker = difference_map(truth + 100, truth)[0, 0], difference_map(truth - 100, truth)[0, 0]
    assert brighter[0] > brighter[2] and darker[0] < darker[2]
    assert (difference_map(truth + 20, truth) > brighter).all()  # paler


def test_files_of_others_are_not_replaced(folders, capsys):
    folder, _ = folders
    for name, content in (("enhanced_metrics.json", '{"mine": 1}'), ("enhanced_metrics.csv", "name,age\n")):
        (folder / name).write_text(content)
        with pytest.raises(UserError, match=rf"metrics\.\w+_file: expected a new name or .* another one: .*{name}"):
            _call(folder)
        assert (folder / name).read_text() == content
        (folder / name).unlink()
    assert _call(folder) == 0 and _call(folder) == 0  # ours are
    (folder / "enhanced_metrics.csv").write_text("name,age\n")
    assert _call(folder, "--overwrite") == 0
    assert (folder / "enhanced_metrics.csv").read_text().startswith("name,rgb_psnr")
