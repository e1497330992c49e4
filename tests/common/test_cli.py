"""Exit codes and one line for what a user or the system can mend, in real processes."""

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from common.cli import Flag, exit_code, given, make_parser
from common.errors import UserError
from common.paths import REPO_ROOT
from tests.faults import as_nobody

SCRIPTS = ("train.py", "train_rave.py", "inference.py", "compute_metrics.py")


def call(script: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPO_ROOT / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def told(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_working_directory_that_is_gone(script, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, runpy, sys; os.rmdir({str(gone)!r}); sys.argv = [{script!r}]; "
    code += f"sys.path.insert(0, {str(REPO_ROOT)!r}); "
    code += f"runpy.run_path({str(REPO_ROOT / script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=gone, capture_output=True, text=True, check=False)
    assert "the current folder is gone" in told(done)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE: expected a whole number, as torchrun sets it, found 'abc'"),
        ({"RANK": "-1"}, "RANK: expected a whole number"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE: expected a whole number"),
        ({"WORLD_SIZE": "2"}, "RANK: expected beside WORLD_SIZE, as torchrun sets it, found none"),
    ],
)
def test_variables_of_a_launcher_that_cannot_be(variables, message, monkeypatch, capsys):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert exit_code(lambda argv: 0, []) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_what_the_system_refuses_is_one_line(tmp_path, capsys):
    assert exit_code(lambda argv: (tmp_path / ("n" * 256)).mkdir(), []) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/{'n' * 256}: File name too long\n"
    with pytest.raises(OSError, match="without a number"):  # not the system's
        exit_code(lambda argv: (_ for _ in ()).throw(OSError("without a number")), [])


DATA = ["--set=data.backlit_images_path=photos", "--set=data.welllit_images_path=well_lit", "--dry-run"]
LINES = {
    "train_rave": [
        [*DATA, "--set=data.backlit_images_path=locked/a"],
        [*DATA, "--set=data.welllit_images_path=locked"],
        [*DATA, "--set=data.leave_out=[locked/list.txt]"],
        [
            *DATA,
            "--set=data.val_list=locked/list.txt",
            "--set=data.val_backlit_path=photos",
            "--set=data.val_gt_path=photos",
        ],
        [*DATA, "--set=guidance.direction=saved", "--set=guidance.saved=locked/a.safetensors"],
        [*DATA, "--set=unet_model.load_pretrain=true", "--set=unet_model.pretrain_dir=locked/a.safetensors"],
        ["--cfg=locked/c.yaml"],
    ],
    "inference": [
        ["locked/a.png"],
        ["locked/sub"],
        ["locked"],
        ["photos", "--output=locked/out"],
        ["photos", "--checkpoint=locked/a.safetensors"],
        ["photos", "--cfg=locked/c.yaml"],
    ],
    "compute_metrics": [
        ["--gt=locked/sub", "--enhanced=photos", "--lpips=off"],
        ["--gt=photos", "--enhanced=locked", "--lpips=off"],
        ["--gt=well_lit", "--enhanced=photos", "--lpips=off", "--json=locked/m.json"],
        ["--gt=well_lit", "--enhanced=photos", "--lpips=off", "--csv=locked/sub/m.csv"],
    ],
}


def test_paths_below_a_folder_that_may_not_be_entered(monkeypatch, capsys):
    mains = {script: importlib.import_module(script).main for script in LINES}
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be entered by their owner alone
        place = Path(folder)
        for name in ("photos", "well_lit"):
            (place / name).mkdir()
            Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(place / name / "a.png")
        (place / "locked").mkdir()
        place.chmod(0o777)
        (place / "locked").chmod(0)
        monkeypatch.chdir(place)
        for script, lines in LINES.items():
            for line in lines:  # as root first: what Python imports late, nobody may not read in root's folders
                exit_code(mains[script], line)
        capsys.readouterr()
        with as_nobody():
            for script, lines in LINES.items():
                for line in lines:
                    code = exit_code(mains[script], line)
                    err = capsys.readouterr().err.splitlines()
                    assert (code, len(err)) == (2, 1) and "locked" in err[0], (script, line, err)


def test_flags_set_keys_of_the_config(capsys):
    flags = (
        Flag("--output", "data.output", "folder of results", "DIR", short="-o"),
        Flag("--map-scale", "model.map_scale", "2 or 4", "N", parsed=True),
        Flag("--overwrite", "save.overwrite", "replace files"),
    )
    parser = make_parser("Enhance.", "inference.yaml")
    for flag in flags:
        flag.add_to(parser)
    nothing = given(parser.parse_args([]), flags)
    assert (nothing.overrides, nothing.values, nothing.typed) == ([], {}, {})
    found = given(parser.parse_args(["--map-scale", "2", "-o", "1e5", "--overwrite", "--set", "a.b=c"]), flags)
    assert found.overrides == ["a.b=c", "model.map_scale=2"]
    assert found.values == {"data.output": "1e5", "save.overwrite": True}
    assert found.typed == {flag.key: flag.name for flag in flags}
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "folder of results; sets data.output" in capsys.readouterr().out


@pytest.mark.parametrize(("says", "arguments", "overwrite"), [("true", [], True), ("false", ["--overwrite"], True)])
def test_what_a_config_says_holds_where_no_flag_does(says, arguments, overwrite, tmp_path, monkeypatch):
    """enhance-ray once took a switch that was not given for `false`."""
    from serving import shards
    from tools import enhance_ray

    def planned(config, *rest):
        raise UserError(f"overwrite is {config.save.overwrite}")

    monkeypatch.setattr(shards, "plan", planned)
    (tmp_path / "c.yaml").write_text(f"save: {{overwrite: {says}}}\n")
    line = ["--cfg", str(tmp_path / "c.yaml"), "--input", "in", "--output", "out", *arguments]
    with pytest.raises(UserError, match=f"overwrite is {overwrite}"):
        enhance_ray.main(line)


@pytest.mark.parametrize(("argv", "hint"), [(["--set", "a=1", "b.c=2"], True), (["--sett"], False), (["b"], False)])
def test_several_settings_behind_one_flag_are_explained(argv, hint):
    parser = make_parser("about", "rave.yaml")
    with pytest.raises(UserError, match=r"^unrecognized arguments: ") as error:
        parser.parse_args(argv)
    assert ("--set takes one KEY=VALUE and may be repeated" in str(error.value)) == hint
