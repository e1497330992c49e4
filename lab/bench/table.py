"""The tables of docs/performance.md, each a function of what `lab.bench` and `lab.int8` wrote."""

from collections.abc import Callable

RATED = 5e9  # operations a second: what does fewer moves data
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
        "photo": "`inference.py`, one photo of {:.1f} megapixels",
        "folder": "`inference.py`, 50 photos, {:.0f} megapixels",
        "0.5": "network, {:.1f} megapixels",
        "3": "network, {:.1f} megapixels",
    }
    lines = ["| | plain PyTorch, whole frame | PyTorch fp32 | PyTorch | OpenVINO |", "|---|---|---|---|---|"]
    for name in ("0.5", "3", "photo", "24", "folder"):
        if name in cases:
            case = cases[name]
            cells = [
                _speed_cell(case["rows"].get(variant), case["rows"])
                for variant in ("baseline", "fp32", "torch", "openvino")
            ]
            lines.append(
                f"| {names.get(name, '`inference.py`, {:.0f} megapixels').format(case['megapixels'])} | "
                f"{' | '.join(cells)} |"
            )
    return "\n".join(lines) + f"\n\nSeconds (times as fast), peak memory of the process; `make bench`, {wheres(cases)}."


def training_speed(cases: dict, wheres: Wheres) -> list[str]:
    """Two tables of the training cases of `docs/results/bench.json`, as far as they are there: the ways of each, and
    two processes.
    """
    whats = {
        "rave256": "RAVE step, {side} px, batch {batch}",
        "rave512": "RAVE step, {side} px, batch {batch}",
        "lite256": "RAVE step with {encoders[0]}, {side} px, batch {batch}",
        "guidance": "prompt initialisation step, batch {batch}",
        "residual": "residual vector of {detail[photos]} photos and {detail[tokens]:,} tokens",
    }
    ways = {
        "fp32": "fp32",
        "compiled": "fp32, compiled",
        "bf16": "bf16",
        "fastest": "all in bf16",
        "batched": "batched",
        "cached": "cached embeddings",
    }
    tables = []
    for measured in by_processor({name: case for name, case in cases.items() if name in whats}):
        lines = ["| training | the authors' way | here |", "|---|---|---|"]
        for name, case in measured.items():
            here = [f"{ways[way]} {_training_cell(row)}" for way, row in case["rows"].items() if way != "baseline"]
            lines.append(
                f"| {whats[name].format(**case)} | {_training_cell(case['rows']['baseline'])} | {'; '.join(here)} |"
            )
        notes = (
            "Seconds (times as fast), peak memory of the process, arithmetic rate beside that of a large matrix product"
        )
        if "residual" in measured:
            sampled = measured["residual"]["detail"]["sampled"]
            notes += (
                f"; the authors' way to the residual vector is scaled up from {sampled['photos']} photos "
                f"and {sampled['tokens']} tokens"
            )
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


def _training_cell(row: dict) -> str:
    faster = f" ({row['ratio']:.1f}×)" if "ratio" in row else ""
    memory = f", {row['peak_mb'] / 1000:.1f} GB" if "peak_mb" in row else ""
    scale, unit = (1, "TFLOP/s") if row.get("limit_tflops", 0) >= 1 else (1000, "GFLOP/s")
    rate = f", {scale * row['tflops']:.0f} of {scale * row['limit_tflops']:.0f} {unit}" if "tflops" in row else ""
    seconds = f"{row['median']:.0f}" if row["median"] >= 100 else f"{row['median']:.3g}"
    return f"{seconds}{faster}{memory}{rate}"


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


def layers(cases: dict, where: Wheres) -> str:
    """Where the time of a training step goes."""
    if "layers" not in cases:
        return "Not measured yet."
    case = cases["layers"]
    lines = ["| operations | s | of the step | GFLOP/s |", "|---|---|---|---|"]
    for name, row in case["rows"].items():
        rate = f"{row['flops'] / row['median'] / 1e9:.0f}" if row["flops"] > RATED * row["median"] else ""
        lines.append(f"| {name.replace('_', ' ')} | {row['median']:.3f} | {row['share']:.1%} | {rate} |")
    what = f"RAVE step, {case['side']} px, batch {case['batch']}, encoders {' and '.join(case['encoders'])}, all in "
    limit = case["limit_tflops"]
    what += f"{case['precision']}. A large matrix product runs at {1000 * limit:.0f} GFLOP/s; at that rate, and with "
    what += f"nothing else to do, the step would take {case['rows']['step']['flops'] / limit / 1e12:.2f} s"
    return "\n".join(lines) + f"\n\n{what}; `python -m lab.bench --cases layers`, {where(case)}."


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


def growth(cases: dict, wheres: Wheres) -> str:
    """Points, and the line through them."""
    whats = {
        "megapixels": ("megapixels of one photo, `inference.py`", "megapixel"),
        "photos": ("photos of 48 × 64 pixels in a folder, `inference.py`", "photo"),
        "words": ("words embedded by mini-clip", "word"),
        "embedded": ("photos of 48 × 64 pixels embedded by mini-clip", "photo"),
    }
    if not cases:
        return "Not measured yet."
    lines = ["| number of | number: seconds, memory | one more | R² of the line |", "|---|---|---|---|"]
    for name, (what, one) in whats.items():
        if name in cases:
            case = cases[name]
            points = [f"{n}: {row['median']:.1f} s, {row['peak_mb']:,.0f} MB" for n, row in case["rows"].items()]
            more = f"{1000 * case['slope']:.3g} ms, {case['memory_slope']:.2g} MB a {one}"
            lines.append(f"| {what} | {'; '.join(points)} | {more} | {case['fit']:.3f} |")
    what = "Whole processes with start-up; the slope is that of a line by least squares"
    return "\n".join(lines) + f"\n\n{what}; `make bench`, {wheres(cases)}."
