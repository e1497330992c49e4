"""Kill a training with SIGKILL at random moments, resume it each time, and compare it with an uninterrupted run, bit
for bit.

python -m tests.kill_and_resume --cfg clip_lit_latent_quickstart.yaml [--kills 10] [--set KEY=VALUE ...]
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common.cli import EXIT_OK, make_parser, run
from common.errors import UserError
from common.paths import REPO_ROOT
from configs.load import load_config
from configs.schema import TrainConfig
from training.command import SCRIPTS

LONGEST_WAIT = 0.02  # seconds; a step of CLIP-LIT's guidance takes a tenth, and a run has to last for all of its kills


def main(argv: list[str]) -> int:
    parser = make_parser(__doc__, default_cfg="clip_lit_latent_quickstart.yaml")
    parser.add_argument("--kills", type=int, default=10, help="how often to kill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: %(default)s)")
    parser.add_argument("--out", help="folder for both runs (default: a temporary one)")
    args = parser.parse_args(argv)
    config = load_config(TrainConfig, args.cfg, args.overrides)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        script = REPO_ROOT / SCRIPTS[config.exp.mode]
        common = [sys.executable, str(script), "--cfg", args.cfg, *(f"--set={o}" for o in args.overrides)]
        common += [f"--set=exp.save_dir={folder}", "--set=exp.overwrite=true"]
        whole = [*common, "--set=exp.exp_name=whole"]
        killed = [*common, "--set=exp.exp_name=killed"]
        with (folder / "console.txt").open("w") as console:
            seconds = _uninterrupted(whole, console)
            print(f"uninterrupted: {seconds:.0f} s")
            lines = _lines(folder / "whole" / "metrics.jsonl")
            _kill_over_and_over(
                killed, folder / "killed", args.kills, lines, seconds, random.Random(args.seed), console
            )
        found = differences(folder / "whole", folder / "killed")
        for line in found:
            print(f"different: {line}")
        if found:
            raise UserError(f"{args.cfg}: the killed run differs from the uninterrupted one in {len(found)} places")
    print(f"equal, bit for bit, after {args.kills} kills: state, weights and log (but for times)")
    return EXIT_OK


def differences(a: Path, b: Path) -> list[str]:
    """Where the states and logs of two run folders differ, times apart; empty where they agree bit for bit."""
    import torch

    from training.tracking import read_metrics

    states = [torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in (a, b)]
    logs = [
        [{k: v for k, v in line.items() if "second" not in k} for line in read_metrics(folder / "metrics.jsonl")]
        for folder in (a, b)
    ]
    for state in states:
        state.pop("seconds")
        state.pop("checksum", None)  # of the seconds too
    return [*_differences(*states, "state"), *_differences(*logs, "log")]


def _differences(a: Any, b: Any, where: str) -> list[str]:
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{where}.{key} (in one alone)" for key in a.keys() ^ b.keys()]
        return missing + [
            line for key in a.keys() & b.keys() for line in _differences(a[key], b[key], f"{where}.{key}")
        ]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [line for i, (x, y) in enumerate(zip(a, b, strict=True)) for line in _differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [where]


def _uninterrupted(command: list[str], console: Any) -> float:
    started = time.perf_counter()
    if subprocess.run(command, stdout=console, stderr=console, check=False).returncode:
        raise UserError(f"the uninterrupted run failed; its console: {console.name}")
    return time.perf_counter() - started


def _kill_over_and_over(
    command: list[str], run_folder: Path, kills: int, lines: int, seconds: float, moments: random.Random, console: Any
) -> None:
    """Start, kill at a random moment further on, resume, until `kills` are done; then let it finish.

    Moments are counted in lines of the log, of which the whole run has `lines` in `seconds`, and a random while after
    one: so they spread over all of the run, whatever else the machine does meanwhile.
    """
    state = run_folder / "checkpoints" / "last.pt"
    log = run_folder / "metrics.jsonl"
    for number in range(1, kills + 1):
        process = _start(command, state, console)
        reached = _lines(log)
        target = reached + 1 + int(moments.uniform(0, 2 * max(0, lines - reached - 2) / (kills - number + 2)))
        while process.poll() is None and (_lines(log) < target or not state.is_file()):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, min(seconds / lines, LONGEST_WAIT)))
        if process.poll() is not None:
            raise UserError(
                f"--kills: the run ended (code {process.returncode}) before kill {number}; its console: {console.name}"
            )
        process.kill()
        process.wait()
        print(f"kill {number:2}: {_lines(log)} of {lines} lines logged", flush=True)
    if _start(command, state, console).wait():
        raise UserError(f"the resumed run failed; its console: {console.name}")


def _start(command: list[str], state: Path, console: Any) -> subprocess.Popen:
    return subprocess.Popen([*command, "--resume"] if state.is_file() else command, stdout=console, stderr=console)


def _lines(log: Path) -> int:
    return len(log.read_bytes().splitlines()) if log.is_file() else 0


if __name__ == "__main__":
    run(main)
