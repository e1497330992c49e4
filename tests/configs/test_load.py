"""YAML -> config: published files, overrides, and every mistake told in one line with its key."""

from pathlib import Path

import pytest
import yaml

from common.errors import UserError
from common.paths import REPO_ROOT
from configs.docs import CONFIGS, write
from configs.load import CONFIG_ROOT, dump_config, find_config, load_config
from configs.schema import InferenceConfig, MetricsConfig, TrainConfig

SHIPPED = [(path, schema) for schema, pattern in CONFIGS.values() for path in sorted(CONFIG_ROOT.glob(pattern))]
PATHS = "data: {backlit_images_path: a, welllit_images_path: b}\n"

# every key of the authors' training files
PUBLISHED = """
exp: {mode: rave, exp_name: rave_unpaired, save_dir: ./train_results}
data: {backlit_images_path: ./backlit, welllit_images_path: ./welllit}
train: {num_epochs: 2000, num_workers: 4}
unet_model:
  {thr_loss: 90, lr: 2e-5, weight_decay: 0.001, num_reconstruction_iters: 1000, batch_size: 8, display_iter: 20,
   load_pretrain: false, pretrain_dir: ./unet.pth}
guidance_model:
  {length_prompt: 16, thr_loss: 60, lr: 5e-6, weight_decay: 0.001, num_pretrain_iters: 8000, batch_size: 16,
   display_iter: 20,
   load_pretrain: false, pretrain_dir: ./prompt.pth}
guidance: {remove_first_n_tokens: 0}
"""


@pytest.fixture
def load(tmp_path):
    def _load(text: str, *overrides: str, schema=TrainConfig):
        (tmp_path / "c.yaml").write_text(text)
        return load_config(schema, str(tmp_path / "c.yaml"), list(overrides))

    return _load


def test_every_file_under_configs_is_of_one_kind():
    assert sorted(path for path, _ in SHIPPED) == sorted(CONFIG_ROOT.rglob("*.yaml"))


@pytest.mark.parametrize(("path", "schema"), SHIPPED, ids=lambda value: getattr(value, "name", ""))
def test_every_shipped_config_loads_and_says_what_it_is_for(path, schema, capsys):
    load_config(schema, str(path))
    assert capsys.readouterr().err == ""  # no key in it is without effect
    lines = path.read_text().splitlines()
    head = lines[:3]
    assert max(map(len, lines)) <= 120
    assert all(line.startswith("# ") for line in head)
    assert "Command:" in head[1] and "Takes:" in head[2]


def test_published_file_loads(load):
    config = load(PUBLISHED)
    assert config.unet_model.lr == 2e-5
    assert config.guidance_model.lr == 5e-6
    assert config.train.num_epochs == 2000


def test_resolved_config_reads_back_the_same(load, tmp_path):
    config = load(PUBLISHED, "exp.seed=7", "data.val_list=on")
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(TrainConfig, str(tmp_path / "again.yaml")) == config


def test_overrides(load):
    config = load(
        PATHS,
        "unet_model.lr=1e-4",
        "clip.guidance.model=mini-rn",
        "clip.guidance.pretrained=null",
        "data.image_size=64",
    )
    assert (config.unet_model.lr, config.clip.guidance.model, config.clip.guidance.pretrained) == (
        1e-4,
        "mini-rn",
        None,
    )
    assert load(PATHS, "data.backlit_images_path=/photos/a: b").data.backlit_images_path == "/photos/a: b"
    assert load(PATHS, "data.backlit_images_path=[x").data.backlit_images_path == "[x"


