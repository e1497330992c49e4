"""RAVE training end to end with a tiny encoder: the run folder, resume bit for bit, guards, the command line."""

import itertools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_rave
from common.errors import UserError
from common.paths import REPO_ROOT
from configs.load import load_config
from configs.schema import TrainConfig
from models.checkpoints import load_unet, read_tensors, save_tensors
from models.clip_encoder import ClipEncoder
from models.unet import IlluminationUNet
from models.weight_files import read_content, read_metadata
from serving.backends import _has_compiler
from tests.helpers import arguments, assert_same_run, config, metrics
from training.guards import TrainingDiverged
from training.loop import train
from training.phases import describe_schedule, rave_schedule
from training.photos import leave_out_notes, training_photos
from training.runs import read_run
from training.runtime import adam, make_accelerator
from training.state import TrainState
from training.unet_task import UNetTask, luma_error, used_layers
from training.validation import Validation, enhance_photos, validation_pairs


def assert_tensorboard_shows(run: Path, lines: list[dict]) -> None:
    """The scalars of the log, value by value, and no others."""
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    shown = {(tag.split("/")[1], e.step): e.value for tag in tags for e in accumulator.Scalars(tag)}
    logged = {
        (name, line["iteration"]): value for line in lines for name, value in line.items() if isinstance(value, float)
    }
    # seconds are in the log twice where an iteration has two lines
    timed = {key for key in logged if key[0] == "seconds"}
    assert shown.keys() == logged.keys()
    assert all(shown[key] == pytest.approx(value, rel=1e-6) for key, value in logged.items() if key not in timed)


def test_run_folder_holds_everything(overrides):
    run = train(config(overrides))
    records = ("config.yaml", "provenance.json", "metrics.jsonl", "summary.json", "outcome.json", "report.html")
    for name in (*records, "checkpoints/last.pt"):
        assert (run / name).stat().st_size > 0
    assert list((run / "tensorboard").glob("events*"))
    for picture in ("curves.png", "previews/iteration_000000.png", "previews/iteration_000008.png"):
        assert Image.open(run / picture).size > (100, 100)
    assert load_config(TrainConfig, str(run / "config.yaml")) == config(overrides)
    provenance = json.loads((run / "provenance.json").read_text())
    assert {"command", "commit", "versions", "hardware"} <= provenance.keys()

    lines = metrics(run)
    assert_tensorboard_shows(run, lines)
    steps, checks = [m for m in lines if "loss" in m], [m for m in lines if "val_psnr" in m]
    assert [m["iteration"] for m in steps] == [2, 4, 6, 8, 10]
    assert [m["phase"] for m in steps] == ["reconstruction"] * 2 + ["rave"] * 3
    assert [m["iteration"] for m in checks] == [0, 4, 8, 10]
    for m in steps:  # the named terms add up to the loss
        assert m["identity"] + m.get("residual", 0) == pytest.approx(m["loss"], rel=1e-5)

    best = run / "checkpoints" / "best.safetensors"
    assert read_metadata(best)["method"] == "rave"
    assert torch.isfinite(load_unet(best)(torch.rand(1, 3, 16, 16))).all()


