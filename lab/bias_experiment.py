"""A set whose content goes with its light, on purpose: does the report find it, does a shift or `remove:` repair it,
and what of PSNR?

python -m lab.bias_experiment --cfg rave_mini_clip_quickstart.yaml --set data.backlit_images_path=DIR ... [--json FILE]

Of both folders the set takes the most textured backlit photos (foliage, crowds) and the smoothest well-lit ones (sky,
water), so that "well-lit" also means "smooth". Texture is measured on brightness ranks, which exposure does not change.
The control is as many photos drawn at random. How far a direction follows texture, and light, is measured by changing
nothing else in the same photos, which are in no set. Then RAVE is trained with
each direction.
"""

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.cli import EXIT_OK, make_parser, run
from common.errors import UserError
from configs.load import load_config
from configs.schema import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

    from models.clip_encoder import ClipEncoder

GRID = 128  # pixels to a side, at which texture is measured
SIGMA = 2.0  # pixels of the grid, or of the encoder's input: finer than this is texture
DETAIL = (0.5, 1.5)  # factors of the local contrast between which the response to texture is measured
STOPS = 2.0  # by which photos are darkened for the response to light
PROBES = 60  # photos, at most, that are changed for the responses


def main(argv: list[str]) -> int:
    parser = make_parser(__doc__, default_cfg="rave_mini_clip_quickstart.yaml")
    parser.add_argument(
        "--photos", type=int, default=60, metavar="K", help="of each folder, in the biased set and in the control"
    )
    parser.add_argument(
        "--shifts", type=int, nargs="+", default=[5, 15, 50, 150], metavar="N", help="tokens to shift by"
    )
    parser.add_argument("--train-shift", type=int, default=150, metavar="N", help="the shift that is also trained with")
    parser.add_argument(
        "--words",
        nargs="+",
        default=["textured", "detailed", "rough"],
        help="that `remove:` takes out of the direction",
    )
    parser.add_argument("--no-training", action="store_true", help="directions only")
    parser.add_argument("--out", default="runs/bias", help="folder of sets and runs (default: %(default)s)")
    parser.add_argument("--json", help="where to write the figures; a plot of the same name goes beside it")
    args = parser.parse_args(argv)
    config = load_config(TrainConfig, args.cfg, args.overrides)
    if args.photos < 2:
        raise UserError(f"--photos: expected 2 or more, found {args.photos}")
    results = experiment(config, args)
    if args.json:
        from common.files import write_text
        from common.provenance import provenance

        results |= provenance()
        write_text(args.json, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        plot(results, Path(args.json).with_suffix(".png"))
    return EXIT_OK


def experiment(config: TrainConfig, args) -> dict:
    """Sets, directions with their responses, and one training each."""
    from training.directions import embed_folders
    from training.embeddings import load_encoder
    from training.loop import train
    from training.runtime import make_accelerator
    from training.validation import training_photos

    listed = dict(zip(("backlit", "welllit"), training_photos(config.data), strict=True))
    if min(map(len, listed.values())) < 2 * args.photos:
        raise UserError(
            f"--photos: expected at most half of the smaller folder ({min(map(len, listed.values()))} photos), "
            f"found {args.photos}"
        )
    device = make_accelerator(config.train.device, config.train.precision).device
    encoder = load_encoder(config.clip.guidance, config.clip, device)
    if not encoder.has_text:
        raise UserError(f"clip.guidance.model: expected an encoder with a text tower, found {encoder.name}")
    amount = {side: np.array([texture(path) for path in paths]) for side, paths in listed.items()}
    orders = {
        "backlit": (-amount["backlit"]).argsort(kind="stable"),
        "welllit": amount["welllit"].argsort(kind="stable"),
    }
    drawn = random.Random(config.exp.seed)
    sets = {
        "biased": {side: sorted(order[: args.photos].tolist()) for side, order in orders.items()},
        "control": {side: sorted(drawn.sample(range(len(paths)), args.photos)) for side, paths in listed.items()},
    }
    unused = {
        side: [i for i in range(len(paths)) if all(i not in s[side] for s in sets.values())]
        for side, paths in listed.items()
    }
    folders = {name: _copy(Path(args.out) / "sets" / name, listed, chosen) for name, chosen in sets.items()}

    embeddings = dict(
        zip(
            ("welllit", "backlit"),
            embed_folders(config, encoder, listed["backlit"], listed["welllit"])[:2],
            strict=True,
        )
    )
    if any(len(embeddings[side]) != len(listed[side]) for side in listed):
        raise UserError(
            "data.backlit_images_path, data.welllit_images_path: some photos cannot be read; take them out first"
        )
    probes = _probes(
        encoder, [listed["welllit"][i] for i in unused["welllit"][:: max(1, len(unused["welllit"]) // PROBES)]][:PROBES]
    )
    variants = {"control": ("control", {}), "biased": ("biased", {})}
    variants |= {
        f"biased, shifted by {n}": ("biased", {"remove_first_n_tokens": n})
        for n in sorted({*args.shifts, args.train_shift})
    }
    variants[f"biased, remove {', '.join(args.words)}"] = ("biased", {"remove": args.words})
    trained = [
        name
        for name, (_, keys) in variants.items()
        if keys.get("remove_first_n_tokens", args.train_shift) == args.train_shift
    ]
    rows, curves = {}, {}
    for name, (source, keys) in variants.items():
        options = config.guidance.model_copy(update=keys)
        rows[name] = {
            "set": source,
            "guidance": keys,
            **_responses(config, options, encoder, embeddings, sets[source], unused, amount, probes),
        }
        print(
            f"{name:45}",
            {key: value for key, value in rows[name].items() if isinstance(value, float)},
            rows[name]["content_words"],
        )
    for name in [] if args.no_training else trained:
        source, keys = variants[name]
        number = list(variants).index(name)
        tree = config.model_dump() | {"guidance": config.guidance.model_dump() | keys}
        tree["data"] |= {f"{side}_images_path": str(path) for side, path in folders[source].items()}
        tree["exp"] |= {"save_dir": str(args.out), "exp_name": f"variant_{number}", "overwrite": True}
        folder = train(TrainConfig.model_validate(tree))
        curves[name] = _curve(folder)
        rows[name] |= _outcome(json.loads((folder / "summary.json").read_text()), curves[name])
        print(name, rows[name])
    facts = {
        "photos_of_each_folder": args.photos,
        "probes": len(probes["plain"]),
        "training_iterations": config.train.num_iters,
    }
    selected = {
        name: {side: round(float(amount[side][chosen[side]].mean()), 4) for side in listed}
        for name, chosen in sets.items()
    }
    return {"settings": facts, "mean_texture": selected, "rows": rows, "curves": curves}


def texture(path: Path) -> float:
    """Standard deviation of the fine part of a photo's brightness ranks, 0 to 0.3: how much texture, whatever the
    exposure.
    """
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    from data.images import read_rgb8

    grey = np.asarray(
        Image.fromarray(read_rgb8(path)).convert("L").resize((GRID, GRID), Image.Resampling.BOX), dtype=float
    )
    ranks = grey.ravel().argsort(kind="stable").argsort(kind="stable").reshape(grey.shape) / grey.size
    return float((ranks - gaussian_filter(ranks, SIGMA)).std())


def _copy(folder: Path, listed: dict[str, list[Path]], chosen: dict[str, list[int]]) -> dict[str, Path]:
    """The chosen photos of both sides, copied below `folder`, which is made anew."""
    for side, indices in chosen.items():
        shutil.rmtree(folder / side, ignore_errors=True)
        (folder / side).mkdir(parents=True)
        for index in indices:
            shutil.copyfile(listed[side][index], folder / side / f"{index:04}{listed[side][index].suffix}")
    return {side: folder / side for side in chosen}


def _probes(encoder: "ClipEncoder", paths: list[Path]) -> "dict[str, Tensor]":
    """Embeddings (N,D) of photos as they are, with less and more texture at the same mean brightness, and darkened."""
    import torch

    from data.backlight import linear_to_srgb, srgb_to_linear
    from data.images import read_rgb8

    found: dict[str, list[Tensor]] = {"plain": [], "smoother": [], "rougher": [], "darker": []}
    with torch.no_grad():
        for path in paths:
            photo = (
                torch.from_numpy(np.array(read_rgb8(path))).permute(2, 0, 1)[None].to(encoder.mean.device).float() / 255
            )
            linear = srgb_to_linear(encoder.to_input_size(photo).clamp(0, 1))
            changed = {"plain": linear, "darker": linear / 2**STOPS}
            for name, factor in zip(("smoother", "rougher"), DETAIL, strict=True):
                logarithm = linear.clamp(min=1e-4).log2()
                smooth = _blurred(logarithm)
                other = torch.exp2(smooth + factor * (logarithm - smooth))
                changed[name] = other * (linear.mean() / other.mean())
            for name, image in changed.items():
                found[name].append(encoder.embed_images(linear_to_srgb(image.clamp(0, 1))).cpu())
    return {name: torch.cat(embeddings) for name, embeddings in found.items()}


def _blurred(images: "Tensor") -> "Tensor":
    from torchvision.transforms.v2.functional import gaussian_blur

    return gaussian_blur(images, [13, 13], [SIGMA, SIGMA])


def _responses(config, options, encoder, embeddings, chosen, unused, amount, probes) -> dict:
    """What one direction follows, and the words nearest to it."""
    from metrics.direction import Vocabulary, auc
    from training.directions import read_recipe
    from training.embeddings import embed_vocabulary

    recipe = read_recipe(options, encoder, config.exp.cache_dir)
    guidance = recipe.direction(*(embeddings[side][chosen[side]] for side in ("welllit", "backlit")))
    vector = guidance.vector
    readable = Vocabulary(*encoder.words(), embed_vocabulary(encoder, config.exp.cache_dir))
    ends = {
        name: readable.nearest(vector, 15, whole_words=True, farthest=name == "backlit")
        for name in ("welllit", "backlit")
    }
    held = {side: embeddings[side][unused[side]] @ vector for side in unused}
    correlation = np.corrcoef(held["welllit"].numpy(), amount["welllit"][unused["welllit"]])[0, 1]
    values = {
        "texture_response": (probes["rougher"] - probes["smoother"]) @ vector,
        "light_response": (probes["plain"] - probes["darker"]) @ vector,
    }
    return {
        **{name: round(float(value.mean()), 4) for name, value in values.items()},
        "correlation_with_texture": round(float(correlation), 4),
        "auc_unused_photos": round(auc(held["welllit"], held["backlit"]), 4),
        "set_point": round(guidance.target, 4),
        "backlit_projection": round(guidance.start, 4),
        "words_welllit": [token.text for token in ends["welllit"]],
        "words_backlit": [token.text for token in ends["backlit"]],
        "content_words": [token.text for end in ends.values() for token in end if token.kind == "content"],
    }


def _curve(folder: Path) -> list[dict]:
    from training.tracking import read_metrics

    names = ("iteration", "val_psnr", "val_ssim")
    return [
        {name: round(line[name], 4) for name in names}
        for line in read_metrics(folder / "metrics.jsonl")
        if "val_psnr" in line
    ]


def _outcome(summary: dict, curve: list[dict]) -> dict:
    if "best" not in summary:
        return {}
    measured = {"best": summary["best"], "best_val": summary["best_val"], "last": curve[-1]}
    outcome = {
        f"{key}_{name}": round(values[f"val_{name}"], 4)
        for key, values in measured.items()
        for name in ("psnr", "ssim")
    }
    return {**outcome, "input_psnr": round(summary["best"]["val_psnr_input"], 4), "seconds": summary["seconds"]}


def plot(results: dict, path: Path) -> None:
    """Left: what each direction follows. Right: validation PSNR and SSIM of the trainings."""
    from matplotlib.figure import Figure

    from common.files import writing

    rows, curves = results["rows"], results["curves"]
    figure = Figure(figsize=(15, 0.42 * len(rows) + 1.6), layout="constrained")
    left, *others = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    places = np.arange(len(rows))[::-1]
    for offset, key, color, label in (
        (0.2, "light_response", "tab:orange", f"the same photos, {STOPS:g} stops more light"),
        (-0.2, "texture_response", "tab:green", f"the same photos, {DETAIL[1] / DETAIL[0]:g} × the texture"),
    ):
        left.barh(places + offset, [row[key] for row in rows.values()], 0.38, color=color, label=label)
    left.axvline(0, color="k", lw=0.8)
    left.set_yticks(places, list(rows), fontsize=8)
    left.set(
        title="what moves the projection on r", xlabel="mean change of the projection", ylim=(-0.6, len(rows) - 0.4)
    )
    left.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.3, 1.06), ncols=2, frameon=False)
    for axes, key, label in zip(others, ("val_psnr", "val_ssim"), ("PSNR / dB", "SSIM"), strict=True):
        for name, curve in curves.items():
            axes.plot([point["iteration"] for point in curve], [point[key] for point in curve], "o-", ms=3, label=name)
        axes.set(
            title=f"RAVE trained with it: validation {label}", xlabel="iteration"
        ) if curves else axes.set_axis_off()
    if curves:
        others[1].legend(fontsize=7)
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


if __name__ == "__main__":
    run(main)
