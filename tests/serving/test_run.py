"""A folder enhanced from Python as inference.py does it: planned first, and nothing is printed."""

import pytest
import torch

from common.errors import UserError
from configs.load import load_config
from configs.schema import InferenceConfig
from data.images import read_rgb8
from models.checkpoints import save_tensors
from models.unet import IlluminationUNet
from serving.run import enhance_folder, make_plan
from tests.serving.helpers import save_photo


@pytest.fixture
def config(tmp_path) -> InferenceConfig:
    """Photos 0.png, 1.png and one that is none, and random weights that double the brightness."""
    torch.manual_seed(0)
    save_tensors(IlluminationUNet(map_bias=0.5).state_dict(), tmp_path / "unet.safetensors", {})
    for number in range(2):
        save_photo(tmp_path / "in" / f"{number}.png", value=40)
    (tmp_path / "in" / "bad.jpg").write_text("no photo")
    given = [f"data.input={tmp_path / 'in'}", f"model.checkpoint={tmp_path / 'unet.safetensors'}"]
    given += ["model.device=cpu", "model.backend=torch", "save.illumination=true"]
    return load_config(InferenceConfig, "inference.yaml", given)


def test_a_plan_writes_nothing_and_is_carried_out(config, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    plan = make_plan(config)
    assert sorted(tmp_path.rglob("*")) == before
    assert plan.folders() == [tmp_path / "in_enhanced", tmp_path / "in_enhanced_illumination"]
    begun = []
    run = enhance_folder(plan, begun.append)
    assert run.main and run.seconds > 0 and begun == [run.device] and run.device.processes == 1
    assert run.outcome.enhanced == 2 and [path.name for path, _ in run.outcome.failures] == ["bad.jpg"]
    assert 70 <= read_rgb8(tmp_path / "in_enhanced" / "0.png").mean() <= 90
    assert (tmp_path / "in_enhanced_illumination" / "1.png").is_file()
    assert capsys.readouterr() == ("", "")
    assert {path.name for path in make_plan(config).replaces} == {"0.png", "1.png"}


def test_what_is_missing_is_told_by_the_plan(config, tmp_path):
    def changed(section: str, **values: object) -> InferenceConfig:
        return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})

    for other, message in (
        (changed("data", input=None), "data.input: expected a folder or photos, found nothing"),
        (changed("model", checkpoint=str(tmp_path / "no.pth")), "model.checkpoint: expected a file"),
        (changed("save", skip_existing=True, overwrite=True), "expected at most one of them"),
    ):
        with pytest.raises(UserError, match=message):
            make_plan(other)