def test_same_seed_same_weights_whatever_the_workers(overrides):
    first = train(config(overrides))
    second = train(config(overrides, "exp.exp_name=again", "train.num_workers=2"))
    other = train(config(overrides, "exp.exp_name=other", "exp.seed=1"))
    weights = [read_tensors(run / "checkpoints/best.safetensors") for run in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_best_by_validation_is_of_the_guided_phase(overrides):
    run = train(config(overrides))
    checks = {m["iteration"]: m["val_psnr"] for m in metrics(run) if "val_psnr" in m}
    summary = json.loads((run / "summary.json").read_text())
    guided = {iteration: psnr for iteration, psnr in checks.items() if iteration > 4}  # reconstruction takes 4
    assert checks[0] >= max(guided.values())  # here the start, which has learned nothing, is as good as it gets
    assert summary["best_val_iteration"] == max(guided, key=guided.get)


def interrupt_at(total: int):
    """Ctrl-C before the step after iteration `total`."""
    return lambda trainer: signal.raise_signal(signal.SIGINT) if trainer.state.total == total else None


EXTRAS = [
    "unet_model.ema=0.8",
    "unet_model.first_map=retinex",
    "data.simulated_backlight.share=0.5",
    "guidance.direction=relit",
    "guidance.layers=stages",
    "guidance.set_point=photo",
]


@pytest.mark.parametrize(("stop_at", "more"), [(3, []), (4, []), (7, []), (7, EXTRAS)])
def test_resume_equals_an_uninterrupted_run_bit_for_bit(overrides, stop_at, more):
    overrides = [*overrides, *more]
    whole = train(config(overrides))
    with pytest.raises(KeyboardInterrupt):
        train(config(overrides, "exp.exp_name=stopped"), on_iteration=interrupt_at(stop_at - 1))
    resumed = train(config(overrides, "exp.exp_name=stopped"), resume=True)

    assert_same_run(whole, resumed)


def test_average_of_the_weights():
    """After k steps: Σ decay^(k-i) (1 - decay) w_i, started from the first weights; snapshots of the UNet are of it."""
    unet = torch.nn.Linear(1, 1, bias=False)
    state = TrainState({"unet": unet}, {})
    values = [1.0, 3.0, -2.0]
    expected = values[0]
    for value in values:
        torch.nn.init.constant_(unet.weight, value)
        state.update_average(0.75)
        expected = 0.75 * expected + 0.25 * value
        assert state.snapshot("unet")["weight"].item() == pytest.approx(expected)
    state.keep_best(state.snapshot())
    state.go_back_to_best()
    assert unet.weight.item() == pytest.approx(expected)


def test_an_earlier_run_is_moved_aside_or_deleted_when_asked(overrides, tmp_path):
    run = train(config(overrides))
    (run / "note.txt").write_text("mine")
    train(config(overrides))
    assert (tmp_path / "runs" / "tiny.old-1" / "note.txt").read_text() == "mine"
    assert not (run / "note.txt").exists()
    train(config(overrides, "exp.overwrite=true"))
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["tiny", "tiny.old-1"]
    precious = tmp_path / "runs" / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="found other files"):
        train(config(overrides, "exp.overwrite=true", "exp.exp_name=precious"))
    assert (precious / "thesis.txt").exists()


def test_thr_loss_extends_the_phase_up_to_the_limit(overrides):
    run = train(config(overrides, "unet_model.thr_loss=1e-6", "unet_model.max_extensions=3"))
    assert json.loads((run / "summary.json").read_text())["iterations"] == 4 + 6 + 3 * 2
    run = train(config(overrides, "unet_model.thr_loss=1e6"))
    assert json.loads((run / "summary.json").read_text())["iterations"] == 4 + 6


def test_best_snapshot_is_a_copy(overrides):
    run = train(config(overrides, "unet_model.lr=1e-2"))
    state = torch.load(run / "checkpoints/last.pt", weights_only=True)
    assert state["best"]["unet"]["cond1.weight"].data_ptr() != state["modules"]["unet"]["cond1.weight"].data_ptr()
    assert state["best_total"]["unet"] > 4


def test_dead_start_begins_anew_with_another_seed_and_gives_up_in_words(overrides):
    dead = "unet_model.map_bias=-1.0"  # the map is zero everywhere: no gradient, a white picture
    for iterations in (4, 0):
        with pytest.raises(
            TrainingDiverged, match=r"the map is zero everywhere, as from 10 other seeds; .*unet_model\.map_bias"
        ):
            train(config(overrides, dead, f"unet_model.num_reconstruction_iters={iterations}"))


def test_a_gradient_of_zero_is_no_collapse(overrides):
    """As of black photos: what the guard means is a map that is zero everywhere."""
    nothing = ("loss.identity=0", "loss.identity_guided=0", "loss.residual=0")
    summary = json.loads((train(config(overrides, *nothing)) / "summary.json").read_text())
    assert (summary["restarts"], summary["collapses"], summary["iterations"]) == (0, 0, 10)


