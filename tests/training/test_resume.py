"""--resume after moving the photos, for more iterations, and what it refuses."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import train_rave
from common.cli import exit_code
from common.errors import UserError
from tests.helpers import arguments, assert_same_run, config, metrics
from training.loop import train
from training.phases import Phase
from training.resume import lengthen
from training.state import TrainState
from training.stop import Stopped


def interrupt_at(total: int, number: signal.Signals = signal.SIGINT):
    """A signal before the step after iteration `total`."""
    return lambda trainer: signal.raise_signal(number) if trainer.state.total == total else None


def stop(wanted, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(wanted, on_iteration=interrupt_at(at))


def test_sigterm_saves_the_state_and_has_its_own_exit_code(overrides, capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        train(config(overrides), on_iteration=interrupt_at(5, signal.SIGTERM))
    assert stopped.value.exit_code == 143
    run = Path(config(overrides).exp.save_dir) / "tiny"
    assert torch.load(run / "checkpoints/last.pt", weights_only=True)["total"] == 6
    assert f"state saved to {run}/checkpoints/last.pt; go on with --resume" in capsys.readouterr().out
    assert json.loads((run / "outcome.json").read_text())["exit"] == "stopped" and (run / "report.html").is_file()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_validation_that_a_stop_prevented_is_made_up_for(overrides):
    whole = train(config(overrides))
    stop(config(overrides, "exp.exp_name=stopped"), at=7)  # after iteration 8, whose validation is due
    state = torch.load(whole.with_name("stopped") / "checkpoints/last.pt", weights_only=True)
    assert (state["total"], state["check_due"]) == (8, True)
    assert_same_run(whole, train(config(overrides, "exp.exp_name=stopped"), resume=True))


def test_a_run_that_was_settling_goes_on_settling(overrides):
    settling = ("unet_model.settle_at=0.9", "unet_model.settle_iters=3", "unet_model.lr_schedule=cosine")
    whole = train(config(overrides, *settling))
    stop(config(overrides, *settling, "exp.exp_name=stopped"), at=7)  # the last 3 of 6 guided ones began before
    state = torch.load(whole.with_name("stopped") / "checkpoints/last.pt", weights_only=True)
    assert (state["total"], state["settled_at"], len(state["ways"])) == (8, 3, 4)
    assert_same_run(whole, train(config(overrides, *settling, "exp.exp_name=stopped"), resume=True))


def test_photos_may_have_moved(overrides, photo_folders, tmp_path):
    whole = train(config(overrides))
    stop(config(overrides, "exp.exp_name=stopped"), at=5)
    shutil.move(tmp_path / "backlit", tmp_path / "elsewhere")
    moved = [o.replace(str(photo_folders[0]), str(tmp_path / "elsewhere")) for o in overrides]
    run = train(config(moved, "exp.exp_name=stopped"), resume=True)
    assert_same_run(whole, run)
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["data"]["backlit_images_path"] == str(tmp_path / "elsewhere")


def test_photos_must_be_the_same(overrides, photo_folders):
    stop(config(overrides), at=5)
    expected = r"--resume: expected the photos that the run began with, found {} added, gone or changed, such as {}"
    Image.new("RGB", (20, 20)).save(photo_folders[1] / "new.jpg")
    with pytest.raises(UserError, match=expected.format(1, r"welllit: new\.jpg")):
        train(config(overrides), resume=True)
    (photo_folders[1] / "new.jpg").unlink()
    photo = photo_folders[0] / "3.png"  # in place, under the same size
    data = photo.read_bytes()
    photo.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    with pytest.raises(UserError, match=expected.format(3, r"backlit: 3\.png")):  # it is in the validation folders too
        train(config(overrides), resume=True)
    photo.write_bytes(data)
    run = train(config(overrides), resume=True)
    provenance = json.loads((run / "provenance.json").read_text())
    assert [entry["iteration"] for entry in provenance["resumed"]] == [6]
    assert provenance["resumed"][0]["commit"] == provenance["commit"]


@pytest.mark.parametrize("finished", [False, True])
def test_more_iterations_than_planned(overrides, finished):
    """As if they had been planned from the start, where nothing depends on the length."""
    constant = (*overrides, "unet_model.max_extensions=0", "train.val_iter=3")
    whole = train(config([*constant, "train.num_iters=11"]))
    shorter = config(constant, "exp.exp_name=longer")
    if finished:
        train(shorter)
    else:
        stop(shorter, at=7)
    longer = train(config([*constant, "exp.exp_name=longer", "train.num_iters=11"]), resume=True)
    states = [torch.load(run / "checkpoints/last.pt", weights_only=True) for run in (whole, longer)]
    for name, weights in states[0]["modules"]["unet"].items():
        assert torch.equal(weights, states[1]["modules"]["unet"][name])
    assert states[0]["total"] == states[1]["total"] == 15
    steps = [{m["iteration"]: m["loss"] for m in metrics(run) if "loss" in m} for run in (whole, longer)]
    assert steps[0].items() <= steps[1].items()
    assert json.loads((longer / "summary.json").read_text())["iterations"] == 15
    with pytest.raises(UserError, match=r"--resume: train\.num_iters: expected at least the 11 iterations of the run"):
        train(config([*constant, "exp.exp_name=longer"]), resume=True)


def phase(name: str, iterations: int) -> Phase:
    return Phase(name=name, trains="unet", iterations=iterations, terms={"identity": 1.0})


def test_more_rounds_than_planned():
    """A finished schedule goes on with the phase that follows, from the best snapshot."""
    unet = torch.nn.Linear(1, 1)
    state = TrainState({"unet": unet}, {})
    state.start_phase(1, "unet", 3)
    best = state.best["unet"]["weight"].clone()
    torch.nn.init.zeros_(unet.weight)
    earlier = [phase("enhancement 1", 2), phase("enhancement 2", 3)]
    later = [*earlier, phase("enhancement 3", 4)]
    state.iteration = 2
    lengthen(state, earlier, later)
    assert (state.phase, state.iteration, state.planned) == (1, 2, 3)  # not finished yet
    state.phase, state.iteration = 2, 3
    lengthen(state, earlier, later)
    assert (state.phase, state.iteration, state.planned) == (2, 0, 4)
    assert torch.equal(unet.weight, best)


def test_mistakes_with_resume_come_before_the_config(overrides, capsys):
    resume = [*arguments(overrides), "--resume"]
    assert exit_code(train_rave.main, resume) == 2
    told = capsys.readouterr()
    assert told.out == "" and "\nerror: --resume: expected a saved state" in f"\n{told.err}"
    stop(config(overrides), at=5)
    capsys.readouterr()
    for more in ("unet_model.lr=1e-5", "train.num_iters=1"):
        assert exit_code(train_rave.main, [*resume, "--set", more]) == 2
        told = capsys.readouterr()
        assert told.out == "" and f"\nerror: --resume: {more.partition('=')[0]}" in f"\n{told.err}"


def test_resume_needs_a_state_and_the_same_config(overrides):
    with pytest.raises(UserError, match="--resume: expected a saved state"):
        train(config(overrides), resume=True)
    run = train(config(overrides))
    with pytest.raises(UserError, match=r"--resume: unet_model\.lr differs"):
        train(config(overrides, "unet_model.lr=1e-5"), resume=True)
    (run / "config.yaml").write_text("exp: {colour: red}")
    with pytest.raises(UserError, match=r"config\.yaml: expected the config of the run, found keys of another version"):
        train(config(overrides), resume=True)
