"""A value is what was written: text where its key takes text, YAML 1.2's core types elsewhere."""

import os
import re
from pathlib import Path

import pytest

from common.errors import UserError
from configs.load import dump_config, load_config
from configs.schema import InferenceConfig, MetricsConfig, TrainConfig
from tests.configs.test_load import PATHS

NAMES = [
    "2024",
    "2024-05-01",
    "007",
    "true",
    "[1]",
    "{a}",
    "day #1",
    "a: b",
    "1:30",
    "1e5",
    "'q'",
    '"q"',
    "- a",
    "*x",
    "!y",
    "ü",
    " a ",
]


@pytest.fixture
def load(tmp_path):
    def _load(text: str, *overrides: str, schema=TrainConfig):
        (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
        return load_config(schema, str(tmp_path / "c.yaml"), list(overrides))

    return _load


@pytest.mark.parametrize("name", NAMES)
def test_text_on_the_command_line_is_what_was_typed(load, tmp_path, monkeypatch, name):
    config = load(PATHS, f"data.backlit_images_path={name}", f"exp.exp_name={name}", f"data.val_gt_path={name}")
    assert config.data.backlit_images_path == config.exp.exp_name == config.data.val_gt_path == name
    again = load(dump_config(config))
    assert again == config
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert load("", f"data.input={name}", schema=InferenceConfig).data.input == name


@pytest.mark.parametrize("name", ["2024", "2024-05-01", "007", "true", "1:30", "1e5", "0x1f", "5.", "on"])
def test_text_in_a_file_needs_no_quotes(load, name):
    text = (
        f"data: {{backlit_images_path: {name}, welllit_images_path: b, leave_out: [{name}]}}\nexp: {{exp_name: {name}}}"
    )
    config = load(text)
    assert config.exp.exp_name == config.data.backlit_images_path == config.data.leave_out[0] == name


def test_a_comment_begins_only_in_files(load):
    assert load(PATHS + "exp: {exp_name: keep} #2").exp.exp_name == "keep"
    with pytest.raises(UserError, match=r"exp\.seed: expected integer, found the text '1 #2'"):
        load(PATHS, "exp.seed=1 #2")


def test_structured_values_are_parsed(load):
    config = load(
        PATHS,
        "guidance.remove=[sky, 007, 'on']",
        "loss.identity_layers=[1, 2e-1, .5, 1., 1]",
        "loss.margins={m0: 0.5, m1: 0.2}",
        "data.val_list=null",
        "data.val_gt_path=",
        "unet_model.ema=null",
        "train.compile=true",
        "exp.seed= 12 ",
    )
    assert config.guidance.remove == ["sky", "007", "on"]
    assert config.loss.identity_layers == [1, 0.2, 0.5, 1, 1]
    assert (config.loss.margins.m0, config.loss.margins.m1, config.loss.margins.m2) == (0.5, 0.2, 0.1)
    assert config.data.val_list is config.data.val_gt_path is config.unet_model.ema is None
    assert config.train.compile and config.exp.seed == 12
    assert load("", "data.input=[a.jpg, 2024]", schema=InferenceConfig).data.input == ["a.jpg", "2024"]
    assert load("", "save.quality=keep", schema=InferenceConfig).save.quality == "keep"
    assert load("", "save.quality=90", schema=InferenceConfig).save.quality == 90
    for text, value in (("auto", "auto"), ("1", 1.0), ("0.5", 0.5)):
        assert load("", f"model.strength={text}", schema=InferenceConfig).model.strength == value
    for value, meant in (("true", True), ("false", False), ("auto", "auto")):
        assert load(PATHS, f"clip.guidance.quick_gelu={value}").clip.guidance.quick_gelu == meant
        assert load(PATHS + f"clip: {{guidance: {{quick_gelu: {value}}}}}").clip.guidance.quick_gelu == meant


@pytest.mark.parametrize(
    ("written", "expected"),
    [("010", 10), ("0o10", 8), ("0x1F", 31), ("+3", 3), ("2e3", None), ("1_000", None), ("1:30", None), ("3.0", None)],
)
def test_integers_are_those_of_yaml_1_2(load, written, expected):
    if expected is None:
        with pytest.raises(UserError, match=r"exp\.seed: expected integer"):
            load(PATHS + f"exp: {{seed: {written}}}")
    else:
        assert (
            load(PATHS + f"exp: {{seed: {written}}}").exp.seed
            == load(PATHS, f"exp.seed={written}").exp.seed
            == expected
        )


def test_other_spellings(load):
    for given, meant in (("jpg", "jpeg"), ("tif", "tiff"), ("png", "png")):
        assert load("", f"save.format={given}", schema=InferenceConfig).save.format == meant
    assert load(PATHS + "exp: {mode: clip-lit-latent}").exp.mode == "clip_lit_latent"


def test_home_and_variables_in_paths(load, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data = load(PATHS, "data.backlit_images_path=~/day", "data.welllit_images_path=${HOME}/x").data
    assert data.backlit_images_path == str(tmp_path / "day") and data.welllit_images_path == str(tmp_path / "x")
    assert load("data: {input: $HOME/in, output: ~/out}", schema=InferenceConfig).data.output == str(tmp_path / "out")
    assert load(PATHS, "data.backlit_images_path=a$NO_SUCH_NAME").data.backlit_images_path == "a$NO_SUCH_NAME"
    (tmp_path / "$HOME").mkdir()  # what is there as it is written stays
    assert load(PATHS, "data.backlit_images_path=$HOME").data.backlit_images_path == "$HOME"


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exp: {seed: 2024-31-12}", "exp.seed: expected integer, found the text '2024-31-12'"),
        ("exp: {seed: !!int x}", "line 2: expected a value without a tag, found 'tag:yaml.org,2002:int'"),
        ("exp: !!python/object/apply:os.system [true]", "line 2: expected a value without a tag"),
        ("exp: {seed: " + "9" * 4301 + "}", "exp.seed: expected integer, found the text '999"),
        ("exp: {seed: " + "9" * 90 + "}", "exp.seed: expected less than 2147483648"),
        ("unet_model: {lr: " + "9" * 90 + "}", "unet_model.lr: expected less than or equal to 1"),
        ("exp: " + "[" * 1000 + "]" * 1000, "line 2: more than 20 sections or lists in each other"),
        ("exp: " + "{a: " * 1000 + "1" + "}" * 1000, "line 2: more than 20 sections or lists in each other"),
        (BOMB, "more than 20,000 values"),
        ("exp: &a [*a]", "the alias '*a' stands before what it means"),
        ('exp: {save_dir: "a\\0b"}', "exp.save_dir: expected text without a NUL"),
        ('exp: {exp_name: "a\\0b"}', "exp.exp_name: expected text without a NUL"),
        ('guidance: {remove: ["a\\0b"]}', "guidance.remove: expected text without a NUL"),
        ("exp: {save_dir: " + "d" * 256 + "}", "exp.save_dir: expected names of at most 255 bytes in a path"),
        ("exp: {save_dir: " + "d/" * 2100 + "}", "exp.save_dir: expected a path of at most 4095 bytes"),
        ("exp: {exp_name: " + "é" * 101 + "}", "exp.exp_name: expected a name of at most 200 bytes"),
        ("exp: {exp_name: ' '}", "exp.exp_name: expected a name that is not blank"),
        ("exp: {exp_name: a/b}", "exp.exp_name: expected a name without a slash"),
        ('exp: {save_dir: "\\ud800"}', "exp.save_dir: expected"),
        ('exp: {save_dir: "\\U99999999"}', "not valid YAML"),
        ("exp: \x01", "line 2: not valid YAML: the character 0x0001"),
        ("exp: {1: 2}", "unknown key 'exp.1'"),
        ("exp: {[a]: 2}", "line 2: a key must be text, found a list or mapping"),
        ("---\nexp: {}", "line 2: expected one document, found a second one"),
        ("<<: 3", "line 2: '<<' merges sections, found another value"),
        ("exp: {seed: 1.e400}", "exp.seed: expected integer"),
        ("data:\n  simulated_backlight: {noise: [2, 1]}", "line 2: key 'data' is given twice"),
        ("loss: {residual: 1.e400}", "loss.residual: expected a finite number"),
        (
            "guidance_model: {init_texts: [dark]}",
            "guidance_model.init_texts: expected at least 2 items, found a list of 1",
        ),
    ],
)
def test_what_no_config_may_hold_is_one_line(load, text, message):
    with pytest.raises(UserError) as caught:
        load(PATHS + text)
    assert message in str(caught.value) and len(str(caught.value)) < 500