def test_black_photos_are_named_and_not_trained_on(overrides, photo_folders, capsys):
    Image.new("RGB", (30, 30)).save(photo_folders[0] / "black.png")
    run = train(config(overrides, "unet_model.batch_size=1"))
    assert "black.png: of one colour everywhere" in capsys.readouterr().err
    assert json.loads((run / "summary.json").read_text())["collapses"] == 0
    for path in photo_folders[0].iterdir():
        Image.new("RGB", (30, 30)).save(path)
    with pytest.raises(UserError, match="expected photos, found one colour everywhere in each"):
        train(config(overrides))


def test_short_run_without_validation_still_has_its_figures(overrides):
    run = train(config(overrides, "data.val_backlit_path=null", "data.val_gt_path=null", "unet_model.display_iter=20"))
    assert [m["iteration"] for m in metrics(run)] == [4, 10]
    assert (run / "curves.png").is_file()
    assert (run / "previews/iteration_000010.png").is_file()


def test_a_wrong_encoder_costs_no_earlier_run(overrides):
    run = train(config(overrides))
    with pytest.raises(UserError, match="five feature maps"):
        train(config(overrides, "exp.overwrite=true", "clip.identity.model=timm/vit_tiny_patch16_224"))
    assert (run / "summary.json").is_file()


def test_resume_of_a_finished_or_damaged_run(overrides, capsys):
    run = train(config(overrides))
    assert train(config(overrides), resume=True) == run
    assert "finished already" in capsys.readouterr().out
    for name in ("last.pt", "last.previous.pt"):
        (run / "checkpoints" / name).write_bytes(b"rubbish")
    with pytest.raises(UserError, match="not a state of this kind of run"):
        train(config(overrides), resume=True)


def test_a_stop_inside_an_iteration_goes_on_from_the_state_saved_before(overrides, capsys):
    whole = train(config(overrides))

    def interrupt(trainer):  # as a second Ctrl-C does
        if trainer.state.total == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(overrides, "exp.exp_name=stopped"), on_iteration=interrupt)
    assert "stopped inside an iteration" in capsys.readouterr().out
    assert_same_run(whole, train(config(overrides, "exp.exp_name=stopped"), resume=True))


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_run_stopped_after_its_last_step_is_finished_by_resume(overrides, monkeypatch):
    whole = train(config(overrides))
    monkeypatch.setattr("training.recorder.plot_curves", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config(overrides, "exp.exp_name=stopped"))
    monkeypatch.undo()
    stopped = whole.with_name("stopped")
    assert not (stopped / "summary.json").exists()
    train(config(overrides, "exp.exp_name=stopped"), resume=True)
    one, two = (json.loads((run / "summary.json").read_text()) for run in (whole, stopped))
    assert {**one, "seconds": 0} == {**two, "seconds": 0} and (stopped / "curves.png").is_file()
    assert_same_run(whole, stopped)


def test_the_last_validation_is_of_the_last_weights(overrides, monkeypatch):
    measured = []
    run_validation = Validation.run
    monkeypatch.setattr(
        Validation,
        "run",
        lambda self, weights, device: measured.append(weights) or run_validation(self, weights, device),
    )
    monkeypatch.setattr(TrainState, "keep_best", keep_first_best(TrainState.keep_best))
    run = train(config(overrides, "train.val_iter=4"))  # of 10 iterations
    assert [m["iteration"] for m in metrics(run) if "val_psnr" in m] == [0, 4, 8, 10]
    best = read_tensors(run / "checkpoints/best.safetensors")
    assert not torch.equal(measured[3]["cond1.weight"], best["cond1.weight"])


def test_a_snapshot_is_labelled_by_the_iterations_that_made_it(overrides):
    made = {}
    run = train(
        config(overrides, "unet_model.display_iter=2"),
        on_iteration=lambda trainer: made.update({trainer.state.total: trainer.state.snapshot("unet")}),
    )
    best = run / "checkpoints/best.safetensors"
    iteration = int(read_metadata(best)["iteration"])
    assert iteration > 0 and json.loads((run / "summary.json").read_text())["best_iteration"] == iteration
    assert all(torch.equal(value, made[iteration][name]) for name, value in read_tensors(best).items())


def keep_first_best(keep_best):
    """The best snapshot of a phase is its first."""
    return lambda self, weights, *total: keep_best(self, weights, *total) if self.best_score == float("-inf") else None


