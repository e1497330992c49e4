"""The authors' five config files, as they are, and the commands of the papers' README."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from common.cli import exit_code
from common.paths import REPO_ROOT
from configs.changes import differing
from configs.load import load_config
from configs.schema import InferenceConfig, MetricsConfig, TrainConfig
from inference import main as enhance

SHARED = REPO_ROOT.parent / "shared" / "published_configs"
KEYS = Path(__file__).with_name("published_configs.yaml")  # name -> the keys and values of the authors' file
SCHEMAS = {"inference.yaml": InferenceConfig, "metrics.yaml": MetricsConfig}
MODES = {"rave.yaml": "rave", "clip_lit.yaml": "clip_lit", "clip_lit_latent.yaml": "clip_lit_latent"}


def files() -> dict[str, dict]:
    return yaml.safe_load(KEYS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", files())
def test_our_copy_of_the_keys_is_that_of_the_authors_files(name):
    if not SHARED.is_dir():
        pytest.skip("the authors' files are not here")
    assert yaml.safe_load((SHARED / name).read_text(encoding="utf-8")) == files()[name]


@pytest.mark.parametrize("source", ["ours", "theirs"])
@pytest.mark.parametrize("name", files())
def test_every_value_of_a_published_file_is_taken_for_what_it_means(name, source, tmp_path, capsys):
    tree = files()[name]
    path = tmp_path / name
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    if source == "theirs":
        if not SHARED.is_dir():
            pytest.skip("the authors' files are not here")
        path = SHARED / name
    config = load_config(SCHEMAS.get(name, TrainConfig), str(path)).model_dump()
    notes = capsys.readouterr().err.splitlines()
    if name == "rave.yaml":
        assert config["guidance"]["remove_first_n_tokens"] == tree.pop("remove_first_n_tokens")
        assert tree.pop("guidance") is None
        (line,) = notes
        assert "remove_first_n_tokens at the top level is taken for guidance.remove_first_n_tokens" in line
    else:
        assert notes == []
    if name == "inference.yaml":
        assert config["model"]["checkpoint"] == tree.pop("unet_model")["pretrain_dir"]
    if name in MODES:
        assert tree["exp"].pop("mode").replace("-", "_") == config["exp"]["mode"] == MODES[name]
    for section, values in tree.items():
        for key, value in values.items():
            assert config[section][key] == (None if value == "" else value), f"{section}.{key}"


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("unet_model: {load_pretrain: true, pretrain_dir: a.pth}", {}, "a.pth"),
        ("unet_model: {load_pretrain: true, pretrain_dir: a.pth}", {"flags": {"model.checkpoint": "b.pth"}}, "b.pth"),
        ("model: {checkpoint: a.pth}", {"overrides": ["unet_model.pretrain_dir=b.pth"]}, "b.pth"),
        ("model:\nunet_model: {pretrain_dir: a.pth}", {}, "a.pth"),
    ],
)
def test_weights_of_an_inference_config(text, options, expected, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    assert load_config(InferenceConfig, str(tmp_path / "c.yaml"), **options).model.checkpoint == expected


COMMANDS = """
python train.py --cfg ./configs/train/clip_lit.yaml
python train.py --cfg ./configs/train/clip_lit_latent.yaml
python train_rave.py --cfg ./configs/train/rave.yaml
python inference.py --cfg ./configs/inference/inference.yaml
python compute_metrics.py --cfg ./configs/inference/metrics.yaml
"""


@pytest.fixture
def papers_layout(tmp_path) -> Path:
    """A folder in which the papers' commands find photos where their config files say."""
    from PIL import Image

    folders = ("train_data/BAID/train/backlit", "train_data/DIV2K", "input", "test_data/BAID/test/resize_gt")
    for folder in (*folders, "inference_results/enhanced_images"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            photo = Image.linear_gradient("L").resize((16, 12)).point(lambda v, n=number: v // 2 + n).convert("RGB")
            photo.save(tmp_path / folder / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS.split("\n")[1:-1])
def test_the_papers_commands(command, papers_layout, monkeypatch, capsys):
    program, script, *arguments = command.split()
    assert program == "python"
    dry = ["--dry-run"] if script != "compute_metrics.py" else ["--set", "metrics.lpips=off"]
    monkeypatch.chdir(papers_layout)
    main = importlib.import_module(script.removesuffix(".py")).main
    assert (exit_code(main, [*arguments, *dry]), capsys.readouterr().err) == (0, "")
    if script == "compute_metrics.py":
        assert (papers_layout / "inference_results" / "enhanced_images_metrics.json").is_file()


def test_the_papers_commands_as_a_process(papers_layout):
    command = [sys.executable, str(REPO_ROOT / "inference.py"), *COMMANDS.splitlines()[4].split()[2:], "--dry-run"]
    done = subprocess.run(command, cwd=papers_layout, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "0.png -> " in done.stdout


def test_flags_of_clip_lits_test_script(papers_layout, monkeypatch, capsys):
    monkeypatch.chdir(papers_layout)
    weights = REPO_ROOT / "pretrained_models" / "rave.safetensors"
    assert enhance(["-i", "./input", "-o", "./inference_result", "-c", str(weights), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"weights: {weights}" in printed
    assert f"0.png -> {papers_layout / 'inference_result' / '0.png'}" in printed


@pytest.mark.parametrize("name", MODES)
def test_what_a_published_file_leaves_out_is_what_our_config_of_the_method_writes(name, tmp_path):
    """Names, length and precision apart; the release counts epochs and trains in float32."""
    (tmp_path / name).write_text(yaml.safe_dump(files()[name]), encoding="utf-8")
    published, ours = (load_config(TrainConfig, file).model_dump() for file in (str(tmp_path / name), name))
    assert differing([published, ours]).keys() <= {
        *("exp.exp_name", "exp.save_dir", "guidance.remove_first_n_tokens"),
        *("train.num_epochs", "train.num_iters", "train.num_rounds"),
        *("train.precision", "train.val_iter", "train.save_iter"),
    }
