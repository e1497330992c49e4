"""One run folder, one process; full disks."""

import json
import resource
from pathlib import Path

import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.files import DiskFull
from configs.schema import TrainConfig
from tests.faults import room_for
from tests.helpers import assert_same_run, config
from training.loop import train
from training.plots import plot_curves
from training.resume import check_photos
from training.tracking import RunFolder, read_metrics


def test_a_run_that_is_in_training_is_neither_trained_resumed_nor_overwritten_by_another(overrides):
    tried = []

    def try_all(trainer):
        if trainer.state.total == 4:
            for more, resume in (([], False), ([], True), (["exp.overwrite=true"], False)):
                with pytest.raises(UserError, match=r"exp\.exp_name: .*/tiny: expected no other process at it, found"):
                    train(config(overrides, *more), resume=resume)
                tried.append(resume)

    run = train(config(overrides), on_iteration=try_all)
    assert len(tried) == 3 and (run / "summary.json").is_file()
    assert not list(run.parent.glob(".*"))
    assert run.parent.is_dir() and [p.name for p in run.parent.iterdir()] == ["tiny"]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # TensorBoard's, whose error is told
def test_a_full_disk_while_training_is_one_line_and_resume_goes_on_once_there_is_room(overrides):
    whole = train(config(overrides))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(trainer):
        if trainer.state.total == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))

    full = config(overrides, "exp.exp_name=full")
    try:
        with pytest.raises(DiskFull, match=r"runs/full/.*: cannot be written: File too large; what was there"):
            train(full, on_iteration=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    folder = Path(full.exp.save_dir) / "full"
    assert torch.load(folder / "checkpoints/last.pt", weights_only=True)["total"] == 3
    assert_same_run(whole, train(full, resume=True))


def test_a_full_disk_before_the_first_state_is_one_line(overrides):
    with room_for(50_000), pytest.raises(DiskFull, match="cannot be written: File too large"):
        train(config(overrides))


def test_resume_from_the_state_before_a_damaged_one_ends_as_if_nothing_had_happened(overrides, capsys):
    whole = train(config(overrides))
    stopped = config(overrides, "exp.exp_name=stopped")

    def stop(trainer):
        if trainer.state.total == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, on_iteration=stop)
    state = Path(stopped.exp.save_dir) / "stopped" / "checkpoints" / "last.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 4
    state.write_bytes(content)
    resumed = train(stopped, resume=True)
    assert f"note: {state}: damaged" in capsys.readouterr().err
    assert_same_run(whole, resumed)


def test_damaged_lines_of_a_log_are_left_out_with_a_note(tmp_path, capsys):
    log = tmp_path / "metrics.jsonl"
    assert read_metrics(log) == []
    log.write_bytes(
        b'\xef\xbb\xbf{"iteration": 1, "loss": 2.0}\n{"iteration": 2, "lo\xff\n3\n'
        + b"[" * 9000
        + b'\n{"iteration": 5}\n'
    )
    assert [line["iteration"] for line in read_metrics(log)] == [1, 5]
    notes = capsys.readouterr().err.splitlines()
    assert notes == [f"note: {log}: line {n} is left out, expected the JSON of an iteration" for n in (2, 3, 4)]


@pytest.mark.parametrize("record", ["[]", "{", '{"resumed": 1}', "[" * 9000])
def test_a_damaged_log_and_a_damaged_record_do_not_keep_a_run_from_going_on(tmp_path, record):
    config = TrainConfig(exp={"save_dir": str(tmp_path)}, data={"backlit_images_path": "a", "welllit_images_path": "b"})
    folder = RunFolder(config)
    folder.path.mkdir()
    folder.metrics_file.write_bytes(b'{"iteration": 1}\n\xff\n{"iteration": 3}\n')
    folder.provenance_file.write_text(record)
    folder.reopen(config, total=2, lines=2)
    assert len(folder.metrics_file.read_text(encoding="utf-8").splitlines()) == 2
    assert [entry["iteration"] for entry in json.loads(folder.provenance_file.read_text())["resumed"]] == [2]


@pytest.mark.parametrize("record", ["[]", "{", "[" * 9000])
def test_a_damaged_record_of_the_photos_is_one_line(tmp_path, record):
    (tmp_path / "photos.json").write_text(record)
    with pytest.raises(UserError, match=r"photos\.json: expected the photos of the run"):
        check_photos(tmp_path / "photos.json", {})


def test_a_run_s_name_is_text_in_its_plots(tmp_path):
    lines = [{"iteration": n, "phase": "rave", "loss": 1.0 / n} for n in (1, 2)]
    plot_curves(lines, tmp_path / "curves.png", r"a$_\frac{")
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.width < 1.5 * curves.height  # one panel: no empty places for the others