def test_ctrl_c_waits_for_the_end_of_the_iteration(overrides):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config(overrides), on_iteration=interrupt_at(5))
    run = Path(config(overrides).exp.save_dir) / "tiny"
    assert torch.load(run / "checkpoints/last.pt", weights_only=True)["total"] == 6
    assert signal.getsignal(signal.SIGINT) is before


def test_collapse_to_white_rolls_back_with_half_the_learning_rate(overrides):
    killed = []

    def kill(trainer):
        if trainer.state.total == 7 and not killed:  # iteration 3 of the guided phase
            killed.append(trainer.state.total)
            with torch.no_grad():
                trainer.state.modules["unet"].cond_add1.bias.fill_(-100)  # the map is zero everywhere

    run = train(config(overrides), on_iteration=kill)
    state = torch.load(run / "checkpoints/last.pt", weights_only=True)
    assert (state["collapses"], state["total"]) == (1, 10)
    assert state["optimizers"]["unet"]["param_groups"][0]["lr"] == pytest.approx(0.5 * config(overrides).unet_model.lr)
    assert state["modules"]["unet"]["cond_add1.bias"] > 0


def test_collapse_while_the_start_is_learned_halves_that_rate_too(overrides):
    rates = {}

    def kill(trainer):
        rates[trainer.state.phase] = trainer.unet.optimizer.param_groups[0]["lr"]
        if trainer.state.total == 1 and not trainer.state.collapses:
            with torch.no_grad():
                trainer.state.modules["unet"].cond_add1.bias.fill_(-100)

    settings = config(overrides, "unet_model.reconstruction_lr=1e-3")
    train(settings, on_iteration=kill)
    assert rates == {0: pytest.approx(5e-4), 1: pytest.approx(settings.unet_model.lr / 2)}


@pytest.mark.parametrize(("start", "kept"), [("identity", True), ("retinex", False)])
def test_adam_goes_on_after_a_reconstruction_and_starts_anew_after_a_first_map(overrides, start, kept):
    """One optimiser for both phases is the release's; the first map, whose gradients are far smaller, is ours."""
    moments = []
    settings = config(overrides, f"unet_model.first_map={start}", "train.num_iters=1")
    train(settings, on_iteration=lambda trainer: moments.append(len(trainer.unet.optimizer.state)))
    assert moments[1] > 0 and bool(moments[4]) == kept  # the start takes 4


def test_non_finite_loss_stops_before_the_update(overrides):
    before = []

    def spoil(trainer):
        before.append((trainer.state.snapshot("unet"), trainer.state))
        if trainer.state.total == 4:
            trainer.unet.residual.vector.fill_(float("nan"))

    with pytest.raises(TrainingDiverged, match="rave, iteration 4: loss nan"):
        train(config(overrides), on_iteration=spoil)
    run = Path(config(overrides).exp.save_dir) / "tiny"
    outcome = json.loads((run / "outcome.json").read_text())
    assert outcome["exit"] == "diverged" and outcome["reason"].startswith("rave, iteration 4: loss nan")
    assert outcome["reason"] in (run / "report.html").read_text(encoding="utf-8")
    weights, state = before[-1]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in state.snapshot("unet").items())


def test_learning_rate_falls_along_half_a_cosine(overrides):
    run = train(config(overrides, "unet_model.lr_schedule=cosine", "unet_model.display_iter=1"))
    rates = [m["learning_rate"] for m in metrics(run) if m.get("phase") == "rave" and "loss" in m]
    lr = config(overrides).unet_model.lr
    assert rates == pytest.approx([lr * (0.05 + 0.95 * (1 + math.cos(math.pi * step / 6)) / 2) for step in range(1, 7)])


def test_the_rate_is_kept_until_results_settle_and_falls_over_the_last_iterations(overrides):
    settling = ("unet_model.settle_at=0.9", "unet_model.settle_iters=3")
    run = train(config(overrides, *settling, "unet_model.lr_schedule=cosine", "unet_model.display_iter=1"))
    guided = [m for m in metrics(run) if m.get("phase") == "rave" and "loss" in m]
    lr = config(overrides).unet_model.lr
    expected = [lr * (0.05 + 0.95 * (1 + math.cos(math.pi * step / 3)) / 2) for step in (0, 0, 0, 1, 2, 3)]
    assert [m["learning_rate"] for m in guided] == pytest.approx(expected)
    way = (guided[0]["projection"] - guided[0]["backlit_projection"]) / (
        guided[0]["set_point"] - guided[0]["backlit_projection"]
    )
    assert guided[0]["way"] == pytest.approx(way, abs=1e-4)


