"""The report of what guides a training: complete, self-contained, escaped; and the tools beside it."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.paths import REPO_ROOT
from data.outputs import RUN_FILES
from lab import residual_speed
from metrics.direction import word_kind
from models import clip_encoder
from models.weight_files import read_metadata
from tools import interpret_residual

MINI_CLIP = str(REPO_ROOT / "pretrained_models/mini-clip.safetensors")


@pytest.fixture
def flags(photo_folders, tmp_path):
    """The command line for the small folders."""

    def _flags(*overrides: str, model: str = "mini-clip", pretrained: str | None = MINI_CLIP) -> list[str]:
        backlit, well_lit = photo_folders
        every = (
            f"data.backlit_images_path={backlit}",
            f"data.welllit_images_path={well_lit}",
            f"exp.cache_dir={tmp_path / 'cache'}",
            f"clip.guidance={{model: {model}, pretrained: {pretrained or 'null'}}}",
            "clip.image_size=null",
            "guidance.layers=last",
            "guidance.set_point=mean",
            "train.device=cpu",
            "train.precision=fp32",
            *overrides,
        )
        return [
            "--cfg",
            "rave_quickstart.yaml",
            *(part for override in every for part in ("--set", override)),
        ]

    return _flags


SMALL = ["--tokens", "300", "--bootstrap", "5", "--n", "0", "3", "10"]


def test_report_is_complete_self_contained_and_escaped(flags, photo_folders, tmp_path, capsys):
    Image.new("RGB", (40, 30), "white").save(photo_folders[1] / "<b>&'white'.png")
    (photo_folders[0] / "broken.jpg").write_bytes(b"nothing")
    out = tmp_path / "report"
    overrides = (
        "guidance.direction=sum",
        "guidance.weights.texts=0.5",
        "guidance.texts=['a <i>dark</i> photo', 'a bright photo']",
    )
    assert interpret_residual.main([*flags(*overrides), *SMALL, "--out", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(page) < 5e6
    assert "<b>&'white'" not in page and "&lt;b&gt;" in page
    assert "<i>dark" not in page and "&lt;i&gt;dark" in page
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert len(sources) > 20
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", source) for source in sources)
    assert not re.search(r"https?://|<script|@import|url\(", page)
    for heading in (
        "Nearest to +r",
        "Nearest to −r",
        "How many photos are enough",
        "What a shift by n tokens does",
        "Shifted by n = 10",
    ):
        assert heading in page

    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["photos"] == {"backlit": 6, "welllit": 9}
    assert "broken.jpg" in report["left_out"][0]
    assert [part["n"] for part in report["shifts"]] == [0, 3, 10]
    assert report["shifts"][0]["cosine_with_unshifted"] == pytest.approx(1)
    for part in report["shifts"]:
        assert 0 <= part["auc"] <= 1
        assert {side: len(values) for side, values in part["projections"].items()} == report["photos"]
        assert np.mean(part["projections"]["backlit"]) < np.mean(part["projections"]["welllit"])
        highest = part["photos"]["welllit_highest"]
        assert [photo["projection"] for photo in highest] == sorted((p["projection"] for p in highest), reverse=True)
        assert 0 < len(part["tokens_plus"]) == len(part["tokens_minus"]) <= 15
        assert all(word_kind(word) == "content" for word in part["content_words"])
    assert read_metadata(out / "direction.safetensors")["kind"] == "direction"
    assert "report.html" in capsys.readouterr().out
    assert not list(out.glob(".part-*"))


def test_direction_without_photos_has_no_stability_and_whole_words_are_whole(flags, tmp_path):
    arguments = [*flags("guidance.direction=texts"), *SMALL, "--whole-words", "--out", str(tmp_path)]
    assert interpret_residual.main(arguments) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["depends_on_photos"] is False
    assert "it is not made of the difference between the folders" in (tmp_path / "report.html").read_text()
    kinds = {token["kind"] for part in report["shifts"] for token in part["tokens_plus"] + part["tokens_minus"]}
    assert not kinds & {"sub-word", "unknown"}


def test_encoder_without_words_still_has_a_report(flags, tmp_path):
    assert (
        interpret_residual.main(
            [*flags(model="timm/resnet10t", pretrained=None), "--bootstrap", "5", "--out", str(tmp_path)]
        )
        == 0
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert [part["n"] for part in report["shifts"]] == [0]
    assert "has neither a text tower nor a classifier" in (tmp_path / "report.html").read_text()


def test_relit_direction_in_the_stages_has_a_report(flags, tmp_path):
    """What relit pairs say is light is all of their own direction's meaning; the folders' own share is told."""
    arguments = flags(
        "guidance.direction=relit", "guidance.layers=stages", model="efficientnet-lite0", pretrained="imagenet"
    )
    assert interpret_residual.main([*arguments, "--bootstrap", "5", "--n", "0", "5", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["light_share"] == pytest.approx(report["cosine_with_residual"] ** 2)
    assert 0 < report["light_share"] < 1
    page = (tmp_path / "report.html").read_text()
    assert 0.05 < report["tokens"]["noise"] < 0.1
    for part in report["shifts"]:
        tokens = part["tokens_plus"] + part["tokens_minus"]
        assert not part["content_words"] and {token["kind"] for token in tokens} <= {"faint", "light", "filler"}
    assert "within the noise" in page and "not about light?" not in page
    assert f"Light is {round(100 * report['light_share'])} % of the difference" in page
    assert "To train on the light alone" not in page
    assert "its words are the classes of its classifier (1000 read)" in page
    shares = report["subjects"]["shares"]
    for side, other in (("welllit", "backlit"), ("backlit", "welllit")):
        told = report["subjects"]["more"][side]
        assert all(shares[side][subject] >= shares[other][subject] + 0.1 for subject in told)
        for subject in told:
            assert f"{subject.capitalize()}: {round(100 * shares['welllit'][subject])} % of the well-lit" in page


def test_mistakes_are_told_in_one_line_before_torch(flags, tmp_path):
    with pytest.raises(UserError, match="--tokens: expected at least twice the largest shift"):
        interpret_residual.main([*flags(), "--tokens", "30", "--n", "20", "--out", str(tmp_path)])
    with pytest.raises(UserError, match=r"^--n: expected at most \d+, half of the encoder's vocabulary, found 99999"):
        interpret_residual.main([*flags(), "--n", "99999", "--out", str(tmp_path)])
    with pytest.raises(UserError, match=r"^guidance\.remove_first_n_tokens: expected at most"):
        interpret_residual.main([*flags("guidance.remove_first_n_tokens=9999"), "--out", str(tmp_path)])
    with pytest.raises(UserError, match="--n: expected a whole number from 0 on, found '-1'"):
        interpret_residual.main([*flags(), "--n=-1"])
    for arguments, code in (
        (["--help"], 0),
        (["--set", "nope=1"], 2),
        (["--set", "data.backlit_images_path=nowhere"], 2),
    ):
        program = f"import sys, runpy; sys.argv = ['interpret_residual.py', *{arguments!r}]\n"
        program += "try: runpy.run_path('tools/interpret_residual.py', run_name='__main__')\n"
        program += "except SystemExit as e: print(e.code, 'torch' in sys.modules)"
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPO_ROOT, check=False
        )
        assert result.stdout.strip().endswith(f"{code} False"), result.stdout + result.stderr
        assert len(result.stderr.splitlines()) == (code == 2)


@pytest.fixture
def small_vocabulary(monkeypatch):
    words = [
        "dark",
        "bright",
        "black",
        "night",
        "smooth",
        "rough",
        "textured",
        "blue",
        "sky",
        "sun",
        "good",
        "well",
        "photo",
        "of",
        "the",
        "un",
        "rav",
        "el",
        "flat",
        "hazy",
        "noisy",
        "green",
    ]
    monkeypatch.setattr(clip_encoder, "clip_tokens", lambda: (words, [len(word) > 2 for word in words]))
    return words


def test_speed_is_measured_both_ways(flags, small_vocabulary, tmp_path, capsys):
    arguments = [*flags(model="mini-rn", pretrained=None), "--sample-photos", "3", "--sample-tokens", "5"]
    arguments += ["--json", str(tmp_path / "speed.json")]
    assert residual_speed.main(arguments) == 0
    result = json.loads((tmp_path / "speed.json").read_text())
    assert (result["photos"], result["tokens"]) == (14, len(small_vocabulary))
    assert result["sampled"]["photos"] == 3
    assert result["lowest_cosine_between_both"] > 0.9999
    assert "batched: tokens" in capsys.readouterr().out


def test_no_other_report_is_replaced(tmp_path):
    for side in ("backlit", "welllit"):
        (tmp_path / side).mkdir()
    folders = [f"--set=data.{side}_images_path={tmp_path / side}" for side in ("backlit", "welllit")]
    mine, training = tmp_path / "mine", tmp_path / "training"
    for folder, files in ((mine, ["report.html"]), (training, sorted(RUN_FILES))):
        folder.mkdir()
        for file in files:
            (folder / file).write_text("mine")
    with pytest.raises(UserError, match="--out: expected a new name"):
        interpret_residual.main([*folders, "--out", str(mine)])
    with pytest.raises(UserError, match="--out: expected a folder of its own, found a run folder"):
        interpret_residual.main([*folders, "--out", str(training)])
    assert (mine / "report.html").read_text() == "mine"
