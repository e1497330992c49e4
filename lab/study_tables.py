"""Tables of what was studied: guidance, directions, encoders, the search for weights."""

from configs.changes import flat
from configs.schema import TrainConfig
from lab.sources import load, measured_on, runs_on

SEARCH_LEAVES_OUT = {  # settings of the search that say little about a result; all are in experiments.json
    *("train.num_iters", "train.val_iter", "unet_model.batch_size", "unet_model.display_iter", "unet_model.ema"),
    *("unet_model.load_pretrain", "unet_model.pretrain_dir", "clip.guidance.pretrained"),
}
CLIP_LIT_RUNS = ("clip_lit_unpaired", "clip_lit_latent_unpaired", "clip_lit_latent_unpaired_again")


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


def _score(point: dict, suffix: str = "") -> str:
    return f"{point[f'val_psnr{suffix}']:.2f}, {point[f'val_ssim{suffix}']:.3f}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