def test_gradients_are_clipped(overrides, monkeypatch):
    norms = []
    step = torch.optim.Adam.step

    def watching_step(self, *arguments, **options):
        gradients = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        norms.append(torch.stack(gradients).norm().item())
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", watching_step)
    train(config(overrides, "unet_model.grad_clip=null"))
    free = max(norms)
    norms.clear()
    train(config(overrides, f"unet_model.grad_clip={free / 2}"))
    assert max(norms) == pytest.approx(free / 2, rel=1e-3)


def test_losses_stay_float32_where_networks_compute_in_bf16(overrides, monkeypatch):
    seen = {}
    losses = UNetTask.losses

    def watching_losses(self, phase, photos):
        hook = self.accelerator.unwrap_model(self.module).condx.register_forward_hook(
            lambda m, i, o: seen.update(condx=o.dtype)
        )
        terms, measures = losses(self, phase, photos)
        hook.remove()
        seen.update({name: value.dtype for name, value in {**terms, **measures}.items()})
        return terms, measures

    monkeypatch.setattr(UNetTask, "losses", watching_losses)
    AcceleratorState._reset_state(reset_partial_state=True)  # the precision is one for the whole process
    try:
        train(config(overrides, "train.precision=bf16"))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert seen.pop("condx") == torch.bfloat16
    assert {"identity", "residual", "projection"} < set(seen) and set(seen.values()) == {torch.float32}


def test_pretrained_start_skips_reconstruction_and_is_read_once(overrides, tmp_path, monkeypatch):
    torch.manual_seed(1)
    read = []
    monkeypatch.setattr("models.checkpoints.read_content", lambda path, **_: read.append(path) or read_content(path))
    save_tensors(IlluminationUNet(map_bias=1.0).state_dict(), tmp_path / "start.safetensors")
    run = train(
        config(overrides, "unet_model.load_pretrain=true", f"unet_model.pretrain_dir={tmp_path / 'start.safetensors'}")
    )
    assert {m["phase"] for m in metrics(run)} == {"rave"} and len(read) == 1
    with pytest.raises(UserError, match=r"unet_model\.pretrain_dir: expected a weight file"):
        train(config(overrides, "unet_model.load_pretrain=true", "exp.exp_name=x"))


def test_broken_training_photo_is_left_out_and_told(overrides, photo_folders, capsys):
    (photo_folders[0] / "zz.jpg").write_bytes(b"broken")
    left_out = []
    run = train(config(overrides), left_out=left_out)  # the folder is that of validation too
    assert [reason.partition(":")[0] for reason in left_out] == [str(photo_folders[0] / "zz.jpg")]
    out, err = capsys.readouterr()
    assert err.count("left out: ") == 1 and "validation 6 pairs" in out
    known = read_run(run)
    assert known.result()["left_out"] == list(known.left_out) == left_out and known.photos["backlit"] == 6
    assert f"1 photo left out: {left_out[0].partition(': ')[0]}" in (run / "report.html").read_text()
    assert [m for m in metrics(run) if "val_psnr" in m]


def test_schedule_is_data_that_can_be_printed(overrides):
    wanted = config(overrides, "train.num_iters=null", "train.num_epochs=3")
    phases = rave_schedule(wanted, photos=7)
    assert [(p.name, p.iterations) for p in phases] == [("reconstruction", 4), ("rave", 3 * 4)]
    text = describe_schedule(phases)
    assert "1. reconstruction: 4 iterations" in text
    assert "2. rave: 12 iterations" in text


def test_layers_above_the_last_weight_are_not_used():
    assert used_layers((1.0, 0.0, 0.5, 0.0, 0.0)) == (1.0, 0.0, 0.5)
    assert used_layers((1.0, 1.0, 1.0, 1.0, 0.5)) == (1.0, 1.0, 1.0, 1.0, 0.5)
    assert len(used_layers((0.0,) * 5)) == 1


