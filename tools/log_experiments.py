"""Put what a folder of training runs tried into one JSON: what each changed, and its validation curve in short.

python tools/log_experiments.py runs/search docs/results/experiments.json

Runs that were stopped half way count too. Runs already in the JSON stay there, so that run folders may be deleted.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from common.cli import EXIT_OK, ArgumentParser, run
from common.errors import UserError
from common.files import write_text

LEFT_OUT = (
    "exp.exp_name",
    "exp.save_dir",
    "exp.overwrite",
    "exp.cache_dir",
    "train.num_workers",
    "train.preview_photos",
    "train.save_iter",
)


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", help="folder of run folders")
    parser.add_argument("out", help="the JSON")
    args = parser.parse_args(argv)
    folders = [path.parent for path in Path(args.runs).glob("*/metrics.jsonl")] if Path(args.runs).is_dir() else []
    if not folders:
        raise UserError(f"runs: expected a folder of run folders, found none in {args.runs}")
    out = Path(args.out)
    known = {entry["run"]: entry for entry in json.loads(out.read_text(encoding="utf-8"))} if out.is_file() else {}
    known.update({folder.name: entry(folder) for folder in folders})
    entries = sorted(known.values(), key=lambda e: e["started"])
    write_text(out, json.dumps(entries, indent=1) + "\n")
    print(f"{out}: {len(entries)} runs")
    return EXIT_OK


def entry(folder: Path) -> dict:
    """One run: its settings as `section.key`, and PSNR, SSIM and brightness of validation at the start, at best and at the end."""
    from training.tracking import read_metrics

    metrics = read_metrics(folder / "metrics.jsonl")
    checks = [m for m in metrics if "val_psnr" in m]
    if not checks:
        raise UserError(f"{folder}: expected a run with validation, found none in its metrics.jsonl")
    settings = flat(yaml.safe_load((folder / "config.yaml").read_text()))
    names = ("iteration", "val_psnr", "val_ssim", "val_brightness")
    points = {"start": checks[0], "best": max(checks, key=lambda m: m["val_psnr"]), "end": checks[-1]}
    return {
        "run": folder.name,
        "started": (folder / "config.yaml").stat().st_mtime,
        "settings": {key: _public(value) for key, value in settings.items() if key not in LEFT_OUT},
        **{name: {key: round(point[key], 4) for key in names} for name, point in points.items()},
        "seconds": round(metrics[-1].get("seconds", 0)),
    }


def _public(value: object) -> object:
    """Of an absolute path only the name: where it lay on one machine says nothing on another."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def flat(section: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    result = {}
    for key, value in section.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return result


if __name__ == "__main__":
    run(main)