def test_a_tile_is_no_larger_than_any_photo(load):
    with pytest.raises(UserError, match=r"model\.tile_size: expected less than or equal to 65536"):
        load("model: {tile_size: " + "9" * 23 + "}", schema=InferenceConfig)


def test_ranges_the_wrong_way_round_are_refused(load):
    with pytest.raises(UserError, match=r"data\.simulated_backlight\.noise: expected the lower number first, found \["):
        load(PATHS, "data.simulated_backlight.noise=[0.2, 0.1]")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null", "data:\n"])
def test_an_empty_file_is_told_what_is_missing(load, text):
    with pytest.raises(UserError, match=r"missing: data\.backlit_images_path, data\.welllit_images_path; give"):
        load(text)


def test_files_of_every_kind_that_are_no_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("loop").symlink_to("loop")
    Path("large.yaml").write_text("a: b\n" * 100_000)
    Path("utf16.yaml").write_text("exp: {}", encoding="utf-16")
    for name, message in (
        ("fifo", "found a pipe"),
        ("loop", "found too many levels of symbolic links"),
        ("x" * 300, "found file name too long"),
        ("loop/a.yaml", "found too many levels"),
        ("a\0b", "found a name with a NUL in it"),
        ("large.yaml", "of at most 262,144 bytes"),
        ("utf16.yaml", "found UTF-16"),
        ("", "no such file"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            load_config(MetricsConfig, name)
        assert str(caught.value).count(name or "?") <= 1  # a path is named once
    Path("marked.yaml").write_text("metrics: {protocol: rgb}", encoding="utf-8-sig")
    assert load_config(MetricsConfig, "marked.yaml").metrics.protocol == "rgb"


@pytest.mark.parametrize(
    ("mode", "overrides", "told"),
    [
        ("rave", ["guidance_model.batch_size=4", "loss.clip=1"], ["guidance_model.batch_size, loss.clip"]),
        (
            "rave",
            ["guidance.weights.texts=1"],
            ["guidance.weights.texts: without effect (needs guidance.direction: sum"],
        ),
        ("rave", ["guidance.texts=[a, b]"], ["guidance.texts: without effect (needs guidance.direction: texts"]),
        ("rave", ["guidance.texts=[a, b]", "guidance.direction=texts"], []),
        ("rave", ["train.num_rounds=3", "train.num_epochs=7"], ["train.num_rounds: without effect"]),
        ("rave", ["train.num_iters=3", "train.num_epochs=7"], ["train.num_epochs: without effect"]),
        ("rave", ["data.simulated_backlight.noise=[0, 1]"], ["data.simulated_backlight.noise: without effect"]),
        ("rave", ["unet_model.pretrain_dir=x.pth"], ["(needs unet_model.load_pretrain: true"]),
        (
            "clip_lit",
            ["guidance.direction=texts", "train.num_iters=3"],
            ["guidance.direction, train.num_iters: without"],
        ),
        ("clip_lit", ["loss.residual=2", "guidance.remove_first_n_tokens=0"], ["loss.residual, guidance.remove_first"]),
        (
            "clip_lit",
            ["guidance_model.init_texts=[a, b]", "guidance_model.length_prompt=8"],
            ["length_prompt: without"],
        ),
        ("clip_lit", ["guidance_model.init_texts=[a, b]"], []),
        ("clip_lit_latent", ["guidance_model.init_texts=[a, b]"], ["(needs exp.mode: clip_lit"]),
        ("clip_lit_latent", ["guidance.layers=stages"], []),
        ("rave", ["unet_model.thr_loss=3"], []),
        (
            "rave",
            ["loss.pixel=1", "loss.residual=0", "data.pairs=x", "unet_model.thr_loss=3", "unet_model.settle_at=0.5"],
            ["unet_model.thr_loss, unet_model.settle_at: without effect (needs guidance: loss.residual above 0"],
        ),
        ("clip_lit", ["guidance.layers=stages"], ["(needs exp.mode: rave or clip_lit_latent"]),
        (
            "clip_lit",
            ["loss.pixel=1", "loss.pixel_error=psnr"],
            ["loss.pixel: without effect", "loss.pixel_error: without effect"],
        ),
        ("rave", ["loss.pixel=1", "data.simulated_backlight.low_key=0.5"], []),
    ],
)
def test_keys_without_effect_are_told(load, capsys, mode, overrides, told):
    load(PATHS, f"exp.mode={mode}", *overrides)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == len(told) and all(text in line for text, line in zip(told, notes, strict=True)), notes
    assert all(line.startswith("note: command line: ") for line in notes)


def test_keys_without_effect_in_a_file_are_named_with_the_file(load, capsys):
    load("loss: {clip: 1}\n" + PATHS, "guidance_model.lr=1e-3")
    in_file, typed = capsys.readouterr().err.splitlines()
    assert re.match(r"note: \S+\.yaml: loss\.clip: without effect", in_file)
    assert typed.startswith("note: command line: guidance_model.lr: without effect")


def test_the_resolved_config_of_a_run_is_no_reason_for_notes(load, capsys):
    for mode, lr in (("rave", None), ("clip_lit", 5e-6), ("clip_lit_latent", 5e-4)):
        resolved = load(PATHS, f"exp.mode={mode}")
        assert resolved.guidance_model.lr == lr
        assert load(dump_config(resolved)) == resolved
    assert capsys.readouterr().err == ""


def test_aliases_share_nothing(load):
    config = load("guidance_model: &shared {batch_size: 4}\nunet_model: *shared\n" + PATHS, "unet_model.batch_size=2")
    assert (config.guidance_model.batch_size, config.unet_model.batch_size) == (4, 2)
