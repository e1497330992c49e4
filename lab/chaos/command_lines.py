"""Attacks by odd command lines, one per seed. Each says how it was survived."""

import contextlib
import io
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

from lab.chaos.harness import Failure

VALUES = (
    *(
        "photos",
        "photos/a.png",
        "nothing",
        "out",
        "",
        " ",
        ".",
        "..",
        "~",
        "$HOME",
        "-",
        "--",
        "*",
        "photos/",
        "/dev/null",
        "/dev/zero",
    ),
    *(
        "0",
        "-1",
        "1e999",
        "nan",
        "inf",
        "true",
        "null",
        "2024-31-12",
        "010",
        "1:30",
        "9" * 4300,
        "0.5",
        "1",
        "16",
        "64",
    ),
    *(
        "[",
        "]",
        "{",
        "{a}",
        "[1]",
        "[" * 1000,
        "!!int x",
        "!!python/object/apply:os.system [true]",
        "&a *a",
        "a: b",
        "a #1",
    ),
    *(
        "\0",
        "\x1b[2J",
        "a\nb",
        "\u202egpj.exe",
        "\ud800",
        "x" * 300,
        "y" * 5000,
        "é",
        "e\u0301",
        "%s%n",
        "\\",
        "'",
        '"',
    ),
    *(
        "rave.yaml",
        "clip_lit.yaml",
        "inference.yaml",
        "metrics.yaml",
        "bad.yaml",
        "weights.safetensors",
        "link",
        "locked/a",
    ),
)


def command_line(seed: int, folder: Path) -> str:
    """A script or tool with odd flags and values. It ends with 0, 2 or 3, and one line where it is 2."""
    from common.cli import exit_code

    chance = random.Random(seed)
    sandbox = _sandbox(folder)
    name, main, flags, always = chance.choice(commands())
    argv = []
    for _ in range(chance.randint(0, 6)):
        argv.append(chance.choice(flags))
        if argv[-1] == "--set":
            key = chance.choice(
                ("exp.exp_name", "data.input", "exp.seed", "data", "", "=", "a.b.c", "exp", "model.checkpoint")
            )
            argv.append(f"{key}{chance.choice(('=', '', '=='))}{chance.choice(VALUES)}")
        elif chance.random() < 0.8:
            argv.append(chance.choice(VALUES))
    printed, errors = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.environ["HOME"] = str(sandbox)
    os.chdir(sandbox)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            code = exit_code(main, [*argv, *always])
    except SystemExit as end:
        code = end.code or 0
    except Exception as error:
        raise Failure(
            "crashed", f"{name} {argv!r}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from None
    finally:
        os.chdir(before)
    lines = [
        line for line in errors.getvalue().splitlines() if line and not line.startswith("note: ") and "%|" not in line
    ]
    if code not in (0, 2, 3) or (code == 2 and len(lines) != 1):
        raise Failure("crashed", f"{name} {argv!r}: code {code}, {len(lines)} lines")
    if "\x1b" in errors.getvalue() or "\u202e" in errors.getvalue():
        raise Failure("lost", f"{name} {argv!r}: acts on the terminal")
    return f"exit code {code}"


def commands() -> list[tuple[str, Callable, list[str], list[str]]]:
    import compute_metrics
    import inference
    import train
    import train_rave
    from tools import check_dataset, clean_cache, make_backlit, near_duplicates

    shared = ["--cfg", "--set", "--set", "--help", "-x", "--unknown", "photos"]
    training = [*shared, "--resume"]
    photos = [
        "--input",
        "-i",
        "--output",
        "-o",
        "--checkpoint",
        "-c",
        "--strength",
        "--format",
        "--skip-existing",
        "--overwrite",
    ]
    return [
        ("train_rave.py", train_rave.main, training, ["--dry-run"]),
        ("train.py", train.main, training, ["--dry-run"]),
        ("inference.py", inference.main, [*shared, *photos], ["--dry-run"]),
        (
            "compute_metrics.py",
            compute_metrics.main,
            [*shared, "--gt", "--enhanced", "--json", "--csv", "--lpips"],
            ["--lpips", "off"],
        ),
        (
            "make_backlit",
            make_backlit.main,
            ["photos", "--size", "--per-photo", "--seed", "--masks", "--noise"],
            ["--size", "16"],
        ),
        ("near_duplicates", near_duplicates.main, ["photos", "--unseen", "-x"], []),
        ("check_dataset", check_dataset.main, ["--backlit", "--well-lit", "--gt", "--test", "--image-size"], []),
        ("clean_cache", clean_cache.main, ["--cache-dir", "--keep-gb", "--dry-run"], []),
    ]


@cache
def _sandbox(folder: Path) -> Path:
    """A folder with some photos, configs and odd files, in which the commands run."""
    from PIL import Image

    sandbox = folder / "sandbox"
    (sandbox / "photos" / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        Image.new("RGB", (24, 16), (90, 60, 30)).save(sandbox / "photos" / name)
    (sandbox / "bad.yaml").write_bytes(b"\xff\xfe{[")
    (sandbox / "weights.safetensors").write_bytes(b"rubbish")
    (sandbox / "link").symlink_to("/dev/zero")
    return sandbox