STAGES = ("guidance.layers=stages", "guidance.set_point=photo")


@pytest.mark.parametrize(
    ("guidance", "more", "passes"), [("mini-rn", (), 2), ("mini-rn", STAGES, 2), ("timm/resnet10t", (), 3)]
)
def test_a_guided_step_makes_one_pass_per_encoder_and_batch(overrides, monkeypatch, guidance, more, passes):
    """Inputs and results through the identity encoder,
    and through that of the guidance in the same pass if it is the same.
    """
    counted = []
    prepare = ClipEncoder._prepare
    monkeypatch.setattr(
        ClipEncoder, "_prepare", lambda self, images: counted.append(len(images)) or prepare(self, images)
    )
    settings = (f"clip.guidance.model={guidance}", "unet_model.num_reconstruction_iters=0", "train.num_iters=1", *more)
    train(config(overrides, *settings), on_iteration=lambda trainer: counted.clear())
    assert counted == [2] * passes


@pytest.mark.parametrize("untouched", [0.0, 1.0])
def test_set_points_of_photos_are_their_own_or_those_of_how_they_were_lit(overrides, untouched):
    """A darkened input is pulled to where the photo was; one as it is stays; a backlit one goes factor · Δ further."""
    points = ["guidance.set_point=photo", "guidance.set_point_factor=1.2"]
    simulated = f"data.simulated_backlight={{share: 0.5, untouched: {untouched}, foreground_stops: [3.0, 4.0]}}"
    seen = []

    def look(trainer):
        unet = trainer.unet
        encoder, r = unet.guidance_encoder, unet.residual.vector
        for batch in itertools.islice(unet.batches(trainer.phases[-1], 0), 6):
            own = encoder.embed_images(batch.photos) @ r
            found = unet._set_points(encoder.embed_images(batch.photos), batch)
            assert torch.allclose(found[~batch.known], own[~batch.known] + 1.2 * unet.residual.step, atol=1e-5)
            if batch.known.any():
                assert torch.allclose(found[batch.known], encoder.embed_images(batch.lit) @ r, atol=1e-5)
                assert torch.equal(batch.lit, batch.photos[batch.known]) == bool(untouched)
            seen.extend(batch.known.tolist())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(overrides, simulated, *points), on_iteration=look)
    assert set(seen) == {True, False}


def test_fused_adam_is_adam():
    torch.manual_seed(0)
    start = torch.rand(4, 3, 3, 3).to(memory_format=torch.channels_last)
    weights = [start.clone().requires_grad_() for _ in range(2)]
    options = {"lr": 1e-2, "weight_decay": 1e-3}
    optimizers = [adam(weights[:1], torch.device("cpu"), **options), torch.optim.Adam(weights[1:], **options)]
    for _ in range(4):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            optimizer.zero_grad()
            (weight * torch.arange(108.0).view(4, 3, 3, 3)).sin().sum().backward()
            optimizer.step()
    assert torch.allclose(*weights, atol=1e-6)
    assert not torch.equal(weights[0], start)


@pytest.mark.slow
def test_compiled_training_has_the_same_names_and_nearly_the_same_losses(overrides):
    if not _has_compiler():
        pytest.skip("torch.compile needs a C++ compiler")
    plain = train(config(overrides))
    compiled = train(config(overrides, "train.compile=true", "exp.exp_name=compiled"))
    tensors = [read_tensors(run / "checkpoints/best.safetensors") for run in (plain, compiled)]
    assert tensors[0].keys() == tensors[1].keys()
    losses = [[line["loss"] for line in metrics(run) if "loss" in line] for run in (plain, compiled)]
    assert len(losses[0]) == 5
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_enhancing_photos_leaves_gradients_to_whoever_takes_them():
    results = enhance_photos(IlluminationUNet().state_dict(), torch.rand(2, 3, 16, 16), torch.device("cpu"))
    next(results)
    assert not torch.is_inference_mode_enabled()


def test_luma_error():
    a, b = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.6)
    assert luma_error(a, b).item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("gpu", "device", "cpu"), [(False, "auto", True), (True, "auto", False), (True, "cpu", True)])
