"""The supervised regime: ground truths of a folder and of simulated backlight, alone or beside the guidance."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from data.folders import MixedInputs, PairedPhotos, PhotoArray
from losses.pixel import pixel_loss
from models.checkpoints import load_unet, save_tensors
from models.retinex import divide, enhance
from models.unet import IlluminationUNet
from models.weight_files import read_metadata
from tests.helpers import config, metrics
from training.inputs import unet_inputs
from training.loop import train
from training.phases import schedule
from training.runs import read_run

ALONE = ["loss.pixel=1", "loss.residual=0", "loss.identity_guided=0", "unet_model.num_reconstruction_iters=0"]


def array(*values: int) -> PhotoArray:
    """Photos of one colour each."""
    return PhotoArray([np.full((16, 16, 3), value, np.uint8) for value in values])


def test_input_and_truth_stay_together_under_augmentation():
    ramp = np.tile(np.arange(16, dtype=np.uint8)[:, None, None] * 8, (1, 16, 3))
    photos, truths = PhotoArray([ramp, ramp[::-1].copy()]), PhotoArray([ramp[::-1].copy() * 2, ramp * 2])
    flips = lambda *images: tuple(i.flip(-2) for i in images) if torch.rand(()) < 0.5 else images  # noqa: E731
    pairs = PairedPhotos(photos, truths, [(0, 1), (1, 0)], flips)
    for seed in range(8):
        for index in (0, 1):
            photo, truth = pairs[index, seed]
            torch.testing.assert_close(truth, photo * 2)
    assert torch.equal(pairs[0], photos[0])


def test_inputs_are_mixed_by_their_shares():
    both = lambda photo: (photo, photo)  # noqa: E731
    sets = [(0.5, PhotoArray(array(100).pixels, both)), (0.25, PhotoArray(array(200).pixels, both))]
    mixed = MixedInputs(array(0), sets)
    drawn = [int(mixed[0, seed][0].max() * 255) for seed in range(400)]
    assert [round(drawn.count(v) / 400, 1) for v in (0, 100, 200)] == pytest.approx([0.25, 0.5, 0.25], abs=0.06)
    assert all(mixed[0, seed][2] == (value > 0) for seed, value in enumerate(drawn))
    assert MixedInputs(PairedPhotos(array(1), array(2), [(0, 0)]))[0, 3][2] is True


def test_a_supervised_training_needs_no_encoder_and_learns_its_pairs(overrides, photo_folders, tmp_path):
    backlit, _ = photo_folders
    truth = tmp_path / "truth"
    truth.mkdir()
    for path in sorted(backlit.iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)
        Image.fromarray(np.minimum(pixels * 1.6, 255).astype(np.uint8)).save(truth / path.with_suffix(".png").name)
    options = [
        *ALONE,
        f"data.pairs={truth}",
        f"data.val_gt_path={truth}",
        "clip.guidance.pretrained=nowhere.safetensors",  # would be refused if it were read
        "train.num_iters=40",
        "train.val_iter=40",
        "unet_model.lr=3e-3",
        "unet_model.map_bias=1",
        "data.augment=false",
    ]
    run = train(config(overrides, *options))
    lines = [line for line in metrics(run) if "pixel" in line]
    assert lines[-1]["pixel"] < 0.5 * lines[0]["pixel"]
    assert {"identity", "residual"}.isdisjoint(lines[0])
    unet = load_unet(run / "checkpoints" / "best.safetensors")
    photo = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.3
    assert enhance(photo, unet(photo)).mean() > 1.2 * photo.mean()


def test_ground_truths_join_the_guidance(overrides, photo_folders):
    backlit, _ = photo_folders
    run = train(config(overrides, "loss.pixel=2", f"data.pairs={backlit}", "train.num_iters=2"))
    last = [line for line in metrics(run) if line.get("phase") == "rave" and "loss" in line][-1]
    assert last["loss"] == pytest.approx(last["identity"] + last["residual"] + last["pixel"], rel=1e-5)


def test_the_photos_that_are_trained_on_are_counted(overrides, photo_folders, tmp_path, capsys):
    backlit, _ = photo_folders
    shutil.copytree(backlit, tmp_path / "truth")
    sorted((tmp_path / "truth").iterdir())[0].unlink()
    for truth, count in (
        (backlit, "6 backlit"),
        (tmp_path / "truth", "5 backlit with a ground truth (left out: 1 without)"),
    ):
        train(config(overrides, *ALONE, f"data.pairs={truth}"), dry_run=True)
        assert f"photos     {count}, 8 well-lit, trained at 16 x 16\n" in capsys.readouterr().out


def test_guided_results_stay_out_of_white(overrides, photo_folders):
    options = ["data.simulated_backlight.share=0.5", "train.num_iters=2", "unet_model.map_bias=0.2"]
    line = next(line for line in metrics(train(config(overrides, "loss.white=3", *options))) if "white" in line)
    assert line["white"] > 0
    assert line["loss"] == pytest.approx(line["identity"] + line["residual"] + line["white"], rel=1e-5)


@pytest.mark.parametrize(
    ("more", "name", "terms"),
    [
        (["loss.pixel=1"], "rave", {"identity", "residual", "pixel"}),
        (ALONE, "supervised", {"pixel"}),
        ([], "rave", {"identity", "residual"}),
        (["loss.white=3"], "rave", {"identity", "residual", "white"}),
        ([*ALONE, "loss.white=3"], "supervised", {"pixel", "white"}),
    ],
)
def test_schedule_says_what_is_compared_with_what(overrides, more, name, terms):
    wanted = config(overrides, "unet_model.settle_at=0.5", *more)
    phase = schedule(wanted, 10)[-1]
    assert (phase.name, wanted.method, set(phase.terms)) == (name, name, terms)
    guided = name == "rave"  # a set point and thr_loss mean nothing to losses against ground truths
    assert guided == (phase.extend_while_loss_above is not None) == (phase.settle_at is not None)


def test_a_training_by_ground_truths_is_called_so_everywhere(overrides, photo_folders, capsys):
    backlit, _ = photo_folders
    start = ("unet_model.num_reconstruction_iters=2", "train.num_iters=2")  # whose start reads the encoders
    run = train(config(overrides, *ALONE, f"data.pairs={backlit}", *start))
    printed = capsys.readouterr().out
    assert "method     supervised: by ground truths, without guidance\n" in printed
    assert "encoders  " in printed and "direction " not in printed and "while the loss is above" not in printed
    assert not (run / "checkpoints" / "direction.safetensors").exists()
    assert json.loads((run / "summary.json").read_text())["method"] == "supervised"
    assert read_metadata(run / "checkpoints" / "best.safetensors")["method"] == "supervised"
    assert read_run(run).method == "supervised" and "<h2>Guidance</h2>" not in (run / "report.html").read_text()


def test_dim_photos_stay_and_the_others_are_darkened(overrides, photo_folders, tmp_path):
    backlit, welllit = photo_folders
    data = config(overrides, "data.simulated_backlight.share=0.5", "data.simulated_backlight.dim=0.5").data
    data = data.model_copy(
        update={
            "simulated_backlight": data.simulated_backlight.model_copy(
                update={"foreground_stops": [3.0, 3.0], "even": 1.0}
            )
        }
    )
    photos = sorted(welllit.iterdir())
    mixed = unet_inputs(data, str(tmp_path / "c"), sorted(backlit.iterdir()), photos, [])
    means = sorted(mixed.others[0][1][i].mean() for i in range(len(mixed.others[0][1])))
    assert max(mixed.others[1][1][i].mean() for i in range(len(mixed.others[1][1]))) <= means[0]
    for seed in range(20):
        photo, lit, known = mixed[0, seed]
        assert known
        assert torch.equal(photo, lit) or photo.mean() < 0.5 * lit.mean()


def test_dark_parts_of_well_lit_photos_stay(overrides, photo_folders, tmp_path):
    backlit = sorted(photo_folders[0].iterdir())
    data = config(overrides, "data.simulated_backlight.low_key=1").data
    pixels = np.full((48, 48, 3), 250, np.uint8)
    pixels[0] = 200
    Image.fromarray(pixels).save(tmp_path / "bright.png")
    pixels[:29, :29] = 20
    Image.fromarray(pixels).save(tmp_path / "corner.png")
    both = [tmp_path / "bright.png", tmp_path / "corner.png"]
    mixed = unet_inputs(data, str(tmp_path / "c"), backlit, both, [])
    for seed in range(8):
        photo, truth, known = mixed[0, seed]
        assert known and torch.equal(photo, truth) and photo.mean() < 0.1
    with pytest.raises(UserError, match=r"low_key: expected well-lit photos with dark parts .* found none among 1"):
        unet_inputs(data, str(tmp_path / "c"), backlit, both[:1], [])


@pytest.mark.parametrize("error", ["absolute", "psnr"])
def test_the_config_picks_the_error_of_the_supervised_loss(overrides, tmp_path, error):
    """The first step of a training whose photos are all the same, from weights that are known."""
    photo, truth = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(255).byte()
    for folder, pixels in (("photos", photo), ("truths", truth)):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).save(tmp_path / folder / f"{name}.png")
    torch.manual_seed(0)
    unet = IlluminationUNet("zeros", map_bias=0.5)
    save_tensors(unet.state_dict(), tmp_path / "start.safetensors")
    places = [f"data.backlit_images_path={tmp_path / 'photos'}", f"data.pairs={tmp_path / 'truths'}"]
    places += [f"data.val_backlit_path={tmp_path / 'photos'}", f"data.val_gt_path={tmp_path / 'truths'}"]
    start = ["unet_model.load_pretrain=true", f"unet_model.pretrain_dir={tmp_path / 'start.safetensors'}"]
    step = ["data.augment=false", "train.num_iters=1", "unet_model.display_iter=1", "train.precision=fp32"]
    run = train(config(overrides, *ALONE, *places, *start, *step, f"loss.pixel_error={error}"))
    with torch.no_grad():
        expected = pixel_loss(divide(photo / 255, unet(photo / 255)), truth / 255, 0.3, error)
    assert [line["pixel"] for line in metrics(run) if "pixel" in line] == [pytest.approx(float(expected), rel=1e-4)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (ALONE, "data.pairs: expected a folder of ground truths"),
        (["data.simulated_backlight.share=0.7", "data.simulated_backlight.dim=0.5"], "at most 1"),
        (["data.simulated_backlight.dim=0.7", "data.simulated_backlight.low_key=0.5"], "at most 1"),
        (["loss.pixel=1", "data.pairs=missing"], "data.pairs"),
    ],
)
def test_mistakes_name_the_key(overrides, more, message):
    with pytest.raises(UserError, match=message):
        train(config(overrides, *more), dry_run=True)
