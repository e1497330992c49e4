"""The tables about weight files: scores, harm, targets, what limits the score."""

from lab.sources import load, measured_on
from metrics.choice import LIMITS, VALIDATION

SEED = ", seed "  # in the names of rows that repeat a training


def weights() -> str:
    """Scores and changes of all weights but those that repeat a training with another seed."""
    return _scores({name: row for name, row in load("weights")["rows"].items() if SEED not in name}, whole=True)


def seeds() -> str:
    """The same of trainings that were repeated."""
    return _scores({name: row for name, row in load("weights")["rows"].items() if SEED in name}, whole=False)


def _scores(rows: dict[str, dict], whole: bool) -> str:
    result = load("weights")
    columns = {"pairs_validation": "validation", "pairs_test": "test", "backlit": "backlit ones of both"}
    groups = [group for group in columns if group in result["pairs"]]
    parts = {"stay_dark": "dim on purpose", "low key": "low key", "stay_other": "well lit"}
    parts = {part: parts[part] for part in parts if part in result["well_lit_photos"]}
    heads = [f"{columns[group]} ({result['pairs'][group]}): PSNR / dB, SSIM" for group in groups]
    heads += ["newly clipped", *(f"change, {what} ({result['well_lit_photos'][p]})" for p, what in parts.items())]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name, row in rows.items():
        cells = [f"{row[group]['psnr']:.2f}, {row[group]['ssim']:.3f}" for group in groups]
        cells.append(f"{100 * row['all']['clipped']:.2f} %")
        for part in parts:
            change = row.get(f"change, {part}")
            most = f", to {change['largest']:.3f}" if change and "largest" in change else ""
            cells.append(f"{change['mean']:.3f}{most}" if change else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if not whole:
        return "\n".join(lines) + f"\n\n{measured_on(result, rows)}."
    notes = (
        "Exposure pairs held back by scene, at full size, protocol `rgb`. Newly clipped: share of pixels with a "
        "channel at 255 where the input has none. Change: mean absolute change of photos that should stay as they "
        "are, and the largest of one photo; low key: dark parts of such photos."
    )
    return (
        "\n".join(lines) + f"\n\n{notes} {measured_on(result, rows)}; command: in [weights.json](results/weights.json)."
    )


HARM = {"largest_jump": "jump", "fall": "fall", "region_lift": "lift", "sky_change": "sky", "noise_gain": "noise"}


def harm() -> str:
    """The figures of harm beside the scores, of rows that have them."""
    result = load("weights")
    rows = {name: row for name, row in result["rows"].items() if "probes" in row and SEED not in name}
    if not rows:
        return "Not measured yet."
    heads = ["hue", *HARM.values(), "clipped, backlit ones", "dim photos changed", "s/MP"]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name, row in rows.items():
        figures = [row["probes"][key] for key in HARM]
        cells = ["–" if value is None else f"{value:.3f}" for value in figures]
        cells = [f"{row['all']['hue_error']:.1f}°", *cells, f"{100 * row['backlit']['clipped']:.2f} %"]
        dim = row.get("change, stay_dark")
        cells.append(f"{100 * dim['share_above_0.05']:.0f} %" if dim else "–")
        lines.append(f"| {name} | {' | '.join(cells)} | {row['all']['seconds_per_megapixel']:.2f} |")
    note = "Definitions: [measure](measure.md#harm). s/MP: seconds per megapixel, fp32, one thread, shared machine."
    return "\n".join(lines) + f"\n\n{note} {measured_on(result, rows)}."


DEFAULT, RAVE = "backlit.safetensors (shipped)", "rave.safetensors (shipped)"


def goals() -> str:
    """The targets for the weights, and what was reached."""
    rows = load("weights")["rows"]
    default, rave = rows[DEFAULT], rows[RAVE]
    seeds = [rows[f"backlit{SEED}{seed}"]["all"]["psnr"] for seed in range(3)]
    dim, other, probes = default["change, stay_dark"], default["change, stay_other"], default["probes"]
    clipped = [f"{100 * default[part]['clipped']:.2f} %" for part in ("all", "backlit", "pairs_test, backlit")]

    def score(row: dict) -> str:
        return f"{row['psnr']:.2f}, {row['ssim']:.3f}"

    lines = ["| | target | reached |", "|---|---|---|"]
    lines += [
        f"| {what} | {target} | {reached} |"
        for what, target, reached in (
            ("default weights, all 26 pairs: PSNR / dB, SSIM", "24.0, 0.860", score(default["all"])),
            ("default weights, backlit ones: PSNR / dB", "23.5", f"{default['backlit']['psnr']:.2f}"),
            ("`rave.safetensors`, all 26 pairs", "22.5, 0.840", score(rave["all"])),
            ("newly clipped: all; backlit ones; backlit test ones", "1 %", "; ".join(clipped)),
            ("change of photos dim on purpose, mean", "0.030", f"{dim['mean']:.3f}"),
            ("change of photos dim on purpose, largest", "0.100", f"{dim['largest']:.3f}"),
            ("change of well-lit photos, mean", "0.015", f"{other['mean']:.3f}"),
            ("range of PSNR over three seeds / dB", "0.3", f"{max(seeds) - min(seeds):.2f}"),
            ("a photo darkened in 30 steps: how much brighter its result gets", "0", f"{probes['fall']:.3f}"),
            ("sky of simulated backlight: change", "0", f"{probes['sky_change']:.3f}"),
        )
    ]
    return "\n".join(lines) + f"\n\n{measured_on(load('weights'), (DEFAULT, RAVE))}."


def mixing() -> str:
    """Mixtures of a training like the default's with what it went on from."""
    result = load("mixing")
    lines = [
        "| share of `rave.safetensors` | validation: PSNR / dB, SSIM | backlit ones: PSNR / dB | newly clipped "
        "| change, dim on purpose | change, well lit | lift | sky |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        part, dim, probes = row[VALIDATION], row["change, stay_dark"], row.get("probes")
        cells = [
            f"{part['psnr']:.2f}, {part['ssim']:.3f}",
            f"{row['backlit']['psnr']:.2f}",
            f"{100 * part['clipped']:.2f} %",
            f"{dim['mean']:.3f}, to {dim['largest']:.4f}",
            f"{row['change, stay_other']['mean']:.3f}",
            *(f"{probes[key]:.2f}" if probes else "–" for key in ("region_lift", "sky_change")),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return (
        "\n".join(lines)
        + f"\n\n{result['pairs']['all']} validation pairs; lift and sky are of these alone. {measured_on(result)}."
    )


def limits() -> str:
    """What the results would gain if something about each photo were known."""
    result = load("limits")
    lines = ["| | PSNR / dB | SSIM |", "|---|---|---|"]
    lines += [f"| {name} | {psnr:.2f} | {ssim:.3f} |" for name, (psnr, ssim) in result["rows"].items()]
    told = ", ".join(
        f"{f'{100 * share:.0f} %' if share > 0 else 'none'} from its {name}" for name, share in result["told"].items()
    )
    told = f" Share of the variance of a result's missing exposure that a regression explains: {told}."
    where = f"`python -m lab.limits`, {measured_on(result)}"
    return "\n".join(lines) + f"\n\n{result['pairs']} pairs, full size.{told} {where}."


def dim_or_dark() -> str:
    """How well directions tell what is dim on purpose from what is too dark."""
    result = load("dim_or_dark")
    sources = list(result["ranked"])
    lines = [f"| direction | {' | '.join(sources)} |", "|---" * (len(sources) + 1) + "|"]
    lines += [
        f"| {direction} | {' | '.join(f'{found[source]:.2f}' for source in sources)} |"
        for direction, found in result["rows"].items()
    ]
    ranked = "; ".join(f"{n['dim']} dim and {n['dark']} too dark" for n in result["ranked"].values())
    return (
        "\n".join(lines)
        + f"\n\nAUC, 0.5 is chance. Parts ranked: {ranked}. `python -m lab.dim_or_dark`, {measured_on(result)}."
    )


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
    "untouched input": "untouched input",
    "gamma 2.2": "gamma 2.2",
    "clip_lit/enhancement_model": "CLIP-LIT, the authors' weights",
    "rave/rave_paired": "RAVE (paired), the authors' weights",
    "computed start map": "start map: a formula, no network",
    RAVE: "`rave.safetensors`: RAVE, unpaired, from the start map on",
    DEFAULT: "**`backlit.safetensors`, the default**",
}


def summary() -> str:
    """The main rows of the weights' table."""
    result = load("weights")
    pairs = result["pairs"]
    heads = [
        f"{pairs['pairs_test']} test pairs: PSNR / dB, SSIM",
        f"{pairs['backlit']} backlit pairs: PSNR / dB",
        f"{result['well_lit_photos']['stay_dark']} photos dim on purpose: mean change",
    ]
    lines = [f"| | {' | '.join(heads)} |", "|---|---|---|---|"]
    for row, name in SUMMARY.items():
        of = result["rows"][row]
        test, backlit, change = of["pairs_test"], of["backlit"]["psnr"], of["change, stay_dark"]["mean"]
        lines.append(f"| {name} | {test['psnr']:.2f}, {test['ssim']:.3f} | {backlit:.2f} | {change:.3f} |")
    what = (
        "Exposure pairs of scenes that no training here has seen, protocol `rgb`; the backlit pairs are from "
        "validation and test. Mean change: of full scale, 0 is best. `python -m tools compare-weights`"
    )
    return "\n".join(lines) + f"\n\n{what}; hardware and commits: [docs/results.md](docs/results.md)."