def test_processes_without_a_gpu_are_told_to_work_together(monkeypatch, gpu, device, cpu):
    asked = []
    monkeypatch.setattr("training.runtime.Accelerator", lambda **options: asked.append(options["cpu"]))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    make_accelerator(device, "fp32")
    assert asked == [cpu]  # Accelerate forms a group of CPU processes only where it is told `cpu`


@pytest.mark.parametrize("has", [False, True])
def test_fastest_is_bf16_where_the_processor_computes_in_it(monkeypatch, has):
    asked = []
    monkeypatch.setattr("training.runtime.Accelerator", lambda **options: asked.append(options["mixed_precision"]))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    for precision in ("fastest", "auto", "bf16"):
        make_accelerator("cpu", precision)
    assert asked == ["bf16" if has else "no", "no", "bf16"]


# --- command line -------------------------------------------------------------------------------


def test_dry_run_prints_config_and_schedule_and_writes_nothing(overrides, tmp_path, capsys):
    assert train_rave.main([*arguments(overrides), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    shown = yaml.safe_load(printed.split("\nmethod ")[0])
    assert shown["unet_model"]["batch_size"] == 2 and "weight_decay" not in shown["unet_model"]  # it is the default
    assert "2. rave: 6 iterations" in printed and "weights    of the encoders are here" in printed
    absent = ("clip.identity.model=RN50", "clip.identity.pretrained=cc12m")
    assert train_rave.main([*arguments([*overrides, *absent]), "--dry-run", "--full-config"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed.split("\nmethod ")[0]) == config([*overrides, *absent]).model_dump()
    assert "weights    not on this machine: RN50/cc12m (identity)" in printed
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("clip.guidance.model=mini-cilp", "did you mean mini-clip"),
        ("clip.identity.model=timm/resnet999", "unknown to timm"),
        ("clip.guidance={model: efficientnet-lite0, pretrained: imagnet}", "unknown pretrained tag 'imagnet'"),
        ("clip.guidance={model: RN50, pretrained: opanai}", "opanai"),
        ("clip.guidance.pretrained=nowhere/x.safetensors", "nowhere/x.safetensors: expected a weight file"),
    ],
)
def test_a_dry_run_refuses_encoders_that_a_run_would_refuse(overrides, setting, said):
    with pytest.raises(UserError, match=said):
        train(config([*overrides, setting]), dry_run=True)


def test_quiet_and_json(overrides, tmp_path, capsys):
    assert train_rave.main([*arguments(overrides), "--quiet", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result, run = json.loads(line), tmp_path / "runs" / "tiny"
    summary = json.loads((run / "summary.json").read_text())
    assert (result["run"], result["exit"], result["iterations"]) == (str(run), "finished", 10)
    assert result["best"]["psnr"] == summary["best_val"]["val_psnr"]
    assert result["snapshot"]["psnr"] == summary["best"]["val_psnr"]
    assert result["last"]["iteration"] == 10 and result["seconds"] > 0 and result["report"] == str(run / "report.html")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["data.backlit_images_path=/nowhere"],
            "data.backlit_images_path: expected a folder, found nothing there: /nowhere",
        ),
        (["exp.mode=clip_lit"], "exp.mode"),
        (["data.val_gt_path=null"], "expected both or neither"),
        (["data.val_list=/nowhere.txt"], "data.val_list"),
        (["clip.guidance.model=RN-50"], "did you mean RN50"),
        (["clip.identity.model=ViT-B-32"], "expected an encoder with five feature maps"),
        (["unet_model.batch_sise=2"], "did you mean 'unet_model.batch_size'"),
        (["exp.exp_name=.."], "exp.exp_name"),
        (["exp.save_dir=/dev/null/x"], "exp.save_dir: expected a folder that can be written"),
        (
            ["guidance.remove_first_n_tokens=3", "clip.guidance.model=timm/resnet10t"],
            "guidance.remove_first_n_tokens: needs",
        ),
    ],
)
def test_mistakes_raise_user_errors_that_name_the_key(overrides, more, message):
    with pytest.raises(UserError) as caught:
        train_rave.main(arguments([*overrides, *more]))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        "data.pairs=datasets/no/truths",
        "data.val_gt_path=/nowhere",
        "data.val_list=/nowhere.txt",
        "data.leave_out=[/nowhere.txt]",
        "unet_model={load_pretrain: true, pretrain_dir: nowhere.pth}",
    ],
)
def test_what_is_not_there_is_told_before_anything_is_printed(overrides, capsys, setting):
    key = "unet_model.pretrain_dir" if "pretrain" in setting else setting.partition("=")[0]
    with pytest.raises(UserError, match=f"^{re.escape(key)}: expected a "):
        train_rave.main(arguments([*overrides, "loss.pixel=1", setting]))
    assert capsys.readouterr().out == ""