def test_yaml_traps_are_gone(load):
    assert load("metrics: {lpips: on}", schema=MetricsConfig).metrics.lpips == "on"
    assert load("metrics: {lpips: off}", schema=MetricsConfig).metrics.lpips == "off"
    assert load(PATHS + "unet_model: {lr: 2e-5, weight_decay: 1E-3}").unet_model.weight_decay == 1e-3
    assert load(PATHS + "unet_model:\n").unet_model.batch_size == 8  # an empty section means its defaults


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (PATHS + "unet_model: {lrr: 1}", [], "unknown key 'unet_model.lrr'; did you mean 'unet_model.lr'?"),
        (PATHS + "unet_modl: {lr: 1}", [], "unknown key 'unet_modl'; did you mean 'unet_model'?"),
        (PATHS + "lr: 1.0", [], "unknown key 'lr'; did you mean 'unet_model.lr'?"),
        (PATHS, ["data.backlit_path=x"], "did you mean 'data.backlit_images_path'?"),
        (PATHS, ["unet_model.learning_rate=1"], "did you mean 'unet_model.lr'?"),
        (PATHS, ["unet_model.iters=1"], "known here: "),
        (PATHS, ["exp.sed=1"], "unknown key 'exp.sed'; did you mean 'exp.seed'?"),
        ("data: {backlit_images_path: a}", [], "missing: data.welllit_images_path; give"),
        ("", [], "missing: data.backlit_images_path, data.welllit_images_path; give what is missing in the file"),
        (PATHS + "unet_model: {batch_size: '8'}", [], "unet_model.batch_size: expected integer, found the text '8'"),
        (PATHS + "unet_model: {batch_size: 8.5}", [], "unet_model.batch_size: expected integer, found 8.5"),
        (PATHS + "unet_model: {lr: true}", [], "unet_model.lr: expected number, found True"),
        (PATHS + "loss: {residual: .inf}", [], "loss.residual: expected a finite number, found inf"),
        (PATHS + "unet_model: {map_bias: .nan}", [], "unet_model.map_bias: expected a finite number, found nan"),
        (PATHS + "unet_model: {lr: -1.0}", [], "unet_model.lr: expected greater than 0"),
        (
            PATHS + "unet_model: {batch_size: 0}",
            [],
            "unet_model.batch_size: expected greater than or equal to 1, found 0",
        ),
        (
            PATHS + "exp: {mode: raev}",
            [],
            "exp.mode: expected 'rave', 'clip_lit' or 'clip_lit_latent', found the text 'raev'",
        ),
        (PATHS + "exp: {seed: 1}\nexp: {seed: 2}", [], "line 3: key 'exp' is given twice"),
        (PATHS + "exp: {seed: 1, seed: 2}", [], "line 2: key 'seed' is given twice"),
        ("- a", [], "expected sections with keys, found a list of 1"),
        ("data: [", [], "not valid YAML"),
        (PATHS, ["exp.seed"], "--set exp.seed: expected KEY=VALUE, found no equals sign"),
        (PATHS, ["exp.seed=1", "exp.seed.x=1"], "--set exp.seed.x=1: 'seed' is a value, not a section"),
        (PATHS, ["exp=1", "exp.seed=1"], "--set exp=1: 'exp' is a section, not a value"),
        (PATHS, ["exp={seed: 2}", "exp.seed=1"], "--set exp={seed: 2}: 'exp' is a section, not a value"),
        (PATHS, ["exp=1"], "command line: exp: expected a section with keys, found 1"),
        ("data: {backlit_images_path: ' ', welllit_images_path: b}", [], "expected a path, found an empty name"),
        (
            PATHS + "loss: {identity_layers: [1, 1, 1]}",
            [],
            "loss.identity_layers: expected at least 5 items, found [1, 1, 1]",
        ),
        ("data: 3", [], "data: expected"),
    ],
)
def test_mistakes_are_told_in_one_line_with_the_key(load, text, overrides, message):
    with pytest.raises(UserError) as caught:
        load(text, *overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_merge_keys_are_allowed(load):
    text = "guidance_model: &shared {lr: 1e-3, batch_size: 4}\nunet_model: {<<: *shared, lr: 1e-4}\n" + PATHS
    assert (load(text).unet_model.lr, load(text).unet_model.batch_size) == (1e-4, 4)


def test_cfg_takes_paths_and_bare_names():
    assert find_config("rave.yaml") == find_config("rave") == CONFIG_ROOT / "train" / "rave.yaml"
    assert find_config(str(SHIPPED[0][0])) == SHIPPED[0][0]
    assert find_config("metrics.yaml").samefile(REPO_ROOT / "configs/inference/metrics.yaml")
    with pytest.raises(UserError, match=r"did you mean 'rave\.yaml'"):
        find_config("rav.yaml")
    with pytest.raises(UserError, match="found a folder"):
        find_config(str(CONFIG_ROOT))


def test_a_folder_of_a_config_s_name_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rave").mkdir()  # as `save_dir: ./` of the releases makes it
    assert find_config("rave") == CONFIG_ROOT / "train" / "rave.yaml"


def test_generated_reference_and_schemas_are_up_to_date(tmp_path):
    write(tmp_path)
    for name in ("README.md", *(f"schema/{n}.schema.json" for n in CONFIGS)):
        assert (tmp_path / name).read_text() == (CONFIG_ROOT / name).read_text(), (
            f"{name} is stale: run `make config-docs`"
        )


def test_binary_file_is_no_config(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match=r"c\.yaml"):
        load_config(TrainConfig, str(tmp_path / "c.yaml"))


def test_release_names_of_the_design_are_all_keys():
    given = yaml.safe_load(PUBLISHED)
    for section, keys in given.items():
        assert set(keys) <= set(TrainConfig.model_fields[section].annotation.model_fields)
    assert Path(CONFIG_ROOT / "README.md").is_file()


def test_a_key_of_several_types_names_them_all():
    for value, found in (
        ("101", "less than or equal to 100 or 'keep', found 101"),
        ("best", "integer or 'keep', found the"),
    ):
        with pytest.raises(UserError, match=rf"save\.quality: expected {found}"):
            load_config(InferenceConfig, "inference.yaml", [f"save.quality={value}"])
