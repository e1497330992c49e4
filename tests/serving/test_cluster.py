"""Folders through Ray Data: the same bytes as inference.py, only what is left is done, failures are a table."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

import inference
from common.errors import UserError
from common.paths import REPO_ROOT
from configs.load import load_config
from configs.schema import InferenceConfig
from data.outputs import RESULTS_FILE
from models.checkpoints import save_tensors
from models.unet import IlluminationUNet
from serving.cluster import Worker
from serving.shards import Places, Records, Task, plan

CPU = ["model.device=cpu", "model.precision=fp32", "model.backend=torch"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_tensors(IlluminationUNet(map_bias=0.5).state_dict(), path)
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    folder, generator = tmp_path / "photos", np.random.default_rng(0)
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/a.gif", "sub/c.tif", "sub/a.bmp"):
        Image.fromarray(generator.integers(0, 120, (12, 16, 3), np.uint8)).save(folder / name)
        os.utime(folder / name, (1_600_000_000, 1_600_000_000))
    (folder / "broken.jpg").write_text("no photo")
    return folder


@pytest.fixture(params=["a disk", "URLs"])
def places(request, photos, tmp_path) -> Iterator[tuple[str, str]]:
    """Input and output, as they are typed."""
    if request.param == "a disk":
        yield str(photos), str(tmp_path / "out")
        return
    memory = fsspec.filesystem("memory")
    memory.put(f"{photos}/", "/photos/", recursive=True)
    yield "memory://photos", f"file://{tmp_path}/out"
    memory.rm("/photos", recursive=True)


def run(weights: Path, source: str, output: str, *settings: str) -> tuple[list[dict], int]:
    """What one actor tells of all that is left, and how many results were there."""
    config = load_config(InferenceConfig, "inference.yaml", [*CPU, *settings])
    where, tasks, done = plan(config, source, output, weights)
    if not tasks:
        return [], done
    batch = {"task": np.array([json.dumps(task.__dict__) for task in tasks], dtype=object)}
    told = [json.loads(line) for line in Worker(config, weights, where)(batch)["told"]]
    with Records(where) as records:
        for line in told:
            if not line.keys() & {"failed", "stopped"}:
                records.add(line)
    return told, done


def contents(folder: Path) -> dict[str, tuple[bytes, float]]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: (path.read_bytes(), path.stat().st_mtime) for name, path in files.items() if "/." not in f"/{name}"}


def test_names_metadata_and_bytes_are_those_of_inference(weights, places, photos, tmp_path):
    told, _ = run(weights, *places, "save.side_by_side=true")
    assert [line["relative"] for line in told if "failed" in line] == ["broken.jpg"]
    plain = ["--checkpoint", str(weights), "--side-by-side", *(f"--set={setting}" for setting in CPU)]
    assert inference.main([str(photos), "--output", str(tmp_path / "plain"), *plain]) == 3
    for made in ("", "_side_by_side"):
        found, expected = contents(tmp_path / f"out{made}"), contents(tmp_path / f"plain{made}")
        assert {name: its[0] for name, its in found.items()} == {name: its[0] for name, its in expected.items()}
        assert len(found) == 5 and "sub/a_gif.png" in found
    if "://" not in places[1]:
        assert contents(tmp_path / "out") == expected | contents(tmp_path / "plain")


def test_only_what_is_left_is_done(weights, places, photos, tmp_path):
    assert len(run(weights, *places)[0]) == 6
    assert [line["relative"] for line in run(weights, *places)[0]] == ["broken.jpg"]
    (tmp_path / "out" / "b.jpg").unlink()
    told, done = run(weights, *places)
    assert {line["relative"] for line in told} == {"b.jpg", "broken.jpg"} and done == 4
    assert run(weights, *places, "model.strength=0.5")[1] == 0  # other settings, other results
    assert run(weights, *places, "model.strength=0.5")[1] == 5
    if "://" not in places[0]:
        os.utime(photos / "a.png", (1_700_000_000, 1_700_000_000))
        assert {line["relative"] for line in run(weights, *places, "model.strength=0.5")[0]} == {"a.png", "broken.jpg"}


def test_a_damaged_line_of_a_record_costs_its_photo_alone(weights, photos, tmp_path):
    output = tmp_path / "out"
    run(weights, str(photos), f"file://{output}")
    (record,) = output.glob(".enhanced-*.jsonl")
    lines = record.read_text().splitlines()
    record.write_text("\n".join([*lines[:-1], lines[-1][:20], "[" * 100_000, '{"relative": [], "ns": 1}']))
    told, done = run(weights, str(photos), f"file://{output}", "save.overwrite=true")
    assert done == 4 and {line["relative"] for line in told} == {json.loads(lines[-1])["relative"], "broken.jpg"}


def test_a_result_of_inference_made_later_counts(weights, photos, tmp_path):
    run(weights, str(photos), str(tmp_path / "out"))
    plain = ["--checkpoint", str(weights), "--strength", "0", *(f"--set={setting}" for setting in CPU)]
    inference.main([str(photos), "--output", str(tmp_path / "out"), *plain])
    assert (tmp_path / "out" / RESULTS_FILE).is_file()
    assert run(weights, str(photos), str(tmp_path / "out"))[1] == 0


def test_strangers_files_stay(weights, places, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("mine")
    with pytest.raises(UserError, match=r"^--output: expected a folder without other files .*a\.png"):
        run(weights, *places)
    assert run(weights, *places, "save.skip_existing=true")[1] == 1
    assert (tmp_path / "out" / "a.png").read_text() == "mine"
    run(weights, *places, "save.overwrite=true")
    assert (tmp_path / "out" / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_what_fails_for_all_stops_the_run(weights, photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^--output: expected a folder that can be written"):
        Records(Places(None, tmp_path / "file" / "out", ()))
    rubbish = tmp_path / "rubbish.safetensors"
    rubbish.write_text("no weights")
    assert "rubbish" in run(rubbish, str(photos), str(tmp_path / "out"))[0][0]["stopped"]


@pytest.mark.parametrize(
    ("url", "found"), [("nothing://bucket", "Protocol not known"), ("memory://empty", "none in memory://empty")]
)
def test_urls_that_lead_nowhere_are_told_in_one_line(weights, tmp_path, url, found):
    with pytest.raises(UserError, match=f"^--input: expected .*, found .*{found}") as error:
        run(weights, url, str(tmp_path / "out"))
    assert "\n" not in str(error.value)


def test_a_photo_that_goes_meanwhile_is_a_failure(weights, photos, tmp_path):
    config = load_config(InferenceConfig, "inference.yaml", CPU)
    worker = Worker(config, weights, Places(None, tmp_path / "out", ()))
    told = worker.enhance([Task(str(photos / name), name, "x") for name in ("a.png", "gone.png")])
    assert ["failed" in line for line in told] == [False, True]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: requirements-ray.txt")
def test_two_actors_make_what_inference_makes(weights, photos, tmp_path):
    settings = ["--checkpoint", str(weights), *(f"--set={setting}" for setting in CPU)]
    inference.main([str(photos), "--output", str(tmp_path / "plain"), *settings])
    command = [sys.executable, "-m", "tools", "enhance-ray", "--input", str(photos), "--output", str(tmp_path / "out")]
    command += ["--actors", "2", *settings]
    for finished in (0, 4):
        done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr
        assert f"finished before {finished}, failed 1 of 6" in done.stdout
        assert contents(tmp_path / "out") == contents(tmp_path / "plain")
        assert (tmp_path / "out_failures.csv").read_text().startswith(f"photo,reason\n{photos / 'broken.jpg'},")
        (tmp_path / "out" / "b.jpg").unlink()
