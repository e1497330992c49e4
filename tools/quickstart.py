"""Make photos, train RAVE, enhance held-out photos, measure: offline (`make demo`).

Everything lands in runs/quickstart/: report.html, before_after.png, enhanced/, results.json and the run itself.
"""

import json
import time
from pathlib import Path

from common.cli import EXIT_OK, ArgumentParser, add_set, run
from common.errors import UserError
from common.files import check_folder

PHOTOS = Path("datasets/quickstart")
HELD_OUT = PHOTOS / "held_out"


def main(argv: list[str]) -> int:
    """Four steps, each of which is a command of its own that the console shows."""
    parser = ArgumentParser(description=__doc__)
    add_set(parser, "override a key of the training")
    parser.add_argument("--resume", action="store_true", help="go on with a demo that was stopped")
    args = parser.parse_args(argv)
    import inference
    from configs.load import load_config
    from configs.schema import TrainConfig
    from data.samples import make_quickstart_set
    from training.loop import train

    config = load_config(TrainConfig, "rave_quickstart.yaml", args.overrides)
    check_folder(config.exp.save_dir, "exp.save_dir")
    start = time.perf_counter()
    _heading("1/4", "photos out of scikit-image's wheel, with simulated backlight")
    make_quickstart_set(PHOTOS)
    print(f"{PHOTOS}: train/backlit, train/welllit (unpaired); held_out/backlit, held_out/ground_truth (pairs)")

    _heading("2/4", "python train_rave.py --cfg rave_quickstart.yaml")
    folder = train(config, resume=args.resume)

    _heading(
        "3/4",
        (
            f"python inference.py {HELD_OUT}/backlit --output {folder}/enhanced --checkpoint "
            f"{folder}/checkpoints/best.safetensors"
        ),
    )
    weights = folder / "checkpoints" / "best.safetensors"
    code = inference.main(
        [str(HELD_OUT / "backlit"), "--output", str(folder / "enhanced"), "--checkpoint", str(weights)]
    )
    if code != EXIT_OK:
        return code

    _heading("4/4", f"python compute_metrics.py --gt {HELD_OUT}/ground_truth --enhanced {folder}/enhanced")
    measured = {
        "input": measure(HELD_OUT / "backlit", folder / "metrics_input.json"),
        "enhanced": measure(folder / "enhanced", folder / "metrics_enhanced.json"),
    }
    summary = _compare(measured, folder)
    summary["seconds"] = round(time.perf_counter() - start, 1)
    write_results({"mean": summary}, folder / "results.json")
    print(
        f"\nlook at   {folder}/before_after.png, {folder}/report.html\nnumbers   {folder}/results.json\ntook     "
        f" {summary['seconds']:.0f} s"
    )
    return EXIT_OK


def measure(results: Path, json_file: Path) -> dict:
    """Metrics (protocol `rgb`) of a folder of results against the held-out ground truths: what the JSON holds, written
    to `json_file` and, as a table, to the CSV beside it. Raises UserError where a photo cannot be measured.
    """
    from metrics.measurement import measure_folder

    measured = measure_folder(results, HELD_OUT / "ground_truth", ("rgb",))
    if measured.failed:
        raise UserError("{}: {}".format(*measured.failed[0]))
    measured.write_csv(json_file.with_suffix(".csv"))
    return measured.write_json(json_file)


def _compare(measured: dict, folder: Path) -> dict:
    """Print input beside enhanced for every held-out photo, write before_after.png, return the means."""
    from data.images import read_rgb8
    from data.images.grid import photo_grid

    print(f"\n{'held-out photo':22} {'PSNR / dB':>17} {'SSIM':>15} {'mean brightness':>24}")
    print(
        f"{'':22} {'input':>7} {'enhanced':>9} {'input':>6} {'enhanced':>8} {'input':>7} {'enhanced':>8} {'truth':>7}"
    )
    rows, pictures = [], []
    for before, after in zip(measured["input"]["images"], measured["enhanced"]["images"], strict=True):
        photos = [
            read_rgb8(path / before["name"])
            for path in (HELD_OUT / "backlit", folder / "enhanced", HELD_OUT / "ground_truth")
        ]
        values = [
            before["psnr"],
            after["psnr"],
            before["ssim"],
            after["ssim"],
            *(float(p.mean()) / 255 for p in photos),
        ]
        _row(Path(before["name"]).stem, values)
        rows.append(values)
        pictures.append(photos)
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    _row("mean", means)
    print(f"\nPSNR {means[1] - means[0]:+.2f} dB, SSIM {means[3] - means[2]:+.3f} over the untouched input")
    photo_grid(pictures, ["backlit", "enhanced by RAVE", "ground truth"], folder / "before_after.png", side=240)
    names = (
        "psnr_input",
        "psnr_enhanced",
        "ssim_input",
        "ssim_enhanced",
        "brightness_input",
        "brightness_enhanced",
        "brightness_truth",
    )
    return dict(zip(names, means, strict=True))


def _row(name: str, v: list[float]) -> None:
    print(f"{name:22} {v[0]:7.2f} {v[1]:9.2f} {v[2]:6.3f} {v[3]:8.3f} {v[4]:7.3f} {v[5]:8.3f} {v[6]:7.3f}")


def write_results(results: dict, path: Path) -> None:
    """The results with commit, command, versions and hardware beside them, as JSON."""
    from common.files import write_text
    from common.provenance import provenance

    content = {**results, **provenance()}
    write_text(path, json.dumps(content, indent=2) + "\n")


def _heading(step: str, text: str) -> None:
    print(f"\n[{step}] {text}", flush=True)


if __name__ == "__main__":
    run(main)
