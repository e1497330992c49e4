"""The tables of the documents, each a function of the JSON files in docs/results/: no number is typed by hand."""

import json

from common.paths import REPO_ROOT
from configs.changes import flat
from configs.schema import TrainConfig
from lab import schedules
from lab.bench import table as bench
from lab.chaos.table import reliability
from lab.free_photos import sources
from metrics.choice import LIMITS, VALIDATION

RESULTS = REPO_ROOT / "docs" / "results"
BUSY = 1.5  # load a core, above which other work ran beside a measurement; its times are long, their ratios hold
SHIPPED = (
    *("start", "rave_weights", "rave_weights_seed0", "rave_weights_seed1", "rave_weights_paired"),
    *("backlit", "backlit_seed0", "backlit_seed2", "free"),
)
CLIP_LIT_RUNS = ("clip_lit_unpaired", "clip_lit_latent_unpaired", "clip_lit_latent_unpaired_again")


def quickstart() -> str:
    result = _read("quickstart")
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
    return "\n".join(lines) + f"\n\n`make demo`, {mean['seconds']:.0f} s after set-up, {_where(result)}."


def weights() -> str:
    result = _read("weights")
    columns = {"pairs_validation": "validation", "pairs_test": "test", "backlit": "backlit ones of both"}
    groups = [group for group in columns if group in result["pairs"]]
    parts = {"stay_dark": "dim on purpose", "stay_other": "well lit", "well-lit": "well lit"}
    parts = {part: parts[part] for part in parts if part in result["well_lit_photos"]}
    heads = [f"{columns[group]} ({result['pairs'][group]}): PSNR / dB, SSIM" for group in groups]
    heads += ["newly clipped", *(f"change, {what} ({result['well_lit_photos'][p]})" for p, what in parts.items())]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name, row in result["rows"].items():
        cells = [f"{row[group]['psnr']:.2f}, {row[group]['ssim']:.3f}" for group in groups]
        cells.append(f"{100 * row['all']['clipped']:.2f} %")
        for part in parts:
            change = row.get(f"change, {part}")
            most = f", to {change['largest']:.3f}" if change and "largest" in change else ""
            cells.append(f"{change['mean']:.3f}{most}" if change else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    picked = result.get("picked")
    notes = (
        "Exposure pairs held back by scene, full size, protocol `rgb`. Newly clipped: pixels with a channel at "
        "255 that had none. Change: mean absolute, and the largest, of photos that should stay as they are."
    )
    notes += f" The rule below picks {picked}." if picked else ""
    return "\n".join(lines) + f"\n\n{notes} {_where(result)}; command: in [weights.json](results/weights.json)."


HARM = {"largest_jump": "jump", "fall": "fall", "region_lift": "lift", "sky_change": "sky", "noise_gain": "noise"}


def harm() -> str:
    """The figures of harm beside the scores, of rows that have them."""
    result = _read("weights")
    rows = {name: row for name, row in result["rows"].items() if "probes" in row}
    if not rows:
        return "Not measured yet."
    lines = [f"| | hue | {' | '.join(HARM.values())} | s/MP |", "|---|" + "---|" * (len(HARM) + 2)]
    for name, row in rows.items():
        figures = [row["probes"][key] for key in HARM]
        cells = ["–" if value is None else f"{value:.3f}" for value in figures]
        whole = row["all"]
        lines.append(
            f"| {name} | {whole['hue_error']:.1f}° | {' | '.join(cells)} | {whole['seconds_per_megapixel']:.2f} |"
        )
    note = "What they are: [measure](measure.md#harm). Seconds: fp32 on one thread, beside other work."
    return "\n".join(lines) + f"\n\n{note} {_where(result)}."


def finish() -> str:
    """What the choices of `serving.finish` do."""
    result = _read("finish")
    lines = ["| | PSNR / dB, SSIM | hue turned, where a channel passes white | newly clipped |", "|---|---|---|---|"]
    for kind, row in result["highlights"].items():
        cells = f"{row['psnr']:.2f}, {row['ssim']:.3f} | {row['hue_turned']:.1f}° | {100 * row['clipped']:.2f} %"
        lines.append(f"| `--highlights {kind}` | {cells} |")
    noise, real, dither = result["noise"], result["real"], result["dither"]
    lines += ["", "| | without | with |", "|---|---|---|"]
    for what, before, after in (
        ("`--denoise auto`: PSNR of darkened, noisy photos / dB", noise["psnr_off"], noise["psnr_auto"]),
        ("`--denoise auto`: jump of colour at JPEG's blocks in the shadows of real dark photos, steps of 8 bits",
         real["blotches_off"], real["blotches_auto"]),
        ("`--denoise auto`: share of the fine luma there that stays", 1.0, real["fine_kept"]),
        ("`--dither`: longest run of equal values in a dark ramp made 6 times brighter / px",
         dither["run_off"], dither["run_on"]),
        ("`--dither`: mean of that ramp, steps of 8 bits", dither["mean_off"], dither["mean_on"]),
    ):  # fmt: skip
        lines.append(f"| {what} | {before:.4g} | {after:.4g} |")
    cast, halo = result["cast"], result["halo"]
    found = (
        f"Colour casts of shadows: their mean chroma is {cast['shadows']:.3f} of full scale away from the ground "
        f"truth's, elsewhere {cast['elsewhere']:.3f}. Halos: beside an edge between 0.08 and 0.85 the result leaves "
        f"its level by at most {100 * halo['dark_side']:.1f} % on the dark side, {100 * halo['bright_side']:.1f} % on "
        f"the bright one. {result['photos']} validation pairs; `python -m lab.finish`, {_where(result)}."
    )
    return "\n".join(lines) + f"\n\n{found}"


def limits() -> str:
    """What the results would gain if something about each photo were known."""
    result = _read("limits")
    lines = ["| | PSNR / dB | SSIM |", "|---|---|---|"]
    lines += [f"| {name} | {psnr:.2f} | {ssim:.3f} |" for name, (psnr, ssim) in result["rows"].items()]
    return "\n".join(lines) + f"\n\n{result['pairs']} pairs, full size; `python -m lab.limits`, {_where(result)}."


def rule() -> str:
    """The limits of `metrics.choice` in words."""
    what = {"clipped": "newly clipped pixels", "mean": "mean change", "largest": "largest change"}
    where = {
        VALIDATION: "validation pairs",
        "change, stay_dark": "photos dim on purpose",
        "change, stay_other": "others",
    }
    lines = ["| | at most |", "|---|---|"]
    for (part, figure), most in LIMITS.items():
        limit = f"{100 * most:g} %" if figure == "clipped" else f"{most:g} of full scale"
        lines.append(f"| {what[figure]}, {where[part]} | {limit} |")
    return "\n".join(lines)


SUMMARY = {  # row of the weights' table -> how a newcomer knows it
    "untouched input": "the photo as it is",
    "gamma 2.2": "plain gamma 2.2",
    "CLAHE": "CLAHE",
    "computed start map": "the computed map our training starts from, no network",
    "clip_lit/enhancement_model": "CLIP-LIT, the authors' weights",
    "rave/rave_paired": "RAVE, the authors' weights (paired)",
    "start.safetensors (shipped)": "that map, learned by the network",
    "rave.safetensors (shipped)": "RAVE, unpaired, trained here from there",
    "backlit.safetensors (shipped)": "**the default weights shipped here**",
}


def summary() -> str:
    """The main rows of the weights' table."""
    result = _read("weights")
    lines = ["| | backlit photos: PSNR / dB, SSIM | photos dim on purpose: mean change |", "|---|---|---|"]
    for row, name in SUMMARY.items():
        test, change = result["rows"][row]["pairs_test"], result["rows"][row]["change, stay_dark"]
        lines.append(f"| {name} | {test['psnr']:.2f}, {test['ssim']:.3f} | {change['mean']:.3f} |")
    what = (
        f"{result['pairs']['pairs_test']} real exposure pairs of unseen scenes, 512 × 512, RGB; "
        f"{result['well_lit_photos']['stay_dark']} photos that should stay as they are; "
        "`python -m tools compare-weights`"
    )
    return "\n".join(lines) + f"\n\n{what}, {_where(result)}."


def guidance_cache() -> str:
    result = _read("guidance_cache")
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
    return "\n".join(lines) + f"\n\n{what}; {_where(result)}."


def compare() -> str:
    result = _read("compare")
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
    return "\n".join(lines) + f"\n\n{budget}; `make compare`, {result['seconds'] / 60:.0f} min, {_where(result)}."


def training() -> str:
    lines = [
        (
            "| run | validation PSNR / dB, SSIM: untouched | best snapshot | best by validation | iterations | "
            "minutes | on | commit |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("rave_unpaired", *CLIP_LIT_RUNS, *SHIPPED):
        run = _read(name)
        best, val = run["summary"]["best"], run["summary"]["best_val"]
        cells = [f"{best['val_psnr_input']:.2f}, {best['val_ssim_input']:.3f}"]
        cells += [f"{v['val_psnr']:.2f}, {v['val_ssim']:.3f}" for v in (best, val)]
        seconds = run["summary"].get("seconds")
        cells += [
            f"{run['summary']['iterations']}",
            "–" if seconds is None else f"{seconds / 60:.0f}",
            _device(run["provenance"]),
            _commit(run["provenance"]),
        ]
        lines.append(f"| [`{name}`](results/{name}.json) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\nConfig, commit and command are in each JSON."


def free_photos() -> str:
    """What `free.safetensors` was trained on: makers and terms."""
    lines = ["| photo | by | terms | from |", "|---|---|---|---|"]
    lines += [f"| {row['name']} | {row['maker']} | {row['licence']} | {row['package']} |" for row in sources()]
    return "\n".join(lines)


def offline() -> str:
    """The shipped configs with a real encoder, three seeds each."""
    rows = _read("claims")
    lines = [
        "| config | seed | untouched | last snapshot | best of the run | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("paired", "relit"):
        for seed, row in sorted(rows.get(f"offline/{name}", {}).items()):
            shown = [_score(row["input"], "_input"), _score(row["last"]), _score(row["best"])]
            seconds = f"{row['last']['seconds']:.0f}"
            lines.append(f"| `rave_{name}_offline.yaml` | {seed} | {' | '.join(shown)} | {seconds} |")
    return "\n".join(lines) + f"\n\nPSNR / dB, SSIM of 13 validation pairs at 128 px, from a map of 1. {_sources(rows)}"


def claims() -> str:
    """What guides, in which space, towards which set point."""
    rows = _read("claims")
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
    return "\n".join(lines) + f"\n\nValidation pairs as above. {_sources(rows)}"


def _score(point: dict, suffix: str = "") -> str:
    return f"{point[f'val_psnr{suffix}']:.2f}, {point[f'val_ssim{suffix}']:.3f}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _sources(rows: dict, name: str = "claims") -> str:
    """Hardware and commits of the runs in a JSON file of `docs/results/`."""
    runs = [row for seeds in rows.values() for row in seeds.values() if "hardware" in row]
    devices = sorted({f"{run['hardware']['cores']} cores of {run['hardware']['processor']}" for run in runs})
    commits = sorted({_commit(run) for run in runs})
    where = "; ".join(devices)
    return (
        f"{where}, commit {', '.join(commits)}; curves and commands: [docs/results/{name}.json](results/{name}.json)."
    )


def guidance() -> str:
    """What the learned guidance of the CLIP-LIT runs can do, phase by phase."""
    lines = [
        "| run, after | accuracy on held-back photos | S: backlit | enhanced | well-lit |",
        "|---|---|---|---|---|",
    ]
    for name in CLIP_LIT_RUNS:
        for report in _read(name)["guidance"]:
            scores = [
                f"{report[key]:.3f}" if key in report else "–" for key in ("s_backlit", "s_enhanced", "s_welllit")
            ]
            lines.append(
                f"| `{name}`, {report['phase']} | {100 * report['guidance_accuracy']:.1f} % | {' | '.join(scores)} |"
            )
    return "\n".join(lines)


def experiments() -> str:
    """Every run of the search, with what it changed from the first one."""
    runs = _read("experiments")
    defaults = flat(
        TrainConfig.model_validate({"data": {"backlit_images_path": "", "welllit_images_path": ""}}).model_dump()
    )
    first = {**defaults, **runs[0]["settings"]}  # the first run is older than some keys
    lines = [
        "| run | changed | PSNR / dB: start | best | at iteration | end | SSIM at best |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in runs:
        settings = entry["settings"]
        changed = [
            f"`{key.split('.', 1)[1]}` {value}" for key, value in sorted(settings.items()) if value != first.get(key)
        ]
        points = [f"{entry[name]['val_psnr']:.2f}" for name in ("start", "best", "end")]
        points.insert(2, f"{entry['best']['iteration']}")
        lines.append(
            f"| {entry['run']} | {', '.join(changed) or '(the first run)'} | {' | '.join(points)} | "
            f"{entry['best']['val_ssim']:.3f} |"
        )
    return "\n".join(lines)


def bias() -> str:
    """What each direction of the two folders answers to."""
    result = _read("bias_experiment")
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
    return "\n".join(lines) + f"\n\n{what}; `python -m lab.bias_experiment`, {_where(result)}."


def bias_networks() -> str:
    """What networks trained with these directions do to animals and to buildings of one luminance."""
    result = _read("bias_experiment")
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
    return "\n".join(lines) + f"\n\n{what}; `python -m lab.bias_experiment`, {_where(result)}."


def mini_clip() -> str:
    """What the shipped mini-clip knows of photos that it was not trained on: things, things in a light, light."""
    result = _read("mini_clip")
    figures = result["figures"]
    lines = ["| caption | nearer to photos of that thing and light than to others of |", "|---|---|"]
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
        f'of. "A backlit photo" against "a well-lit photo": {words[0]} of photos right, {words[1]} where the backlit '
        f"ones are simulated; r (set point {figures['target']:.2f}) ranks a well-lit photo above a backlit one in "
        f"{auc[0]} and {auc[1]} of pairs; cosine of both means {figures['cosine_of_means']:.2f}; exposure read off "
        f"with a mean error of {figures['exposure_error_stops']:.2f} stops; r asks for more light on {brighter:.0f} % "
        "of photos darkened by two stops."
    )
    return "\n".join(lines) + f"\n\n{notes} `python -m lab.train_mini_clip`, {_where(result)}."


def residual_speed() -> str:
    result = _read("residual_speed")
    seconds, times = result["seconds"], result["times_faster"]
    rows = [
        (f"{result['photos']} photos", seconds["batched: photos"], seconds["one by one: photos"], times["photos"]),
        (
            f"{result['tokens']:,} tokens",
            seconds["batched: tokens"],
            seconds["one by one: tokens, padded"],
            times["tokens"],
        ),
    ]
    lines = ["| | batched | one by one, as in the release | times faster |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {batch['wall']:.0f} s | {alone['wall']:.0f} s | {faster:.1f} |"
        for name, batch, alone, faster in rows
    ]
    total = [sum(row[column]["wall"] for row in rows) for column in (1, 2)]
    lines.append(f"| together | {total[0]:.0f} s | {total[1]:.0f} s | {times['all']:.1f} |")
    sampled = result["sampled"]
    what = (
        f"mini-clip, no caches; one by one: measured on {sampled['photos']} photos and {sampled['tokens']} "
        "tokens and scaled up"
    )
    return (
        "\n".join(lines)
        + f"\n\n{what}; `python -m lab.residual_speed`, {_where(result)}. Later runs find both in the cache."
    )


def formats() -> str:
    """What is kept of a photo in each format: in reading, and after the comma in writing."""
    rows = _read("formats")["rows"]
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
        "What is kept when a photo is read; after a comma, when it is written, where that differs (PNG, TIFF, JPEG and "
        "WebP are written). Measured by `python -m lab.formats` on files of other encoders, against other decoders. "
        "Profiles are converted: results are sRGB."
    )
    return "\n".join(lines) + f"\n\n{note} {_where(_read('formats'))}."


def rooms() -> str:
    """Rooms with their sizes."""
    [(commit, found)] = _read("rooms").items()
    lines = ["| room | files | lines | longest file |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {row['files']} | {row['lines']:,} | {row['longest']} |" for name, row in found["rooms"].items()
    ]
    upward = sum(len(row["upward"]) for row in found["rooms"].values())
    circles = len(found["circles"])
    return "\n".join(lines) + f"\n\nImports upward: {upward}; circles: {circles}; `python -m lab.rooms {commit[:8]}`."


TABLES = {
    "reliability": lambda: reliability(_read("chaos"), _wheres),
    "formats": formats,
    "rooms": rooms,
    "experiments": experiments,
    "speed": lambda: bench.speed(_measured("inference"), _wheres),
    "previews": lambda: bench.previews(_measured("inference"), _where),
    "int8": lambda: bench.int8(_read("int8"), _where),
    "training_speed": lambda: "\n\n".join(bench.training_speed(_measured("training"), _wheres)),
    "network": lambda: bench.network(_measured("network"), _wheres),
    "layers": lambda: bench.layers(_measured("network"), _where),
    "growth": lambda: bench.growth(_measured("growth"), _wheres),
    "quickstart": quickstart,
    "weights": weights,
    "harm": harm,
    "limits": limits,
    "rule": rule,
    "finish": finish,
    "summary": summary,
    "guidance_cache": guidance_cache,
    "compare": compare,
    "training": training,
    "bias": bias,
    "bias_networks": bias_networks,
    "mini_clip": mini_clip,
    "residual_speed": residual_speed,
    "guidance": guidance,
    "offline": offline,
    "free_photos": free_photos,
    "claims": claims,
    "schedules": lambda: schedules.table(_read("schedules"), _sources),
    "published_lengths": lambda: schedules.published_table(
        _read("schedules"), {name: _read(f"{name}_full_size_encoders") for name in ("clip_lit", "rave")}
    ),
}


def _read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _measured(kind: str) -> dict:
    """The cases of `make bench`: "inference", "training", "network" or "growth"."""
    return json.loads((RESULTS / "bench.json").read_text(encoding="utf-8")).get(kind, {})


def _where(result: dict) -> str:
    if "measured" in result:  # rows of several runs of the command
        return _wheres(result["measured"])
    return f"{_device(result)}, commit {_commit(result)}"


def _wheres(cases: dict) -> str:
    """Of cases that may have been measured one by one."""
    devices = dict.fromkeys(_device(case) for case in cases.values())
    commits = dict.fromkeys(_commit(case) for case in cases.values())
    return f"{'; '.join(devices)}, commit {', '.join(commits)}"


def _commit(result: dict) -> str:
    return result["commit"][:8] + (" with uncommitted changes" if result["uncommitted_changes"] else "")


def _device(result: dict) -> str:
    hardware = result["hardware"]
    if hardware["gpu"]:
        return hardware["gpu"]
    bf16 = f" with {hardware['bf16']}" if hardware.get("bf16") else ""
    threads = result.get("OMP_NUM_THREADS")
    cores = f"{threads} of {hardware['cores']}" if threads else f"{hardware['cores']}"
    busy = ", beside other work" if result.get("load", 0) > BUSY * hardware["cores"] else ""
    return f"{cores} cores of {hardware['processor']}{bf16}{busy}"
