"""The tables of docs/performance.md, each a function of what `lab.bench` and `lab.int8` wrote."""

import statistics
from collections.abc import Callable

from lab.bench.gpu import WARM

STRAIGHT = 0.9  # R² of a line, below which its slope says nothing
Wheres = Callable[[dict], str]  # cases -> hardware and commits, in words


def by_processor(cases: dict) -> list[dict]:
    """The cases of each processor by themselves: seconds of two are not compared."""
    names = dict.fromkeys(case["hardware"]["processor"] for case in cases.values())
    return [{n: case for n, case in cases.items() if case["hardware"]["processor"] == name} for name in names]


def speed(cases: dict, wheres: Wheres) -> str:
    """Of inference, a table for each processor."""
    return "\n\n".join(_speed(group, wheres) for group in by_processor(cases))


def _speed(cases: dict, wheres: Wheres) -> str:
    names = {
        "0.5": "network, {:.1f} megapixels",
        "3": "network, {:.1f} megapixels",
        "png0.5": "photo of a folder, {:.1f} megapixels",
        "png3": "photo of a folder, {:.1f} megapixels",
        "photo": "one photo, {:.1f} megapixels",
        "24": "one photo, {:.0f} megapixels",
        "folder": "50 small photos, {:.0f} megapixels in all",
    }
    cases = {name.format(cases[case]["megapixels"]): cases[case] for case, name in names.items() if case in cases}
    ways = ("baseline", "fp32", "torch", "openvino")
    lines = ["| | plain PyTorch, whole frame | PyTorch fp32 | PyTorch | OpenVINO |", "|---|---|---|---|---|"]
    for name, case in cases.items():
        lines.append(f"| {name} | {' | '.join(_speed_cell(case['rows'].get(way), case['rows']) for way in ways)} |")
    psnr = lowest_psnr(cases)
    close = f" PSNR to the plain way's results: {int(psnr)} dB or more." if psnr else ""
    notes = f"Seconds (times as fast), peak memory of the process.{close} `make bench`, {wheres(cases)}."
    return "\n".join(lines) + f"\n\n{notes}"


def lowest_psnr(cases: dict) -> float | None:
    """Of all rows that were compared with the plain way's results."""
    return min(
        (row["psnr"] for case in cases.values() for row in case["rows"].values() if row.get("psnr")), default=None
    )


TRAININGS = {
    "rave256": "RAVE step, {side} px, batch {batch}",
    "rave512": "RAVE step, {side} px, batch {batch}",
    "lite256": "RAVE step with {encoders[0]}, {side} px, batch {batch}",
    "guidance": "prompt initialisation step, batch {batch}",
    "residual": "residual vector, {detail[photos]} photos and {detail[tokens]:,} tokens",
}
WAYS = {
    "baseline": "the authors'",
    "fp32": "fp32",
    "compiled": "fp32, compiled",
    "bf16": "bf16",
    "bf16_compiled": "bf16, compiled",
    "fastest": "all in bf16",
    "batched": "batched",
    "cached": "cached embeddings",
}


def training_speed(cases: dict, wheres: Wheres) -> list[str]:
    """Two tables of the training cases of `docs/results/bench.json`, as far as they are there: the ways of each, and
    two processes.
    """
    tables = []
    for measured in by_processor({name: case for name, case in cases.items() if name in TRAININGS}):
        lines = ["| training | way | s | times as fast | memory | GFLOP/s, a matrix product's | loss differs by |"]
        lines += ["|---|---|---|---|---|---|---|"]
        measured = {TRAININGS[name].format(**measured[name]): measured[name] for name in TRAININGS if name in measured}
        for name, case in measured.items():
            ways = [way for way in WAYS if way in case["rows"]]
            for way in ways:
                cells = [name if way == ways[0] else "", WAYS[way], *_training_cells(case["rows"][way])]
                lines.append(f"| {' | '.join(cells)} |")
        notes = "Memory: the largest of the process. Loss: its largest relative difference from the authors' in a step"
        for case in measured.values():
            if "detail" in case:
                sampled = case["detail"]["sampled"]
                notes += f"; the authors' way to the residual vector is scaled up from {sampled['photos']} photos "
                notes += f"and {sampled['tokens']} tokens"
        tables.append("\n".join(lines) + f"\n\n{notes}; `make bench`, {wheres(measured)}.")
    if "scaling" in cases:
        scaling = cases["scaling"]
        lines = ["| | 1 process | 2 processes | times as fast | equal results |", "|---|---|---|---|---|"]
        names = {
            "inference": f"`inference.py`, {scaling['photos']} photos, with start-up",
            "training": "RAVE step, quick-start config",
        }
        for job, what in names.items():
            one, two = (scaling["rows"][f"{job}, {n} processes"] for n in (1, 2))
            lines.append(
                f"| {what} | {one['median']:.2f} s | {two['median']:.2f} s | {two['ratio']:.2f} | {two['equal']} |"
            )
        tables.append(
            "\n".join(lines) + f"\n\nOne thread for each process; `make bench`, {wheres({'scaling': scaling})}."
        )
    return tables


