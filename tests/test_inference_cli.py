"""inference.py as a user calls it."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inference
from common.errors import UserError
from configs.load import load_config
from configs.schema import InferenceConfig
from data.images import read_photo, read_rgb8
from data.outputs import RESULTS_FILE
from models.checkpoints import save_tensors
from models.unet import IlluminationUNet

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_tensors(IlluminationUNet(map_bias=0.5).state_dict(), path)
    return str(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name, value in (("a.png", 40), ("sub/b.jpg", 80)):
        Image.new("RGB", (8, 6), (value,) * 3).save(folder / name)
    return folder


def call(weights: str, *arguments: str | Path) -> int:
    return inference.main([*map(str, arguments), "--checkpoint", weights, "--set", "model.device=cpu"])


def run_script(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "inference.py"), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_folder(weights, photos, capsys):
    assert call(weights, photos) == 0
    result = read_rgb8(photos.with_name("photos_enhanced") / "a.png")
    assert 70 <= result.mean() <= 90  # the random weights double the brightness
    assert (photos.with_name("photos_enhanced") / "sub" / "b.jpg").is_file()
    out = capsys.readouterr().out
    assert re.search(
        r"weights: .*unet\.safetensors\ndevice:  cpu, \w+, \w+ [\d.]+\S* \(.+\)\nphotos:  2\n"
        r"output:  .*photos_enhanced\n",
        out,
    )
    assert re.search(
        r"enhanced 2, skipped 0, failed 0 of 2 in [\d.]+ s \([\d.]+ s/photo, [\d.]+ megapixels/s\)\n$", out
    )


def test_every_flag_reaches_the_config(weights, photos, tmp_path, capsys):
    flags = [
        "--strength",
        "0",
        "--format",
        "png",
        "--side-by-side",
        "--illumination",
        "--skip-existing",
        "--cfg",
        "inference.yaml",
    ]
    assert call(weights, "--input", photos, "--output", tmp_path / "out", *flags) == 0
    assert np.array_equal(
        read_rgb8(tmp_path / "out" / "sub" / "b.png"), read_rgb8(photos / "sub" / "b.jpg")
    )  # strength 0
    assert read_photo(tmp_path / "out_side_by_side" / "a.png").rgb.shape == (6, 16, 3)
    assert read_photo(tmp_path / "out_illumination" / "a.png").grey
    assert call(weights, photos, "--output", tmp_path / "out", "--format", "png", "--skip-existing") == 0
    assert "enhanced 0, skipped 2, failed 0 of 2" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--highlights", "shoulder"], ["--denoise", "auto"], ["--dither"]])
def test_flags_of_the_finish_reach_the_pixels(weights, tmp_path, flags):
    """Random weights double the brightness; with a strength of 1 dither needs a gain above 4."""
    pixels = np.random.default_rng(0).normal(60, 4, (40, 40, 3))
    pixels[:, 20:] += 120  # which pass white
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "in" / "a.png")
    call(weights, tmp_path / "in", "--output", tmp_path / "plain")
    call(weights, tmp_path / "in", "--output", tmp_path / "out", *flags)
    plain, result = (read_rgb8(tmp_path / folder / "a.png") for folder in ("plain", "out"))
    assert np.array_equal(plain, result) == (flags == ["--dither"])


def test_strength_by_itself_and_by_scene(weights, photos, tmp_path, capsys):
    assert call(weights, photos, "--output", tmp_path / "out", "--strength", "auto", "--same-for", "folder") == 0
    assert read_rgb8(tmp_path / "out" / "a.png").mean() > 70  # dark: the full result
    assert abs(read_rgb8(tmp_path / "out" / "sub" / "b.jpg").mean() - 80) < 60
    with pytest.raises(UserError, match="--same-for: expected 'photo' or 'folder', found the text 'scene'"):
        call(weights, photos, "--same-for", "scene")


def test_skip_existing_takes_only_files_for_results(weights, photos, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "a.png").mkdir(parents=True)
    (out / "sub").mkdir()
    os.mkfifo(out / "sub/b.jpg")
    assert call(weights, photos, "--output", out, "--skip-existing") == 3
    told = capsys.readouterr()
    assert "enhanced 0, skipped 0, failed 2 of 2" in told.out
    assert "found a folder" in told.err and "found a pipe" in told.err


def test_skip_existing_leaves_results_alone(weights, photos, tmp_path):
    call(weights, photos, "--output", tmp_path / "out")
    os.utime(tmp_path / "out" / "a.png", (1, 1))
    (tmp_path / "out" / "sub" / "b.jpg").unlink()
    assert call(weights, photos, "--output", tmp_path / "out", "--skip-existing") == 0
    assert (tmp_path / "out" / "a.png").stat().st_mtime == 1 and (tmp_path / "out" / "sub" / "b.jpg").is_file()


def test_skip_existing_tells_what_it_keeps_that_was_made_otherwise(weights, photos, tmp_path, capsys):
    def told(*options) -> str:
        assert call(weights, photos, "--output", tmp_path / "out", *options) == 0
        return capsys.readouterr().out

    assert "keeps" not in told()
    assert "keeps" not in told("--skip-existing")
    assert "keeps 2 results made with other settings" in told("--skip-existing", "--strength", "0.3")
    os.utime(photos / "a.png", (1, 1))
    assert "keeps 1 result made with other settings" in told("--skip-existing")


def test_one_broken_photo_exits_with_3_and_the_others_are_done(weights, photos, capsys):
    (photos / "broken.jpg").write_text("no photo")
    (photos / "empty.png").touch()
    assert call(weights, photos) == 3
    done = photos.with_name("photos_enhanced")
    assert sorted(p.name for p in done.rglob("*.*")) == [RESULTS_FILE, "a.png", "b.jpg"]
    captured = capsys.readouterr()
    assert "enhanced 2, skipped 0, failed 2 of 4" in captured.out
    lines = [line for line in captured.err.splitlines() if line.startswith("failed: ")]
    assert lines[0].startswith(f"failed: {photos / 'broken.jpg'}: expected an image") and len(lines) == 2


def test_several_files_and_the_config_file(weights, photos, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"data:\n  input: [{photos / 'a.png'}, {photos / 'sub' / 'b.jpg'}]\n  output: {tmp_path / 'out'}\n"
    )
    assert call(weights, "--cfg", config) == 0
    assert (tmp_path / "out" / "a.png").is_file() and (tmp_path / "out" / "sub" / "b.jpg").is_file()


@pytest.mark.parametrize(
    "name", ["123", "a: b", "true", "null", "{x}", "[y]", '"q"', "back\\slash", "1e5", "# no", " lead", "ü 😀", "a=b"]
)
def test_names_that_yaml_would_read_as_something_else(weights, tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / name / "a.png")
    monkeypatch.chdir(tmp_path)
    assert call(weights, name, "--output", f"{name} out", "--dry-run") == 0
    assert f"{tmp_path / name / 'a.png'} -> {tmp_path / (name + ' out') / 'a.png'}" in capsys.readouterr().out


def test_name_in_bytes_that_are_no_unicode():
    raw = os.fsdecode(b"caf\xe9\n\x07")
    config = load_config(InferenceConfig, "inference.yaml", [f"data.output={raw}"])
    assert config.data.output == raw


def test_dry_run_writes_nothing(weights, photos, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert call(weights, photos, "--strength", "0.5", "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    out = capsys.readouterr().out
    result = tmp_path / "photos_enhanced" / "a.png"
    assert "strength: 0.5" in out and f"{photos / 'a.png'} -> {result}" in out
    assert call(weights, photos, "--dry-run", "--quiet", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dry_run"] and {"photo": str(photos / "a.png"), "result": str(result)} in told["results"]


def test_shipped_weights_by_name_and_a_run_by_its_folder(photos, tmp_path, capsys):
    assert call("free.safetensors", photos, "--dry-run") == 0
    assert f"pretrained_models{os.sep}free.safetensors" in capsys.readouterr().out
    weights = tmp_path / "run" / "checkpoints" / "best.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    with pytest.raises(UserError, match=f"found a folder: .*; the weights of this run are {re.escape(str(weights))}"):
        call(str(weights.parent.parent), photos, "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strenght", "1"], "unrecognized arguments: --strenght"),
        (["--set", "model.strenght=1"], r"unknown key 'model.strenght'; did you mean 'model.strength'\?"),
        (["--strength", "1.5"], "--strength: expected less than or equal to 1"),
        (["--strength", "much"], "--strength: expected number or 'auto', found the text 'much'"),
        (["--format", "gif"], "--format: expected 'keep', 'png'"),
        (["--input", "x"], "found both"),
        (["--cfg", "nothing.yaml"], "no such file"),
    ],
)
def test_mistakes_on_the_command_line(weights, photos, arguments, message):
    with pytest.raises(UserError, match=message):
        call(weights, photos, *arguments)


def test_mistakes_in_paths(weights, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for arguments, message in (
        ([tmp_path / "nothing"], "found nothing there"),
        ([tmp_path / "empty"], "expected images, found none"),
        ([photos, "--output", photos], "--output: expected another folder"),
        ([photos, "--output", tmp_path / "file" / "out"], "--output: expected a folder that can be written"),
        ([], r"^no INPUT was named .*python inference.py PHOTOS.*data\.input: expected .*, found nothing there"),
        (["--set", f"data.input={tmp_path / 'no'}"], "^data.input: expected .*, found nothing there"),
    ):
        with pytest.raises(UserError, match=message):
            call(weights, *arguments)


def test_missing_or_unusable_weights(photos, tmp_path):
    with pytest.raises(UserError, match=r"^--checkpoint: expected a file, found nothing there"):
        inference.main([str(photos), "--checkpoint", str(tmp_path / "no.pth")])
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pth"):
        inference.main([str(photos), "--checkpoint", str(tmp_path / "text.pth")])


def test_script_from_another_folder(weights, photos):
    done = run_script("photos", "--checkpoint", weights, cwd=photos.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert (photos.parent / "photos_enhanced" / "a.png").is_file()


def test_script_tells_a_mistake_in_one_line_and_without_torch(tmp_path):
    code = f"import sys; sys.argv[1:] = ['nothing']; sys.path.insert(0, {str(ROOT)!r}); import inference; " + (
        "from common.cli import run\n"
        "try: run(inference.main)\n"
        "finally: print('torch' in sys.modules, 'imagecodecs' in sys.modules, 'tifffile' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "False False False\n"
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_empty_names_are_refused(photos):
    with pytest.raises(UserError, match=r"INPUT: .* found an empty name"):
        inference.main([""])
    with pytest.raises(UserError, match=r"--output: .* found an empty name"):
        inference.main([str(photos), "--output", ""])


def test_mistakes_on_the_command_line_are_not_blamed_on_the_file(photos):
    with pytest.raises(UserError, match=r"^--strength: expected .*, found 2$"):
        inference.main([str(photos), "--strength", "2"])
    with pytest.raises(UserError, match=r"^--set model=1: 'model' is a section, not a value"):
        inference.main([str(photos), "--set", "model=1", "--strength", ".4"])
    with pytest.raises(UserError, match=r"^command line: unknown key 'modle'; did you mean"):
        inference.main([str(photos), "--set", "modle.strength=1"])


def test_originals_above_the_photos_are_not_overwritten(weights, photos):
    Image.new("RGB", (4, 4)).save(photos / "b.jpg")
    before = (photos / "b.jpg").read_bytes()
    with pytest.raises(
        UserError, match=r"names, found .*b\.jpg; choose another folder, --skip-existing or --overwrite"
    ):
        call(weights, photos / "sub", "--output", photos)
    assert call(weights, photos / "sub", "--output", photos, "--skip-existing", "--side-by-side") == 0
    assert (photos / "b.jpg").read_bytes() == before
    assert (photos.with_name("photos_side_by_side") / "b.jpg").is_file()
    (photos.parent / "link").symlink_to(photos / "sub")
    with pytest.raises(UserError, match=r"other files of the results' names, found .*b\.jpg"):
        call(weights, photos.parent / "link", "--output", photos)


def test_what_another_program_wrote_is_replaced_only_where_that_was_asked_for(weights, photos, tmp_path):
    out = tmp_path / "out"
    assert call(weights, photos, "--output", out, "--side-by-side") == 0
    first = {path: path.read_bytes() for path in sorted(out.rglob("*.jpg"))}
    assert call(weights, photos, "--output", out, "--side-by-side", "--strength", "0.5") == 0  # ours are replaced
    assert all(path.read_bytes() != before for path, before in first.items())
    edited = next(iter(first))
    edited.write_bytes(b"retouched by hand")
    with pytest.raises(UserError, match=rf"other files of the results' names, found {edited}; choose"):
        call(weights, photos, "--output", out)
    assert edited.read_bytes() == b"retouched by hand"
    with pytest.raises(UserError, match="expected at most one of them"):
        call(weights, photos, "--output", out, "--overwrite", "--skip-existing")
    assert call(weights, photos, "--output", out, "--overwrite") == 0
    assert edited.read_bytes() != b"retouched by hand"
    assert call(weights, photos, "--output", out) == 0


def test_earlier_results_inside_the_photo_folder_are_no_photos(weights, photos):
    assert call(weights, photos, "--output", photos / "better", "--illumination") == 0
    before = sorted(photos.rglob("*"))
    assert call(weights, photos, "--output", photos / "other") == 0
    new = {path.relative_to(photos / "other") for path in (photos / "other").rglob("*.*") if path.name != RESULTS_FILE}
    assert new == {p.relative_to(photos / "better") for p in (photos / "better").rglob("*.*") if p.name != RESULTS_FILE}
    assert all(path.exists() for path in before)
    with pytest.raises(UserError, match="found only results of an earlier enhancement"):
        call(weights, photos / "better")


def test_help_is_as_wide_as_the_terminal():
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 170, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen([sys.executable, ROOT / "inference.py", "--help"], stdout=follower, env=environment)
    os.close(follower)
    printed = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(leader, 4096):
            printed += part
    assert process.wait() == 0 and max(map(len, printed.splitlines())) > 140


def test_nothing_is_left_behind_where_nothing_was_enhanced(weights, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_text("no photo")
    assert call(weights, tmp_path / "in" / "a.jpg") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_cannot_be_read_is_named(weights, photos, capsys):
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "two\nlines.jpg").write_text("no photo")
    (photos / "x.RAW").write_text("a format that is not read here")
    (photos / "y.nef").write_text("likewise")
    assert call(weights, photos) == 3
    printed = capsys.readouterr()
    assert "photos:  4 (left out: 1 .nef, 1 .raw, formats that are not read here)" in printed.out
    gone, two = sorted(printed.err.splitlines())
    assert gone.startswith(f"failed: {photos}/gone.jpg: expected a readable file")
    assert two.startswith(f"failed: {photos}/two\\nlines.jpg: expected an image")


@pytest.mark.parametrize("streams", ["| true", ">&-", "2>&-", ">/dev/full", ">&- 2>&-"])
def test_enhancing_goes_on_where_nobody_reads(weights, photos, streams):
    (photos / "broken.jpg").write_text("no photo")
    script = (
        f"{sys.executable} {ROOT / 'inference.py'} {photos} --checkpoint {weights} {streams}; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "2>&-" in streams or f"failed: {photos}/broken.jpg" in done.stderr
    assert (photos.with_name("photos_enhanced") / "sub" / "b.jpg").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_two_processes_share_the_photos(weights, photos, tmp_path, device):
    (photos / "broken.jpg").write_bytes(b"broken")
    arguments = [
        str(photos),
        "--checkpoint",
        weights,
        "--set",
        f"model.device={device}",
        "--set",
        "model.backend=torch",
    ]
    alone = run_script(*arguments, "--output", "alone", cwd=tmp_path)
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(ROOT / "inference.py"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, *arguments, "--output", "shared"]
    shared = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert alone.returncode == 3 and shared.returncode == 1  # the launcher's own
    assert shared.stdout.count("enhanced 2, skipped 0, failed 1 of 3") == 1
    assert shared.stderr.count("failed: ") == alone.stderr.count("failed: ") == 1
    for name in ("a.png", "sub/b.jpg"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_quiet_and_json(weights, photos, capsys):
    (photos / "broken.jpg").write_text("no photo")
    assert call(weights, photos, "--quiet", "--json") == 3
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    result = json.loads(line)
    assert (result["photos"], result["enhanced"], result["skipped"]) == (3, 2, 0)
    assert [entry["photo"] for entry in result["failed"]] == [str(photos / "broken.jpg")]
    assert result["output"] == str(photos.with_name("photos_enhanced")) and "failed: " in printed.err
    assert result["device"].startswith("cpu, ")  # in words
    assert result["runs_on"].keys() == {"device", "precision", "backend"} and result["runs_on"]["device"] == "cpu"


def test_json_tells_what_became_of_each_photo(weights, photos, capsys):
    call(weights, photos / "a.png")
    (photos / "broken.jpg").write_text("no photo")
    (photos / "moving.gif").write_bytes(_animation())
    output = photos.with_name("photos_enhanced")
    capsys.readouterr()
    assert call(weights, photos, "--skip-existing", "--quiet", "--json") == 3
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    kept, broken, moving, below = results
    assert kept == {**_files(photos, output, "a.png"), "status": "skipped", "reason": "its result is there"}
    assert broken["status"] == "failed" and broken["reason"].startswith("expected an image")
    assert (broken["photo"], broken["result"]) == (str(photos / "broken.jpg"), None)
    assert below.pop("seconds") > 0
    assert below == {**_files(photos, output, "sub/b.jpg"), "status": "enhanced"}
    assert moving["note"] == "animated: first of 2 frames" and moving["result"] == str(output / "moving.png")


def _files(photos: Path, output: Path, name: str) -> dict[str, str]:
    return {"photo": str(photos / name), "result": str(output / name)}


def _animation() -> bytes:
    with io.BytesIO() as file:
        first, second = (Image.new("L", (8, 6), value) for value in (40, 90))
        first.save(file, "GIF", save_all=True, append_images=[second])
        return file.getvalue()


def test_results_that_are_replaced_are_told(weights, photos, capsys):
    assert call(weights, photos, "--illumination", "--json") == 0
    printed = capsys.readouterr().out
    assert "replaces" not in printed.splitlines()[-2] and '"replaced": 0,' in printed
    (photos.with_name("photos_enhanced") / "a.png").unlink()  # its map is there
    assert call(weights, photos, "--dry-run", "--illumination") == 0
    line = "\n         replaces 2 results of an earlier run (--skip-existing keeps them)\n"
    assert line in capsys.readouterr().out
    assert call(weights, photos, "--skip-existing") == 0
    assert "replaces" not in capsys.readouterr().out
    (photos / "a.png").write_text("no photo")  # whose earlier result stays
    assert call(weights, photos, "--strength", "0.5", "--json") == 3
    printed = capsys.readouterr().out
    assert line in printed and '"replaced": 1,' in printed
    assert call(weights, photos, "--overwrite") == 3
    assert "replaces 2 results of an earlier run or other files of their names (--overwrite)" in capsys.readouterr().out


def test_a_dry_run_of_many_photos_is_short(weights, photos, capsys):
    for number in range(30):
        Image.new("RGB", (4, 3)).save(photos / f"more{number:02}.png")
    assert call(weights, photos, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 35 and lines[-1] == "... and 12 more"
