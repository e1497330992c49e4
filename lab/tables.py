"""The tables of the documents, each a function of the JSON files in docs/results/: no number is typed by hand."""

from configs.changes import flat
from configs.schema import TrainConfig
from lab import schedules, weight_tables
from lab.bench import table as bench
from lab.bench import targets
from lab.chaos.table import reliability
from lab.free_photos import sources
from lab.sources import cases, commit_of, device_of, each_measured_on, load, measured_on, runs_on

SHIPPED = (
    *("start", "rave_weights", "rave_weights_seed0", "rave_weights_seed1", "rave_weights_paired"),
    *("backlit", "backlit_seed0", "backlit_seed2", "backlit_900", "backlit_low_key", "free"),
)
SEARCH_LEAVES_OUT = {  # settings of the search that say little about a result; all are in experiments.json
    *("train.num_iters", "train.val_iter", "unet_model.batch_size", "unet_model.display_iter", "unet_model.ema"),
    *("unet_model.load_pretrain", "unet_model.pretrain_dir", "clip.guidance.pretrained"),
}
CLIP_LIT_RUNS = ("clip_lit_unpaired", "clip_lit_latent_unpaired", "clip_lit_latent_unpaired_again")


def quickstart() -> str:
    result = load("quickstart")
    mean = result["mean"]
    rows = [
        ("untouched input", mean["psnr_input"], mean["ssim_input"], mean["brightness_input"]),
        ("enhanced by RAVE", mean["psnr_enhanced"], mean["ssim_enhanced"], mean["brightness_enhanced"]),
    ]
    lines = [
        "| six held-out photos | PSNR / dB | SSIM | mean brightness (truth {:.3f}) |".format(mean["brightness_truth"]),
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {psnr:.2f} | {ssim:.3f} | {brightness:.3f} |" for name, psnr, ssim, brightness in rows]
    return "\n".join(lines) + f"\n\n`make demo`, {mean['seconds']:.0f} s after set-up, {measured_on(result)}."


def finish() -> str:
    """What the choices of `serving.finish` do."""
    result = load("finish")
    lines = ["| | PSNR / dB, SSIM | hue shift where a channel exceeds white | newly clipped |", "|---|---|---|---|"]
    for kind, row in result["highlights"].items():
        cells = f"{row['psnr']:.2f}, {row['ssim']:.3f} | {row['hue_turned']:.1f}° | {100 * row['clipped']:.2f} %"
        lines.append(f"| `--highlights {kind}` | {cells} |")
    noise, real, dither = result["noise"], result["real"], result["dither"]
    lines += ["", "| | without | with |", "|---|---|---|"]
    for what, before, after in (
        ("`--denoise auto`: PSNR of darkened, noisy photos / dB", noise["psnr_off"], noise["psnr_auto"]),
        ("`--denoise auto`: colour steps at JPEG block edges in shadows of real dark photos, in 8-bit steps",
         real["blotches_off"], real["blotches_auto"]),
        ("`--denoise auto`: share of fine luma kept there", 1.0, real["fine_kept"]),
        ("`--dither`: longest run of equal values in a dark ramp brightened 6 times / px",
         dither["run_off"], dither["run_on"]),
        ("`--dither`: mean of that ramp, in 8-bit steps", dither["mean_off"], dither["mean_on"]),
    ):  # fmt: skip
        lines.append(f"| {what} | {before:.4g} | {after:.4g} |")
    cast, halo = result["cast"], result["halo"]
    found = (
        f"Colour casts: the mean chroma of shadows differs from the ground truth's by {cast['shadows']:.3f} of full "
        f"scale, elsewhere by {cast['elsewhere']:.3f}. Halos: beside an edge between 0.08 and 0.85 the result deviates "
        f"by at most {100 * halo['dark_side']:.1f} % on the dark side and {100 * halo['bright_side']:.1f} % on the "
        f"bright side. {result['photos']} validation pairs; `python -m lab.finish`, {measured_on(result)}."
    )
    return "\n".join(lines) + f"\n\n{found}"


def guidance_cache() -> str:
    result = load("guidance_cache")
    names = {"clip_lit": "CLIP-LIT", "clip_lit_latent": "CLIP-LIT-Latent"}
    lines = [
        "| cached augmentations | seconds | ms per iteration | accuracy on held-back photos |",
        "|---|---|---|---|",
    ]
    for row in result["rows"]:
        cached = row["augmentations"] or "none (as in the release)"
        cells = (
            f"{row['seconds']:.0f} | {row['milliseconds_per_iteration']:.1f} | {100 * row['guidance_accuracy']:.1f} %"
        )
        lines.append(f"| {cached} | {cells} |")
    settings = result["settings"]
    what = (
        f"{names[settings['mode']]} initialisation, {settings['num_pretrain_iters']} iterations, encoder "
        f"{settings['clip']['model']}"
    )
    return "\n".join(lines) + f"\n\n{what}; {measured_on(result)}."


def compare() -> str:
    result = load("compare")
    lines = ["| | PSNR / dB | SSIM | best by validation | reached after | times RAVE's |", "|---|---|---|---|---|---|"]
    for name, row in result["rows"].items():
        cells = ["", "", ""]
        if "seconds_to_best" in row:
            cells = [
                f"{row['best_val_psnr']:.2f} dB",
                f"{row['seconds_to_best']:.0f} s",
                f"{result['speed'][name]:.1f}",
            ]
        lines.append(f"| {name} | {row['psnr']:.2f} | {row['ssim']:.3f} | {' | '.join(cells)} |")
    budget = (
        f"{result['unet_iterations']} UNet iterations each; PSNR and SSIM: of six held-out photos, "
        "snapshot chosen without ground truth"
    )
    return "\n".join(lines) + f"\n\n{budget}; `make compare`, {result['seconds'] / 60:.0f} min, {measured_on(result)}."


def training() -> str:
    lines = [
        (
            "| run | validation PSNR / dB, SSIM: untouched | best snapshot | best by validation | iterations | "
            "minutes | on | commit |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("rave_unpaired", *CLIP_LIT_RUNS, *SHIPPED):
        run = load(name)
        best, val = run["summary"]["best"], run["summary"]["best_val"]
        cells = [f"{best['val_psnr_input']:.2f}, {best['val_ssim_input']:.3f}"]
        cells += [f"{v['val_psnr']:.2f}, {v['val_ssim']:.3f}" for v in (best, val)]
        seconds = run["summary"].get("seconds")
        cells += [
            f"{run['summary']['iterations']}",
            "–" if seconds is None else f"{seconds / 60:.0f}",
            device_of(run["provenance"]),
            commit_of(run["provenance"]),
        ]
        lines.append(f"| [`{name}`](results/{name}.json) | {' | '.join(cells)} |")
    return "\n".join(lines) + (
        "\n\nBest snapshot: by the run's own loss. Best by validation: of all checks, the start's included. Config, "
        "commit and command are in each JSON."
    )


def free_photos() -> str:
    """What `free.safetensors` was trained on: makers and terms."""
    lines = ["| photo | by | terms | from |", "|---|---|---|---|"]
    lines += [f"| {row['name']} | {row['maker']} | {row['licence']} | {row['package']} |" for row in sources()]
    return "\n".join(lines)


def offline() -> str:
    """The shipped configs with a real encoder, three seeds each."""
    rows = load("claims")
    lines = [
        "| config | seed | untouched | last snapshot | best of the run | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("paired", "relit"):
        for seed, row in sorted(rows.get(f"offline/{name}", {}).items()):
            shown = [_score(row["input"], "_input"), _score(row["last"]), _score(row["best"])]
            seconds = f"{row['last']['seconds']:.0f}"
            lines.append(f"| `rave_{name}_offline.yaml` | {seed} | {' | '.join(shown)} | {seconds} |")
    return "\n".join(lines) + f"\n\nPSNR / dB, SSIM of 13 validation pairs at 128 px, from a map of 1. {runs_on(rows)}"


def claims() -> str:
    """What guides, in which space, towards which set point."""
    rows = load("claims")
    lines = [
        "| direction | space | set point | seeds | last: mean PSNR / dB (range) | SSIM | best: mean PSNR / dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, seeds in rows.items():
        direction, *rest = name.split("/")
        if direction == "offline":
            continue
        done = [row for row in seeds.values() if "last" in row]
        cells = ["broke down"] * 3
        if done:
            last, ssim = ([row["last"][key] for row in done] for key in ("val_psnr", "val_ssim"))
            cells = [f"{_mean(last):.2f} ({min(last):.2f} to {max(last):.2f})", f"{_mean(ssim):.3f}"]
            cells.append(f"{_mean([row['best']['val_psnr'] for row in done]):.2f}")
        lines.append(f"| {direction} | {' | '.join(rest)} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\nThe 13 validation pairs. {runs_on(rows)}"


def _score(point: dict, suffix: str = "") -> str:
    return f"{point[f'val_psnr{suffix}']:.2f}, {point[f'val_ssim{suffix}']:.3f}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def guidance() -> str:
    """What the learned guidance of the CLIP-LIT runs can do, phase by phase."""
    lines = [
        "| run, after | accuracy on held-back photos | S: backlit | enhanced | well-lit |",
        "|---|---|---|---|---|",
    ]
    for name in CLIP_LIT_RUNS:
        for report in load(name)["guidance"]:
            scores = [
                f"{report[key]:.3f}" if key in report else "–" for key in ("s_backlit", "s_enhanced", "s_welllit")
            ]
            lines.append(
                f"| `{name}`, {report['phase']} | {100 * report['guidance_accuracy']:.1f} % | {' | '.join(scores)} |"
            )
    return "\n".join(lines)


def experiments() -> str:
    """Every run of the search, with what it changed from the one before."""
    runs = load("experiments")
    defaults = flat(
        TrainConfig.model_validate({"data": {"backlit_images_path": "-", "welllit_images_path": "-"}}).model_dump()
    )
    lines = [
        "| run | changed | PSNR / dB: start | best | at iteration | end | SSIM at best |",
        "|---|---|---|---|---|---|---|",
    ]
    before = None
    for entry in runs:
        settings = {**defaults, **entry["settings"]}  # early runs are older than some keys
        changed = [
            f"`{key.split('.', 1)[1]}` {value}"
            for key, value in sorted(entry["settings"].items())
            if before and value != before.get(key) and key not in SEARCH_LEAVES_OUT
        ]
        points = [f"{entry[name]['val_psnr']:.2f}" for name in ("start", "best", "end")]
        points.insert(2, f"{entry['best']['iteration']}")
        what = ", ".join(changed) or ("–" if before else "(the first run)")
        lines.append(f"| {entry['run']} | {what} | {' | '.join(points)} | {entry['best']['val_ssim']:.3f} |")
        before = settings
    return "\n".join(lines)


def bias() -> str:
    """What each direction of the two folders answers to."""
    result = load("bias_experiment")
    lines = ["| space | direction | response to light | to content (± standard error) | content / light |"]
    lines.append("|---|---|---|---|---|")
    for name, row in result["rows"].items():
        light, content = row["light_response"], row["content_response"]
        cells = [row["layers"], name.split(": ", 1)[1], f"{light:+.3f}"]
        cells += [f"{content:+.3f} ± {row['content_error']:.3f}", f"{content / light:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    settings, shown = result["settings"], result["shown"]
    share = {side: f"{100 * shown[side]['animals']:.0f} %" for side in ("welllit", "backlit")}
    count = " and ".join(f"{number} photos of {group}" for group, number in settings["probes"].items())
    what = (
        f"{settings['photos']['backlit']} backlit and {settings['photos']['welllit']} well-lit photos, of which "
        f"{share['backlit']} and {share['welllit']} show animals; responses on {count} held back, EfficientNet-Lite0"
    )
    return "\n".join(lines) + f"\n\n{what}; `python -m lab.bias_experiment`, {measured_on(result)}."


def bias_networks() -> str:
    """What networks trained with these directions do to animals and to buildings of one luminance."""
    result = load("bias_experiment")
    groups = list(result["settings"]["probes"])
    lines = [
        f"| space | direction | seeds | {' | '.join(f'{group}: amplified / stops, brighter by' for group in groups)} |"
    ]
    lines[0] += " difference / stops | PSNR / dB of both | validation pairs: PSNR / dB, SSIM |"
    lines.append("|---|---|---|" + "---|" * (len(groups) + 3))
    for name, row in result["rows"].items():
        done = [seed for seed in row.get("trained", {}).values() if "broke" not in seed]
        if not done:
            continue
        means = {
            key: [_mean([seed[group][key] for seed in done]) for group in groups] for key in ("stops", "change", "psnr")
        }
        cells = [f"{stops:.2f}, {change:+.3f}" for stops, change in zip(means["stops"], means["change"], strict=True)]
        error = _mean([sum(seed[group]["stops_error"] ** 2 for group in groups) ** 0.5 for seed in done])
        cells.append(f"{means['stops'][0] - means['stops'][1]:+.2f} ± {error:.2f}")
        cells.append(", ".join(f"{psnr:.2f}" for psnr in means["psnr"]))
        last = [seed["validation"] for seed in done]
        cells.append(f"{_mean([v['val_psnr'] for v in last]):.2f}, {_mean([v['val_ssim'] for v in last]):.3f}")
        seeds = f"{len(done)} of {len(row['trained'])}"
        lines.append(f"| {row['layers']} | {name.split(': ', 1)[1]} | {seeds} | {' | '.join(cells)} |")
    settings = result["settings"]
    what = (
        f"{settings['iterations']} iterations at {settings['side']} px; photos held back, all of a mean linear "
        f"luminance of {settings['luminance']['dark']:g}; ±: standard error over photos"
    )
    return "\n".join(lines) + f"\n\n{what}; `python -m lab.bias_experiment`, {measured_on(result)}."


def mini_clip() -> str:
    """What the shipped mini-clip knows of photos that it was not trained on: things, things in a light, light."""
    result = load("mini_clip")
    figures = result["figures"]
    lines = ["| caption | share that is nearer to photos of its thing and light than to photos of |", "|---|---|"]
    shown = figures["things_in_light"]
    for said in ("backlit", "well-lit"):
        parts = [f"{what}: {100 * row['hold'] / row['of']:.1f} % of {row['of']:,}" for what, row in shown[said].items()]
        lines.append(f"| a photo of a …, {said} | {'; '.join(parts)} |")
    counts = ", ".join(f"{name} {number}" for name, number in shown["photos"].items())
    lines += ["", "| its class among 1,000 | first | among five |", "|---|---|---|"]
    for name, row in figures["things"].items():
        if isinstance(row, dict):
            lines.append(f"| {name} | {100 * row['first_1']:.0f} % | {100 * row['first_5']:.0f} % |")
    lines += ["", f"| stops | {' | '.join(figures['response'])} |", "|---|" + "---|" * len(figures["response"])]
    lines.append(f"| projection on r | {' | '.join(f'{value:.2f}' for value in figures['response'].values())} |")
    words, auc = (
        [f"{100 * figures[f'{what}_{of}']:.1f} %" for of in ("real", "simulated")]
        for what in ("zero_shot_accuracy", "residual_auc")
    )
    brighter = 100 * figures["share_of_dark_photos_whose_gradient_brightens"]
    notes = (
        f"Photos of each thing: {counts}. Classes: of {figures['things']['photos']} photos that the classifier is sure "
        f'of. "A backlit photo" against "a well-lit photo": {words[0]} of photos correct, {words[1]} where the backlit '
        f"ones are simulated. r (set point {figures['target']:.2f}) ranks a well-lit photo above a backlit one in "
        f"{auc[0]} and {auc[1]} of pairs. Cosine of the two mean embeddings: {figures['cosine_of_means']:.2f}. Mean "
        f"error of exposure estimates: {figures['exposure_error_stops']:.2f} stops. The gradient of r brightens "
        f"{brighter:.0f} % of photos darkened by two stops."
    )
    return "\n".join(lines) + f"\n\n{notes} `python -m lab.train_mini_clip`, {measured_on(result)}."


def formats() -> str:
    """What is kept of a photo in each format: in reading, and after the comma in writing."""
    rows = load("formats")["rows"]
    words = {"yes": "yes", "no": "no", "8 bit": "at 8 bits", "-": "–"}
    properties = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(properties) + " |", "|---|" + "---|" * len(properties)]
    for name, row in rows.items():
        written = any(cell["written"] != "-" for cell in row.values())
        cells = []
        for cell in row.values():
            read, out = words[cell["read"]], words[cell["written"]]
            cells.append(read if not written or read == out else f"{read}, {out}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    note = (
        "What is kept when a photo is read; after a comma, when it is written, where that differs (only PNG, TIFF, "
        "JPEG and WebP are written). Profiles are converted: results are sRGB. Measured with files from other encoders "
        "and against other decoders: `python -m lab.formats`,"
    )
    return "\n".join(lines) + f"\n\n{note} {measured_on(load('formats'))}."


def rooms() -> str:
    """Packages with their sizes."""
    [(commit, found)] = load("rooms").items()
    lines = ["| package | files | lines | longest file |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {row['files']} | {row['lines']:,} | {row['longest']} |" for name, row in found["rooms"].items()
    ]
    upward = sum(len(row["upward"]) for row in found["rooms"].values())
    circles = len(found["circles"])
    return "\n".join(lines) + f"\n\nImports upward: {upward}; circles: {circles}; `python -m lab.rooms {commit[:8]}`."


TABLES = {
    "reliability": lambda: reliability(load("chaos"), each_measured_on),
    "formats": formats,
    "rooms": rooms,
    "experiments": experiments,
    "speed": lambda: bench.speed(cases("inference"), each_measured_on),
    "previews": lambda: bench.previews(cases("inference"), measured_on),
    "int8": lambda: bench.int8(load("int8"), measured_on),
    "training_speed": lambda: "\n\n".join(bench.training_speed(cases("training"), each_measured_on)),
    "network": lambda: bench.network(cases("network"), each_measured_on),
    "layers": lambda: targets.layers(cases("network"), measured_on),
    "targets": lambda: targets.targets(load("bench"), each_measured_on),
    "gpu": lambda: bench.gpu(cases("gpu"), each_measured_on),
    "growth": lambda: bench.growth(cases("growth"), each_measured_on),
    "quickstart": quickstart,
    "weights": weight_tables.weights,
    "seeds": weight_tables.seeds,
    "harm": weight_tables.harm,
    "goals": weight_tables.goals,
    "limits": weight_tables.limits,
    "dim_or_dark": weight_tables.dim_or_dark,
    "mixing": weight_tables.mixing,
    "rule": weight_tables.rule,
    "finish": finish,
    "summary": weight_tables.summary,
    "guidance_cache": guidance_cache,
    "compare": compare,
    "training": training,
    "bias": bias,
    "bias_networks": bias_networks,
    "mini_clip": mini_clip,
    "guidance": guidance,
    "offline": offline,
    "free_photos": free_photos,
    "claims": claims,
    "schedules": lambda: schedules.table(load("schedules"), runs_on),
    "published_lengths": lambda: schedules.published_table(
        load("schedules"), {name: load(f"{name}_full_size_encoders") for name in ("clip_lit", "rave")}
    ),
}