def _training_cells(row: dict) -> list[str]:
    memory = f"{row['peak_mb'] / 1000:.1f} GB" if "peak_mb" in row else ""
    rate = f"{1000 * row['tflops']:,.0f} of {1000 * row['limit_tflops']:,.0f}" if "tflops" in row else ""
    seconds = f"{row['median']:.0f}" if row["median"] >= 100 else f"{row['median']:#.3g}"
    return [seconds, f"{row['ratio']:.1f}" if "ratio" in row else "", memory, rate, _difference(row)]


def _difference(row: dict) -> str:
    if "loss_agreement" not in row:
        return ""
    percent = 100 * row["loss_agreement"]
    return f"{percent:.2g} %" if percent >= 0.001 else "under 0.001 %"


def _speed_cell(row: dict | None, rows: dict) -> str:
    row = rows[row["same_as"]] if row and "same_as" in row else row
    if row is None:
        return "–"
    faster = f" ({row['ratio']:.1f}×)" if row.get("ratio") else ""
    return f"{row['median']:.2f}{faster}, {row['peak_mb'] / 1000:.1f} GB"


def network(cases: dict, wheres: Wheres) -> str:
    """The network beside its convolutions alone and beside a matrix product."""
    tables = []
    if "frame" in cases:
        case = cases["frame"]
        lines = ["| | s | GFLOP/s | a large matrix product |", "|---|---|---|---|"]
        for name, row in case["rows"].items():
            rates = f"{1000 * row['tflops']:.0f} | {1000 * row['limit_tflops']:.0f}"
            lines.append(f"| {name} | {row['median']:.3g} | {rates} |")
        what = f"The network alone, one photo of {case['width']} × {case['height']} pixels"
        tables.append("\n".join(lines) + f"\n\n{what}; `make bench`, {wheres({'frame': case})}.")
    if "unet256" in cases:
        case = cases["unet256"]
        lines = ["| | s | megapixels/s | times its convolutions alone |", "|---|---|---|---|"]
        for name, row in case["rows"].items():
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
            lines.append(f"| {name} | {row['median']:.3g} | {row['megapixels_per_second']:.2f} | {ratio} |")
        what = f"The network alone, forward and backward, {case['side']} px, batch {case['batch']}"
        tables.append("\n".join(lines) + f"\n\n{what}; `make bench`, {wheres({'unet256': case})}.")
    return "\n\n".join(tables) or "Not measured yet."


def previews(cases: dict, where: Wheres) -> str:
    """Of maps at reduced size."""
    if "previews" not in cases:
        return "Not measured yet."
    case = cases["previews"]
    lines = ["| `--map-scale` | seconds | times as fast | PSNR to the full map's result, median (lowest) |"]
    lines += ["|---|---|---|---|"]
    for scale, row in case["rows"].items():
        more = f"{row['ratio']:.1f} | {row['psnr']:.1f} ({row['lowest_psnr']:.1f}) dB" if "psnr" in row else "1 | –"
        lines.append(f"| {scale} | {row['median']:.2f} | {more} |")
    what = f"A photo of {case['megapixels']:.1f} megapixels in memory; PSNR on {case['photos']} real photos"
    choice = case["choice"].partition(" (")[0]
    return "\n".join(lines) + f"\n\n{what}; {choice}; `python -m lab.bench --cases previews`, {where(case)}."


def int8(result: dict, where: Wheres) -> str:
    """How near quantisation comes."""
    lines = ["| arithmetic | PSNR to fp32, median (lowest) | times as fast as fp32 |", "|---|---|---|"]
    for name, row in result["rows"].items():
        db = "–" if row["median_db"] is None else f"{row['median_db']:.1f} ({row['lowest_db']:.1f}) dB"
        lines.append(f"| {name} | {db} | {row['ratio']:.2f} |")
    what = f"Results of {result['photos']} photos, one thread; `python -m lab.int8`"
    return "\n".join(lines) + f"\n\n{what}, {where(result['provenance'])}."


