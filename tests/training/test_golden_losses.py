"""Short trainings give the losses that were recorded: a change that should not alter what is learned does not."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
import torch

from common.paths import REPO_ROOT
from tests.golden.training_losses import FILE, MODES, log_of, make_photos, read_log
from tests.helpers import arguments


def assert_recorded(mode: str, found: list[dict]) -> None:
    recorded = json.loads(FILE.read_text(encoding="utf-8"))[mode]
    for line, expected in zip(found, recorded, strict=True):
        assert line["phase"] == expected.pop("phase")
        known = {name: line.get(name) for name in expected}
        assert known == pytest.approx(expected, rel=1e-3, abs=1e-5)  # other processors round otherwise


@pytest.mark.parametrize("mode", MODES)
def test_losses_are_those_recorded(mode, tmp_path):
    make_photos(tmp_path)
    assert_recorded(mode, log_of(mode, tmp_path))


def launch(*arguments: str, nodes: Sequence[str] = ("--standalone", "--nproc-per-node=2")) -> subprocess.Popen:
    """Two processes that find each other through gloo, as on a machine with two GPUs through NCCL.

    nodes: what the launcher is told of machines and processes.
    """
    command = [sys.executable, "-m", "torch.distributed.run", *nodes, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO_ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    for mode in MODES:
        (tmp_path / mode).mkdir()
        make_photos(tmp_path / mode)
    process = launch("-m", "tests.golden.training_losses", str(tmp_path), *MODES)
    printed = process.communicate(timeout=600)[0]
    assert process.returncode == 0, printed
    for mode in MODES:
        assert_recorded(mode, read_log(tmp_path / mode / "runs" / "golden"))


@pytest.mark.slow
def test_two_machines_train_what_one_process_trains(overrides, tmp_path):
    """Two launchers of one process each, as on two machines, which meet at an address of this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
    states = {}
    for name, machines in {
        "one": [("--nproc-per-node=1",)],
        "two": [(*meeting, f"--node-rank={n}") for n in (0, 1)],
    }.items():
        short = ["train.num_iters=3", "unet_model.num_reconstruction_iters=2", "unet_model.max_extensions=0"]
        command = [str(REPO_ROOT / "train_rave.py"), *arguments([*overrides, *short, f"exp.exp_name={name}"])]
        processes = [launch(*command, nodes=machine) for machine in machines]
        printed = [process.communicate(timeout=600)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(machines), printed
        states[name] = torch.load(tmp_path / "runs" / name / "checkpoints" / "last.pt", weights_only=True)["modules"]
    assert "2 processes" in printed[0] and "schedule" not in printed[1]  # the first machine speaks
    for name, tensor in states["one"]["unet"].items():
        torch.testing.assert_close(states["two"]["unet"][name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_stop_after_the_same_iteration(overrides, tmp_path):
    endless = ["train.num_iters=100000", "train.val_iter=100000", "train.save_iter=100000"]
    process = launch(str(REPO_ROOT / "train_rave.py"), *arguments([*overrides, *endless]))
    log, state = tmp_path / "runs/tiny/metrics.jsonl", tmp_path / "runs/tiny/checkpoints/last.pt"
    deadline = time.monotonic() + 300
    while not (log.is_file() and '"loss"' in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)  # to the launcher, which passes it on
    printed = process.communicate(timeout=120)[0]
    assert printed.count("go on with --resume") == 1, printed
    assert "TORCH_DISTRIBUTED" not in printed and "closed by peer" not in printed
    assert torch.load(state, weights_only=True)["total"] > 0
