"""Put the figures of a training run where they can be committed: OUT.json and OUT.png, no photos.

python tools/summarise_run.py runs/NAME docs/results/NAME
"""

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from common.cli import EXIT_OK, ArgumentParser, run
from common.errors import UserError
from common.files import write_text, writing


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder")
    parser.add_argument("out", help="where to write, without suffix")
    args = parser.parse_args(argv)
    folder, out = Path(args.run), Path(args.out)
    if not (folder / "summary.json").is_file():
        raise UserError(f"run: expected a finished run, found no summary.json in {folder}")
    summary = summarise(folder)
    write_text(out.with_suffix(".json"), json.dumps(summary, indent=2) + "\n")
    with writing(out.with_suffix(".png")) as temporary:
        shutil.copyfile(folder / "curves.png", temporary)
    print(f"{out}.json, {out}.png")
    return EXIT_OK


def summarise(folder: Path) -> dict:
    """Config, provenance, validation curve, snapshots and time of one run, without the user's paths."""
    from training.tracking import read_metrics

    metrics = read_metrics(folder / "metrics.jsonl")
    steps, checks = [m for m in metrics if "loss" in m], [m for m in metrics if "val_psnr" in m]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    if config["exp"]["mode"] == "rave":
        config.pop("guidance_model")
    reports = [m for m in metrics if "guidance_accuracy" in m]
    seconds = [(m["phase"], m["seconds_per_step"]) for m in steps]
    per_phase = {phase: [s for p, s in seconds if p == phase] for phase, _ in seconds}
    return {
        "run": folder.name,
        "summary": json.loads((folder / "summary.json").read_text()),
        "validation": [_rounded(check) for check in checks],
        **({"guidance": [_rounded(report) for report in reports]} if reports else {}),
        "seconds_per_step_median": {
            phase: round(sorted(values)[len(values) // 2], 3) for phase, values in per_phase.items()
        },
        "config": config,
        "provenance": json.loads((folder / "provenance.json").read_text()),
    }


def _rounded(line: dict) -> dict:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in line.items()}


if __name__ == "__main__":
    run(main)