GROWTHS = {
    "megapixels": "megapixels of one photo",
    "photos": "photos of 48 × 64 pixels in a folder",
    "words": "words embedded by mini-clip",
    "embedded": "photos of 48 × 64 pixels embedded by mini-clip",
}
# photos of several tiles; without the largest, which would decide the line by itself
LINES = {GROWTHS["megapixels"]: (4, 24)}


GPU_WAYS = {"plain": "plain PyTorch, fp32", "fp32": "fp32", "bf16": "bf16"}


def growth(cases: dict, wheres: Wheres) -> str:
    """Points, and the lines through them."""
    cases = {what: cases[name] for name, what in GROWTHS.items() if name in cases}
    if not cases:
        return "Not measured yet."
    lines = [
        "| number of | number: seconds, memory | one more: time (R²) | one more: memory (R²) |",
        "|---|---|---|---|",
    ]
    for what, case in cases.items():
        rows = {float(number): row for number, row in case["rows"].items()}
        points = [f"{n}: {row['median']:.1f} s, {row['peak_mb']:,.0f} MB" for n, row in case["rows"].items()]
        least, most = LINES.get(what, (0, max(rows)))
        fitted = {number: row for number, row in rows.items() if least <= number <= most}
        ends = f", from {least} to {most}" if what in LINES else ""
        lines.append(f"| {what} | {'; '.join(points)} | {_line(fitted, 'median')}{ends} | {_line(fitted, 'peak_mb')} |")
    note = "Whole processes with start-up. Lines by least squares; none where R² is below 0.9"
    return "\n".join(lines) + f"\n\n{note}; `make bench`, {wheres(cases)}."


def gpu(cases: dict, wheres: Wheres) -> str:
    """Photos and steps of a training on a GPU, beside the plain way there."""
    photos, training = cases["gpu_photo"]["rows"], cases["gpu_train"]
    kinds = {
        f"photo of {size} megapixels, from memory to memory": {way: photos.get(f"{size}, {way}") for way in GPU_WAYS}
        for size in ("0.5", "3", "24")
    }
    steps = training["rows"]
    kinds[f"RAVE step, full-size encoders, {training['side']} px, batch {training['batch']}"] = {
        way: steps.get(way) for way in GPU_WAYS
    }
    lines = [f"| | {' | '.join(GPU_WAYS.values())} |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(map(_gpu_cell, rows.values()))} |" for name, rows in kinds.items()]
    rates, near = (
        ", ".join(f"{text(steps[way])} in {way}" for way in ("fp32", "bf16"))
        for text in (
            lambda row: f"{row['tflops']:.0f} of {row['limit_tflops']:.0f}",
            lambda row: f"{row['loss_agreement']:.1g}",
        )
    )
    low, high = (1000 * steps["bf16"][end] for end in ("lowest", "highest"))
    note = (
        "Milliseconds (times as fast), peak memory of the GPU. "
        f"Photos: {int(lowest_psnr({'': cases['gpu_photo']}))} dB or more of the plain way's (24 megapixels: of fp32). "
        f"Steps: medians of runs of {len(steps['bf16']['losses'])} steps, {len(steps['plain']['losses'])} of the plain "
        f"way, without the first {WARM}; in bf16 a step took {low:.0f} to {high:.0f}; "
        f"10^12 operations a second, beside those of a large matrix product: {rates}; "
        f"losses differ from the plain way's, relatively, by {near}. "
        "`python -m lab.bench --cases gpu_photo gpu_train`, "
    )
    return "\n".join(lines) + f"\n\n{note}{wheres(cases)}."


def _gpu_cell(row: dict | None) -> str:
    if row is None:
        return "–"
    faster = f" ({row['ratio']:.1f}×)" if "ratio" in row else ""
    return f"{1000 * row['median']:.0f}{faster}, {row['gpu_peak_mb'] / 1000:.1f} GB"


def _line(rows: dict[float, dict], key: str) -> str:
    """The slope of the line through a figure of the rows, and R²; no slope where there is no line."""
    values = [row[key] for row in rows.values()]
    if len(rows) < 3:
        return "–"
    slope = statistics.linear_regression(rows, values).slope
    fit = statistics.correlation(rows, values) ** 2 if min(values) < max(values) else 1.0
    if fit < STRAIGHT:
        return f"no line ({fit:.2f})"
    unit = "MB" if key == "peak_mb" else "s"
    if unit == "s" and slope < 1:
        slope, unit = 1000 * slope, "ms"
    return f"{slope:.2g} {unit} ({fit:.3f})"
