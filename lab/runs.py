"""The figures of a run folder, for JSON files of `docs/results/`."""

import json
from pathlib import Path

import yaml


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
