"""Train all three methods on the quick-start photos and compare them (`make compare`).

CLIP-LIT, CLIP-LIT-Latent and RAVE get the same number of UNet iterations, on the same photos, of the same network and
rate. RAVE and CLIP-LIT-Latent are guided by EfficientNet-Lite0, CLIP-LIT, which needs a text tower, by mini-clip.

Everything lands in runs/compare/: photos.png, curves.png, results.json and the three runs. Each method starts without
caches, so that the seconds hold all it needs: embeddings and residual vector, or guidance training and enhanced sets.
"""

import json
import shutil
import time
from pathlib import Path

from common.cli import EXIT_OK, ArgumentParser, add_set, run
from common.errors import UserError
from common.files import check_folder
from configs.load import load_config
from configs.schema import TrainConfig
from tools.quickstart import HELD_OUT, PHOTOS, measure, write_results

METHODS = {
    "CLIP-LIT": "clip_lit_quickstart.yaml",
    "CLIP-LIT-Latent": "clip_lit_latent_quickstart.yaml",
    "RAVE": "rave_quickstart.yaml",
}


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__)
    add_set(parser, "override a key of all three")
    parser.add_argument("--out", default="runs/compare", help="folder of runs and results (default: %(default)s)")
    args = parser.parse_args(argv)
    out = Path(args.out)
    check_folder(out, "--out")
    common = [f"exp.save_dir={out}", f"exp.cache_dir={out / 'cache'}", "exp.overwrite=true"]
    configs = {
        name: load_config(TrainConfig, cfg, [*args.overrides, *common, f"exp.exp_name={Path(cfg).stem}"])
        for name, cfg in METHODS.items()
    }

    import inference
    from data.samples import make_quickstart_set
    from training.loop import train
    from training.phases import schedule

    budgets = {
        name: sum(p.iterations for p in schedule(config, photos=1) if p.trains == "unet")
        for name, config in configs.items()
    }
    if len(set(budgets.values())) > 1:
        raise UserError(f"the methods need the same number of UNet iterations, found {budgets}")
    make_quickstart_set(PHOTOS)
    started = time.perf_counter()
    rows = {"untouched input": {**measure(HELD_OUT / "backlit", out / "metrics_input.json")["mean"]}}
    curves = {}
    for number, (name, config) in enumerate(configs.items(), 1):
        print(f"\n[{number}/{len(configs)}] {name}: {METHODS[name]}", flush=True)
        shutil.rmtree(config.exp.cache_dir, ignore_errors=True)
        folder = train(config)
        weights = folder / "checkpoints" / "best.safetensors"
        code = inference.main(
            [str(HELD_OUT / "backlit"), "--output", str(folder / "enhanced"), "--checkpoint", str(weights)]
        )
        if code != EXIT_OK:
            return code
        curves[name] = _curve(folder)
        rows[name] = {
            **measure(folder / "enhanced", folder / "metrics_enhanced.json")["mean"],
            **_times(folder, curves[name]),
        }
    results = {"unet_iterations": budgets["RAVE"], "rows": rows, "speed": _speed(rows), "curves": curves}
    results["seconds"] = round(time.perf_counter() - started, 1)
    write_results(results, out / "results.json")
    _pictures(out, {name: out / config.exp.exp_name / "enhanced" for name, config in configs.items()}, curves)
    _print(results)
    print(
        f"\nlook at   {out}/photos.png, {out}/curves.png\nnumbers   {out}/results.json\ntook      "
        f"{results['seconds']:.0f} s"
    )
    return EXIT_OK


def _curve(folder: Path) -> list[dict]:
    """Validation PSNR over iterations and over seconds of training."""
    from training.tracking import read_metrics

    names = ("iteration", "seconds", "val_psnr", "val_ssim")
    return [
        {name: round(line[name], 4) for name in names}
        for line in read_metrics(folder / "metrics.jsonl")
        if "val_psnr" in line
    ]


def _times(folder: Path, curve: list[dict]) -> dict:
    best = max(curve, key=lambda point: point["val_psnr"])
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "best_val_psnr": best["val_psnr"],
        "best_val_iteration": best["iteration"],
        "seconds_to_best": best["seconds"],
        "seconds": summary["seconds"],
        "restarts": summary["restarts"],
        "collapses": summary["collapses"],
    }


def _speed(rows: dict[str, dict]) -> dict[str, float]:
    """How many times longer than RAVE each method took to its own best validation PSNR."""
    rave = rows["RAVE"]["seconds_to_best"]
    return {name: round(row["seconds_to_best"] / rave, 2) for name, row in rows.items() if "seconds_to_best" in row}


def _print(results: dict) -> None:
    print(
        f"\n{'':18} {'PSNR / dB':>9} {'SSIM':>6} {'best by validation':>20} {'at iteration':>13} {'after':>8} "
        f"{'x RAVE':>7}"
    )
    for name, row in results["rows"].items():
        line = f"{name:18} {row['psnr']:9.2f} {row['ssim']:6.3f}"
        if "seconds_to_best" in row:
            best = f"{row['best_val_psnr']:17.2f} dB {row['best_val_iteration']:13} {row['seconds_to_best']:6.1f} s"
            line += f" {best} {results['speed'][name]:7.2f}"
        print(line)
    print(f"{results['unet_iterations']} UNet iterations each; PSNR, SSIM: of the snapshot chosen without ground truth")


def _pictures(out: Path, enhanced: dict[str, Path], curves: dict[str, list[dict]]) -> None:
    from matplotlib.figure import Figure

    from common.files import writing
    from data.images import read_rgb8
    from data.images.grid import photo_grid
    from data.listing import list_images

    folders = [HELD_OUT / "backlit", *enhanced.values(), HELD_OUT / "ground_truth"]
    names = [path.name for path in list_images(HELD_OUT / "backlit", "held-out photos")]
    rows = [[read_rgb8(folder / name) for folder in folders] for name in names]
    photo_grid(rows, ["backlit", *enhanced, "ground truth"], out / "photos.png", side=200)

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, x in zip(figure.subplots(1, 2, sharey=True), ("iteration", "seconds"), strict=True):
        for name, curve in curves.items():
            axes.plot([point[x] for point in curve], [point["val_psnr"] for point in curve], "o-", ms=3, label=name)
        axes.axhline(curves["RAVE"][0]["val_psnr"], color="k", ls="--", lw=1, label="start")
        axes.set(xlabel="iterations, guidance included" if x == "iteration" else "seconds of training")
    figure.axes[0].set_ylabel("validation PSNR / dB")
    figure.axes[0].legend()
    with writing(out / "curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    run(main)