def test_the_same_photos_twice_have_no_residual(overrides, photo_folders, tmp_path):
    shutil.copytree(photo_folders[0], tmp_path / "again")
    with pytest.raises(UserError, match="no residual"):
        train(config(overrides, f"data.welllit_images_path={tmp_path / 'again'}"))


def test_exit_codes_of_the_real_process(overrides, photo_folders, tmp_path):
    def call(*more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(REPO_ROOT / "train_rave.py"), *arguments([*overrides, *more])]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    bad = call("unet_model.lr=fast")
    assert bad.returncode == 2
    assert bad.stderr.strip().splitlines() == [
        "error: command line: unet_model.lr: expected number, found the text 'fast'"
    ]
    good = call()
    assert good.returncode == 0, good.stderr
    assert "best by loss" in good.stdout
    (photo_folders[0] / "broken.jpg").write_text("no photo")
    some = call("data.val_backlit_path=null", "data.val_gt_path=null")
    assert some.returncode == 3 and some.stderr.count("broken.jpg: expected an image") == 1


def test_validation_tells_what_is_amiss_with_its_folders_and_list(tmp_path):
    for name in ("in/a.png", "in/b.png", "in/sub/c.png", "truth/a.png", "truth/sub/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("a.png\nc.png\nz.png\n")  # a file name is enough in sub-folders too
    pairs, notes = validation_pairs(tmp_path / "in", tmp_path / "truth", None)
    assert [p.name for p in pairs] == ["a.png", "sub/c.png"]
    assert notes == ["validation: 1 photos have not one ground truth of their name, such as b.png"]
    pairs, notes = validation_pairs(tmp_path / "in", tmp_path / "truth", tmp_path / "list.txt")
    assert [p.name for p in pairs] == ["a.png", "sub/c.png"]
    assert notes == ["data.val_list: expected names of validation pairs, found 'z.png'"]


def test_photos_that_are_left_out(overrides, tmp_path, capsys):
    names = sorted(path.name for path in Path(overrides[0].split("=")[1]).iterdir())
    (tmp_path / "held_back.txt").write_text(f"# test photos\n{names[0]}\n{names[1]}\n")
    wanted = config(overrides, f"data.leave_out=[{tmp_path / 'held_back.txt'}]")
    backlit, _ = training_photos(wanted.data)
    assert [path.name for path in backlit] == names[2:]
    train(wanted, dry_run=True)
    assert f"{len(names) - 2} backlit" in capsys.readouterr().out
    (tmp_path / "marked.txt").write_text(f"\ufeff{names[0]}\ngone.jpg\nlost.jpg\n")  # as Windows' editor begins a file
    marked = config(overrides, f"data.leave_out=[{tmp_path / 'marked.txt'}]")
    assert [path.name for path in training_photos(marked.data)[0]] == names[1:]
    told = "expected names of photos in the two folders, found"
    assert [note.partition("marked.txt: ")[2] for note in leave_out_notes(marked.data)] == [
        f"{told} 'gone.jpg'",
        f"{told} 'lost.jpg'",
    ]
    (tmp_path / "typos.txt").write_text("nothing.jpg\nnobody.jpg\n")
    with pytest.raises(UserError, match=r"data\.leave_out: .* found none of the 2 names in .*typos\.txt there"):
        training_photos(config(overrides, f"data.leave_out=[{tmp_path / 'typos.txt'}]").data)
    with pytest.raises(UserError, match=r"data\.leave_out: .*missing\.txt"):
        training_photos(config(overrides, "data.leave_out=[missing.txt]").data)
