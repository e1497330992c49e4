"""The tables of the documents, each a function of the JSON files in docs/results/: no number is typed by hand."""

from lab import schedules, study_tables, weight_tables
from lab.bench import table as bench
from lab.bench import targets
from lab.chaos.table import reliability
from lab.free_photos import sources
from lab.sources import cases, commit_of, device_of, each_measured_on, load, measured_on, runs_on

SHIPPED = (
    *("start", "rave_weights", "rave_weights_seed0", "rave_weights_seed1", "rave_weights_paired"),
    *("backlit", "backlit_seed0", "backlit_seed2", "backlit_900", "backlit_low_key", "free"),
)


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
    for name in ("rave_unpaired", *study_tables.CLIP_LIT_RUNS, *SHIPPED):
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
    "experiments": study_tables.experiments,
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
    "guidance_cache": study_tables.guidance_cache,
    "compare": compare,
    "training": training,
    "bias": study_tables.bias,
    "bias_networks": study_tables.bias_networks,
    "mini_clip": study_tables.mini_clip,
    "guidance": study_tables.guidance,
    "offline": study_tables.offline,
    "free_photos": free_photos,
    "claims": study_tables.claims,
    "schedules": lambda: schedules.table(load("schedules"), runs_on),
    "published_lengths": lambda: schedules.published_table(
        load("schedules"), {name: load(f"{name}_full_size_encoders") for name in ("clip_lit", "rave")}
    ),
}
