"""Whole runs under attack: killed, on a full disk, two at once, pipes and devices among the photos, very long ones."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common.files import PART
from common.paths import REPO_ROOT
from lab.chaos.harness import Row

METHODS = ("rave_quickstart.yaml", "clip_lit_quickstart.yaml", "clip_lit_latent_quickstart.yaml")
SMALL_GUIDANCE = [  # of CLIP-LIT
    *("train.num_rounds=2", "guidance_model.max_extensions=0"),
    *(f"guidance_model.{part}" for part in ("batch_size=4", "image_size=16", "nearest_tokens=0", "display_iter=1")),
]
LONGEST = 600.0  # seconds for a run that has to end by itself
PAGE, KEPT = 4096, 1  # bytes; pages of a file that is there before
PLENTY = 500_000_000  # bytes of a disk with room


def kills(count: int, seed: int, folder: Path) -> Row:
    """SIGKILL at random moments: a quarter of the stops for each method and for inference; the end must be that without
    stops.
    """
    row = Row(limit=LONGEST)
    each = max(1, count // 4)
    for number, cfg in enumerate(METHODS):
        command = [sys.executable, "-m", "tests.kill_and_resume", "--cfg", cfg, "--kills", str(each)]
        command += ["--seed", str(seed + number)]
        steps = 20 + 8 * each  # of a phase; each is a line of the log, after which it may be killed
        length = [f"train.num_iters={2 * steps}"]
        if cfg.startswith("clip"):
            parts = (
                "unet_model.num_round_iters",
                "guidance_model.num_pretrain_iters",
                "guidance_model.num_refine_iters",
            )
            length = [*SMALL_GUIDANCE, *(f"{part}={steps // 2}" for part in parts)]
        done = _run([*command, *(f"--set={setting}" for setting in (*_settings(folder), *length))], 100 * LONGEST)
        same = done.returncode == 0
        for _ in range(each):
            text = "the same bits" if same else (done.stdout + done.stderr)[-200:]
            row.count("survived" if same else "lost", f"{cfg}: {text}")
    _kill_inference(each, random.Random(seed), folder, row)
    return row


def _kill_inference(count: int, chance: random.Random, folder: Path, row: Row) -> None:
    photos, whole, killed = folder / "many", folder / "many_whole", folder / "many_killed"
    _photos(photos, 24, 192)
    started = time.perf_counter()
    _run(_inference(photos, whole))
    seconds = time.perf_counter() - started
    for _ in range(count):
        process = _start(_inference(photos, killed, "--skip-existing"))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.3, 1) * seconds)
        process.kill()
        process.wait()
    done = _run(_inference(photos, killed, "--skip-existing"))
    same = _contents(killed) == _contents(whole) and done.returncode == 0 and not list(killed.rglob(f"{PART}*"))
    for _ in range(count):
        row.count("survived" if same else "lost", f"inference: {'the same files' if same else done.stderr[-200:]}")


def full_disks(count: int, seed: int, folder: Path) -> Row:
    """Training, inference, metrics and tools on a disk that gets full: one line, exit 2, earlier files intact; then
    with room. What each needs is measured first, so that every disk is too small.
    """
    row, chance = Row(limit=LONGEST), random.Random(seed)
    _photos(folder / "photos", 6, 64)
    settings = [*_settings(folder), "exp.exp_name=full", "train.num_iters=12"]
    cases: dict[str, Callable[[Path], list[str]]] = {
        "training, run folder": lambda disk: _training(settings, f"exp.save_dir={disk}"),
        "training, cache": lambda disk: _training(
            settings, f"exp.cache_dir={disk}", f"exp.save_dir={disk.parent / 'runs'}"
        ),
        "inference": lambda disk: _inference(folder / "photos", disk / "out", "--side-by-side"),
        "metrics": lambda disk: _metrics(folder / "photos", disk / "m.json", "--csv", disk / "m.csv"),
        "make-backlit": lambda disk: _tool("make-backlit", folder / "photos", disk / "set"),
    }
    needed: dict[str, int] = {}
    for number in range(count):
        name = list(cases)[number % len(cases)]
        if name not in needed:
            with _disk(folder / f"room{number}" / "disk", PLENTY) as disk:
                done = _run(cases[name](disk))
                if done.returncode:
                    row.count("crashed", f"{name}, with room: code {done.returncode}: {done.stderr[-300:]}")
                needed[name] = _pages(disk)
        with _disk(folder / f"{number}" / "disk", chance.randrange(1, max(2, needed[name] + KEPT)) * PAGE) as disk:
            kept, before = disk / "kept", b"k" * 100
            kept.write_bytes(before)
            command = cases[name](disk)
            _judge(row, name, _run(command), allowed=(2,))
            if kept.read_bytes() != before or list(disk.rglob(f"{PART}*")):
                row.count("lost", f"{name}: another file was changed, or an unfinished one left")
            subprocess.run(["mount", "-o", f"remount,size={PLENTY}", str(disk)], check=True)
            resume = ["--resume"] if list(disk.parent.glob("*/full/checkpoints/last.pt")) else []
            again = _run([*command, *resume])
            text = "went on" if again.returncode == 0 else f"code {again.returncode}: {again.stderr[-300:]}"
            row.count("survived" if again.returncode == 0 else "lost", f"{name}: {text} once there was room")
    return row


def _pages(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_blocks - status.f_bfree


def two_at_once(count: int, folder: Path) -> Row:
    """Two trainings of one name, and two enhancements into one folder, started together."""
    row = Row(limit=LONGEST)
    _photos(folder / "photos", 6, 64)
    for number in range(count):
        settings = [*_settings(folder), f"exp.exp_name=two{number}", "train.num_iters=20"]
        pair = [_finish(process) for process in [_start(_training(settings)) for _ in range(2)]]
        codes = sorted(done.returncode for done in pair)
        told = [done for done in pair if done.returncode == 2 and _one_line(done) and "no other process" in done.stderr]
        good = codes == [0, 2] and len(told) == 1
        row.count("survived" if good else "lost", f"training: {'one ran, one was told' if good else codes}")
        out = folder / f"out{number}"
        pair = [_finish(process) for process in [_start(_inference(folder / "photos", out)) for _ in range(2)]]
        whole = len(_contents(out)) == 6 and not list(out.rglob(f"{PART}*"))
        good = whole and any(done.returncode == 0 for done in pair) and all(_traceless(done) for done in pair)
        row.count(
            "survived" if good else "lost",
            f"inference: {'all results whole' if good else [d.stderr[-100:] for d in pair]}",
        )
    return row


def special_files(folder: Path) -> Row:
    """Pipes, devices, sockets and links to themselves among the photos and as files of every script."""
    row = Row(limit=LONGEST)
    photos = folder / "odd"
    _photos(photos, 4, 48)
    os.mkfifo(photos / "pipe.jpg")
    for name, target in (
        ("zero.jpg", "/dev/zero"),
        ("to_pipe.png", "pipe.jpg"),
        ("self.jpg", "self.jpg"),
        ("gone.tif", "nothing"),
    ):
        (photos / name).symlink_to(target)
    (photos / "here").symlink_to(".")
    pipe, settings = photos / "pipe.jpg", [*_settings(folder), "exp.exp_name=odd", "train.num_iters=3"]
    settings[0] = f"data.backlit_images_path={photos}"
    done, refused = (0, 3), (2,)  # the other photos are done; what cannot stand for a file is told
    commands = {
        "training": (_training(settings), done),
        "inference": (_inference(photos, folder / "odd_out"), done),
        "inference of a pipe": (_inference(pipe, folder / "odd_pipe"), (3,)),
        "inference, weights": ([*_inference(photos, folder / "odd_weights"), "--checkpoint", str(pipe)], refused),
        "inference, config": ([*_inference(photos, folder / "odd_config"), "--cfg", str(pipe)], refused),
        "metrics": (_metrics(photos, folder / "odd.json"), done),
        "make-backlit": (_tool("make-backlit", photos, folder / "odd_set"), done),
        "near-duplicates": (_tool("near-duplicates", photos, photos), done),
        "check-dataset": (_tool("check-dataset", "--backlit", photos), done),
        "training, list": (_training(settings, f"data.leave_out=[{pipe}]", "exp.exp_name=odd_list"), refused),
    }
    for name, (command, allowed) in commands.items():
        _judge(row, name, _run(command, row.limit), allowed)
    return row


def long_run(steps: int, folder: Path) -> Row:
    """One training of many tiny steps: memory, threads and open files stay as they were after its first fifth."""
    row = Row(limit=7200.0)
    settings = [
        *_settings(folder),
        "exp.exp_name=long",
        f"train.num_iters={steps}",
        "train.save_iter=500",
        "train.val_iter=1000",
    ]
    settings.append("unet_model.display_iter=50")
    done = _run([sys.executable, "-m", "lab.chaos", "--long-run", str(steps), *settings], row.limit)
    if done.returncode:
        row.count("crashed", done.stderr[-300:])
        return row
    first, last = json.loads(done.stdout.splitlines()[-1])
    steady = (
        last["memory"] - first["memory"] < max(20e6, 0.05 * first["memory"]) and last["files"] <= first["files"] + 2
    )
    text = f"memory {first['memory'] / 1e6:.0f} MB after a fifth, {last['memory'] / 1e6:.0f} MB at the end"
    row.injected = steps
    if steady:
        row.survived = steps
        row.outcomes[text] += 1
    else:
        row.lost, row.examples = steps, [text]
    return row


def work_long_run(steps: int, settings: list[str]) -> None:
    """The training of `long_run`; prints what the process took after a fifth of it and at its end."""
    from configs.load import load_config
    from configs.schema import TrainConfig
    from training.loop import train

    seen = []

    def look(trainer: object) -> None:
        if trainer.state.total in (steps // 5, steps - 1):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            files = len(list(Path("/proc/self/fd").iterdir()))
            seen.append({"memory": pages * os.sysconf("SC_PAGE_SIZE"), "files": files})

    train(load_config(TrainConfig, METHODS[0], settings), on_iteration=look)
    print(json.dumps([seen[0], seen[-1]]))


# ---------------------------------------------------------------------------------------------
# What they share
# ---------------------------------------------------------------------------------------------


def _settings(folder: Path) -> list[str]:
    for name in ("backlit", "well_lit"):
        _photos(folder / name, 6, 32)
    return [
        f"data.backlit_images_path={folder / 'backlit'}",
        f"data.welllit_images_path={folder / 'well_lit'}",
        "data.val_backlit_path=null",
        "data.val_gt_path=null",
        "data.image_size=16",
        f"exp.cache_dir={folder / 'cache'}",
        f"exp.save_dir={folder / 'runs'}",
        "exp.overwrite=false",
        *(
            f"clip.{part}" for part in ("guidance.model=mini-rn", "guidance.pretrained=null")
        ),  # small, of random weights
        *(f"clip.{part}" for part in ("identity.model=mini-rn", "identity.pretrained=null")),
        "clip.image_size=null",
        "train.device=cpu",
        "train.precision=auto",
        "train.num_workers=0",
        "train.save_iter=10",
        "train.val_iter=50",
        "unet_model.batch_size=1",
        "unet_model.num_reconstruction_iters=4",
        "unet_model.display_iter=1",
        "unet_model.max_extensions=0",
    ]


def _photos(folder: Path, count: int, side: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(len(folder.name))
    for number in range(count):
        coarse = chance.integers(0, 180, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")


def _training(settings: list[str], *more: str) -> list[str]:
    command = [sys.executable, str(REPO_ROOT / "train_rave.py"), "--cfg", METHODS[0]]
    return command + [f"--set={setting}" for setting in (*settings, *more)]


def _inference(photos: Path, output: Path, *more: str) -> list[str]:
    return [sys.executable, str(REPO_ROOT / "inference.py"), str(photos), "--output", str(output), *more]


def _metrics(photos: Path, file: Path, *more: str | Path) -> list[str]:
    command = [sys.executable, str(REPO_ROOT / "compute_metrics.py"), "--lpips", "off", "--json", str(file)]
    return [*command, "--gt", str(photos), "--enhanced", str(photos), *map(str, more)]


def _tool(name: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tools", name, *map(str, arguments)]


def _start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, cwd=REPO_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen, limit: float = LONGEST) -> subprocess.CompletedProcess:
    """What came of it; code -1 where it did not end within `limit` seconds."""
    try:
        out, errors = process.communicate(timeout=limit)
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return subprocess.CompletedProcess(process.args, -1, "", "")


def _run(command: list[str], limit: float = LONGEST) -> subprocess.CompletedProcess:
    return _finish(_start(command), limit)


def _judge(row: Row, name: str, done: subprocess.CompletedProcess, allowed: tuple[int, ...]) -> None:
    if done.returncode == -1:
        row.count("hung", f"{name}: more than {row.limit:g} s")
    elif done.returncode not in allowed or not _traceless(done) or (done.returncode == 2 and not _one_line(done)):
        row.count("crashed", f"{name}: code {done.returncode}: {done.stderr[-300:]}")
    else:
        row.count("survived", f"{name}: exit code {done.returncode}")


def _traceless(done: subprocess.CompletedProcess) -> bool:
    return "Traceback" not in done.stderr


def _one_line(done: subprocess.CompletedProcess) -> bool:
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.returncode == 2 and len(lines) == 1 and _traceless(done)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@contextlib.contextmanager
def _disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes in memory. Needs the right to mount."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "chaos", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder.parent, ignore_errors=True)
