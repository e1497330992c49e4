"""Stops by signal, in this process and in real ones."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest
import torch

import train_rave
import training.state
from common.cli import exit_code
from common.paths import REPO_ROOT
from tests.helpers import arguments, metrics
from training.stop import Stopped, StopRequest


def test_a_signal_waits_for_the_end_of_what_is_held():
    done = []
    with StopRequest(main=False) as stop, pytest.raises(Stopped) as stopped:
        with stop.held():
            signal.raise_signal(signal.SIGTERM)
            done.append(1)
        done.append(2)
    assert done == [1] and stop.whole and stopped.value.exit_code == 143


def test_a_second_signal_and_one_outside_stop_at_once():
    with StopRequest(main=False) as stop:
        with pytest.raises(Stopped), stop.held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError
        assert not stop.whole
    with StopRequest(main=False) as stop:
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
        assert stop.whole


def test_several_processes_stop_where_they_agreed_to():
    with StopRequest(main=False, together=True) as stop:
        signal.raise_signal(signal.SIGTERM)  # not even outside
        with stop.held():
            stop.agree(False)
        with pytest.raises(Stopped), stop.held():
            stop.agree(True)
    with StopRequest(main=False, together=True) as other, pytest.raises(Stopped), other.held():
        other.agree(True)  # another process was asked


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest(main=False):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def start(overrides, *more: str) -> subprocess.Popen:
    command = [sys.executable, str(REPO_ROOT / "train_rave.py"), *arguments([*overrides, *more])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_stop_while_libraries_load_is_no_traceback(overrides):
    process = start(overrides)
    process.stdout.readline()  # of the config, after which PyTorch is imported
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors.strip().splitlines()[-1]) == (130, "stopped")
    assert "Traceback" not in errors


def test_sigterm_ends_a_training_soon_and_says_how_to_go_on(overrides, tmp_path):
    process = start(overrides, "train.num_iters=100000", "train.val_iter=100000", "train.save_iter=100000")
    log = tmp_path / "runs/tiny/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and '"loss"' in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=60)
    assert time.monotonic() - asked < 20  # 2 on a machine that does nothing else
    assert process.returncode == 143 and "Traceback" not in errors
    assert "go on with --resume" in printed


class Midst:
    """A file at whose first write a signal comes."""

    def __init__(self, file, number: int) -> None:
        self.file, self.number = file, number
        self.flush = file.flush

    def write(self, data: bytes) -> int:
        if self.number:
            number, self.number = self.number, 0
            signal.raise_signal(number)
        return self.file.write(data)


# saves: at the start, at iteration 2, at the end of iteration 3; and a last one where a stop was asked for
@pytest.mark.parametrize(
    "signals",
    [
        {1: signal.SIGTERM},
        {2: signal.SIGTERM, 3: signal.SIGINT},  # the second one in the last save
        {3: signal.SIGINT},
    ],
)
def test_a_stop_in_the_midst_of_a_save_loses_nothing(signals, overrides, tmp_path, monkeypatch, capfd):
    short = ("unet_model.num_reconstruction_iters=1", "train.num_iters=2", "train.save_iter=2", "train.val_iter=9")
    command, save, saves = arguments([*overrides, *short]), torch.save, []

    def interrupted(content, file):
        saves.append(content["total"])
        try:
            save(content, Midst(file, signals.get(len(saves), 0)))
        except KeyboardInterrupt:  # of which PyTorch's writer may make an error of its own
            raise RuntimeError("unexpected pos") from None

    monkeypatch.setattr(training.state.torch, "save", interrupted)
    assert exit_code(train_rave.main, command) == 128 + min(signals.items())[1]
    out, err = capfd.readouterr()
    state = tmp_path / "runs/tiny/checkpoints/last.pt"
    assert f"state saved to {state}; go on with --resume" in out
    told = [line for line in err.splitlines() if line and not line.startswith("note: ")]
    assert told[-1] == "stopped" and "Traceback" not in err
    assert torch.load(state, weights_only=True)["total"] == saves[-1]
    monkeypatch.undo()
    assert exit_code(train_rave.main, [*command, "--resume"]) == 0
    assert len(metrics(tmp_path / "runs/tiny")) > 0 and (tmp_path / "runs/tiny/summary.json").is_file()


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_asks_for_a_stop_but_under_nohup(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with contextlib.suppress(Stopped), StopRequest(main=False) as stop, stop.held():
            signal.raise_signal(signal.SIGHUP)
        assert (stop.asked is None) == ignored
    finally:
        signal.signal(signal.SIGHUP, before)
