"""Bias with real semantics: two folders that differ in subject as well as in light, and what takes the subject out.

python -m lab.bias_experiment --set data.backlit_images_path=DIR --set data.welllit_images_path=DIR
    [--set data.val_backlit_path=DIR --set data.val_gt_path=DIR] [--seeds 0 1] [--json FILE]

An encoder with a classifier says which photos show animals and which show buildings. Directions are made without every
fifth photo of both folders; on these, brought to one light, is measured how far each direction follows light (the same
photo, darkened) and content (animals beside buildings). Then RAVE is trained with some of them, in the paper's way
(last layer, one set point) and in ours (stages, a set point for each photo), and enhances held-out animals and
buildings, darkened to one mean luminance: a network that was taught content lifts one group more than the other.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import EXIT_OK, make_parser, run
from common.errors import UserError
from configs.load import load_config
from configs.schema import TrainConfig
from lab.claims import ALIKE, SET_POINTS, SPACES

if TYPE_CHECKING:
    from torch import Tensor

    from models.clip_encoder import ClipEncoder

GROUPS = ("animals", "buildings and rooms")
HELD_OUT = 5  # every fifth photo of each folder
MEAN = 0.18  # linear luminance to which probes are brought: middle grey
STOPS = 2.0  # by which they are darkened
WAYS = {  # space -> settings of its trainings, which are as long as those behind the claims
    layers: [*ALIKE, "unet_model.settle_at=null", *SPACES[layers], *SET_POINTS[point]]
    for layers, point in (("last", "mean"), ("stages", "photo"))
}


def main(argv: list[str]) -> int:
    parser = make_parser(__doc__, default_cfg="rave_relit_offline.yaml")
    parser.add_argument("--shifts", type=int, nargs="+", default=[5, 15, 50], metavar="N", help="classes to shift by")
    parser.add_argument(
        "--remove", type=int, default=10, metavar="N", help="classes to remove, the nearest at each end"
    )
    parser.add_argument("--train-shift", type=int, default=15, metavar="N", help="the shift that is also trained with")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of the trainings; none: directions only")
    parser.add_argument("--spaces", nargs="+", choices=WAYS, default=[*WAYS], help="in which of them to train")
    parser.add_argument("--out", default="runs/bias", help="folder of the runs (default: %(default)s)")
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args(argv)
    configs = {layers: load_config(TrainConfig, args.cfg, [*way, *args.overrides]) for layers, way in WAYS.items()}
    for results in experiment(configs, args):
        if args.json:
            from common.files import write_text
            from common.provenance import provenance

            write_text(args.json, json.dumps(results | provenance(), indent=1, ensure_ascii=False) + "\n")
    return EXIT_OK


def experiment(configs: dict[str, TrainConfig], args) -> Iterator[dict]:
    """Directions with their responses in either space; then the same again after each training with one of them."""
    from training.embeddings import load_encoder
    from training.photos import training_photos
    from training.runtime import make_accelerator

    config = next(iter(configs.values()))  # photos and encoder are those of all
    listed = dict(zip(("backlit", "welllit"), training_photos(config.data), strict=True))
    device = make_accelerator(config.train.device, config.train.precision).device
    plain = load_encoder(config.clip.guidance, config.clip, device)
    if plain.vocabulary_kind != "classes":
        raise UserError(f"clip.guidance.model: expected an encoder with a classifier, found {plain.name}")
    held = {side: paths[::HELD_OUT] for side, paths in listed.items()}
    used = {side: [path for path in paths if path not in set(held[side])] for side, paths in listed.items()}
    groups = _groups(plain, [*held["backlit"], *held["welllit"]])
    rows: dict[str, dict] = {}
    for layers, of_space in configs.items():
        encoder = plain.in_layers(layers)
        probes = _embedded(encoder, groups)
        shown, directions = _directions(of_space, encoder, used, args)
        for name, (keys, guidance) in directions.items():
            row = {"layers": layers, "guidance": keys, **_responses(guidance, probes)}
            print(f"{layers:7} {name:24}", {key: row[key] for key in row if key.endswith(("response", "error"))})
            rows[f"{layers}: {name}"] = row
    settings = {
        "set_points": {layers: of_space.guidance.set_point for layers, of_space in configs.items()},
        "photos": {side: len(paths) for side, paths in used.items()},
        "probes": {group: len(photos["lit"]) for group, photos in groups.items()},
        "luminance": {"lit": MEAN, "dark": MEAN / 2**STOPS},
        "iterations": config.train.num_iters,
        "side": config.data.image_size,
    }
    results = {"settings": settings, "shown": shown, "rows": rows}
    yield results
    left_out = Path(args.out) / "held_out.txt"
    left_out.parent.mkdir(parents=True, exist_ok=True)
    left_out.write_text("".join(f"{path.name}\n" for paths in held.values() for path in paths), encoding="utf-8")
    for seed in args.seeds:
        for layers in args.spaces:
            of_space = configs[layers]
            for name in ("folders", f"shifted by {args.train_shift}", _removed(args), "relit"):
                row = rows[f"{layers}: {name}"]
                tree = of_space.model_dump() | {"guidance": of_space.guidance.model_dump() | row["guidance"]}
                tree["data"]["leave_out"] = [*tree["data"]["leave_out"], str(left_out)]
                run_name = f"{layers}_{name.replace(' ', '_')}_seed{seed}"
                tree["exp"] |= {"save_dir": args.out, "exp_name": run_name, "overwrite": True, "seed": seed}
                trained = _trained(TrainConfig.model_validate(tree), groups)
                row.setdefault("trained", {})[str(seed)] = trained
                print(run_name, trained, flush=True)
                yield results


def _removed(args) -> str:
    return f"{2 * args.remove} classes removed"


def _directions(config: TrainConfig, encoder: "ClipEncoder", used: dict[str, list[Path]], args) -> tuple[dict, dict]:
    """What each folder shows; name -> keys of `guidance` and the guidance of these photos."""
    from metrics.subjects import shares, subjects
    from training.directions import embed_folders, read_recipe, relit_guidance

    *sides, skipped = embed_folders(config, encoder, used["backlit"], used["welllit"])
    if skipped:
        raise UserError(f"data: expected photos that can be read, found {skipped[0]}")
    names, classes = encoder.vocabulary()
    shown = {
        name: {subject: round(share, 3) for subject, share in shares(subjects(side, names, classes)).items()}
        for name, side in zip(("welllit", "backlit"), sides, strict=True)
    }

    def direction(keys: dict):
        changed = config.model_copy(update={"guidance": config.guidance.model_copy(update=keys)})
        relit, _ = relit_guidance(changed, encoder, used["backlit"], used["welllit"])
        return read_recipe(changed.guidance, encoder, config.exp.cache_dir, relit).direction(*sides)

    folders = {"direction": "folders", "remove_first_n_tokens": 0, "remove": []}
    order = (classes @ direction(folders).vector[-classes.shape[1] :].cpu()).argsort().tolist()
    nearest = [names[i] for i in (*order[: args.remove], *order[::-1][: args.remove])]
    variants = {
        "folders": folders,
        **{f"shifted by {n}": folders | {"remove_first_n_tokens": n} for n in sorted({*args.shifts, args.train_shift})},
        _removed(args): folders | {"remove": nearest},
        "relit": folders | {"direction": "relit"},
    }
    return shown, {name: (keys, direction(keys)) for name, keys in variants.items()}


def _groups(encoder: "ClipEncoder", paths: list[Path]) -> dict[str, "dict[str, Tensor]"]:
    """Of each group: photos (N,3,S,S) "lit", all of one mean luminance, and the same "dark"."""
    import numpy as np
    import torch

    from data.backlight import linear_to_srgb, srgb_to_linear
    from data.images import read_rgb8
    from metrics.subjects import subjects

    photos = {group: [] for group in GROUPS}
    with torch.no_grad():
        for path in paths:
            pixels = torch.from_numpy(np.array(read_rgb8(path))).permute(2, 0, 1)[None].float() / 255
            photo = encoder.to_input_size(pixels.to(encoder.mean.device)).clamp(0, 1)
            (group,) = subjects(encoder.embed_images(photo), *encoder.vocabulary())
            if group in photos:
                photos[group].append(_of_mean(srgb_to_linear(photo), MEAN))
    if few := [group for group in GROUPS if len(photos[group]) < 2]:
        raise UserError(f"data: expected two held-out photos of {few[0]} or more, found {len(photos[few[0]])}")
    linear = {group: torch.cat(images) for group, images in photos.items()}
    return {
        group: {"lit": linear_to_srgb(images), "dark": linear_to_srgb(images / 2**STOPS)}
        for group, images in linear.items()
    }


def _embedded(encoder: "ClipEncoder", groups: dict[str, "dict[str, Tensor]"]) -> dict[str, "dict[str, Tensor]"]:
    import torch

    with torch.no_grad():
        return {
            group: {light: encoder.embed_images(images).cpu() for light, images in photos.items()}
            for group, photos in groups.items()
        }


def _of_mean(linear: "Tensor", mean: float) -> "Tensor":
    """The photo with another exposure, so that its mean, clipped at 1, is this."""
    low, high = 0.0, 1e3
    for _ in range(40):
        gain = (low + high) / 2
        low, high = (gain, high) if float((linear * gain).clamp(max=1).mean()) < mean else (low, gain)
    return (linear * low).clamp(max=1)


def _responses(guidance, probes: dict[str, dict]) -> dict[str, float]:
    """Mean change of the projection: with light in the same photos, and from buildings to animals in the same light."""
    lit, dark = ([probes[group][name] @ guidance.vector.cpu() for group in GROUPS] for name in ("lit", "dark"))
    light = sum(float((a - b).sum()) for a, b in zip(lit, dark, strict=True)) / sum(map(len, lit))
    content = float(lit[0].mean() - lit[1].mean())
    error = float(sum(values.var() / len(values) for values in lit)) ** 0.5
    values = {"light_response": light, "content_response": content, "content_error": error}
    return {name: round(value, 4) for name, value in values.items()}


def _trained(config: TrainConfig, groups: dict[str, dict]) -> dict:
    """A training's last validation, and what the network that it keeps does to held-out photos of each group.

    By group: the mean change of brightness (mean over pixels and channels, full scale 1), the mean amplification
    −log2 M in stops, which unlike it does not depend on the photos' tones, with its standard error over photos, and the
    mean PSNR against the photos as they were lit. Of a training that broke down: why.
    """
    import torch

    from models.checkpoints import load_unet
    from models.retinex import enhance
    from training.guards import TrainingDiverged
    from training.loop import train
    from training.tracking import read_metrics

    try:
        folder = train(config)
    except TrainingDiverged as error:
        return {"broke": str(error)}
    unet, row = load_unet(folder / "checkpoints" / "best.safetensors"), {}
    with torch.no_grad():
        for group, photos in groups.items():
            dark, lit = (photos[light].cpu() for light in ("dark", "lit"))
            maps = torch.cat([unet(photo[None]) for photo in dark])
            results = enhance(dark, maps)
            stops = -maps.clamp(min=2.0**-10).log2().flatten(1).mean(dim=1)
            psnr = -10 * (results - lit).square().flatten(1).mean(dim=1).log10()
            values = {
                "change": (results - dark).mean(),
                "stops": stops.mean(),
                "stops_error": stops.std() / len(stops) ** 0.5,
                "psnr": psnr.mean(),
            }
            row[group] = {name: round(float(value), 4) for name, value in values.items()}
    curve = [line for line in read_metrics(folder / "metrics.jsonl") if "val_psnr" in line]
    if curve:
        row["validation"] = {name: round(curve[-1][name], 4) for name in ("val_psnr", "val_ssim", "val_brightness")}
    return row


if __name__ == "__main__":
    run(main)
