"""The tables of docs/performance.md with targets, what is reached, and what bounds it."""

from collections.abc import Callable, Iterator

from lab.bench.convolutions import FLOPS
from lab.bench.table import WAYS, lowest_psnr

Row = tuple[str, str, str, str]  # what, target, here, bounded by
# case -> what, times as fast as the plain way: the targets of OpenVINO and of PyTorch
SPEEDS = {
    "0.5": ("network", 12, 5),
    "3": ("network", 12, 5),
    "png0.5": ("photo of a folder", 10, 5),
    "png3": ("photo of a folder", 10, 5),
}
STEPS = {  # case -> what, times as fast as the authors' way: the target
    "rave256": ("RAVE step, full-size encoders, {} px", 5),
    "rave512": ("RAVE step, full-size encoders, {} px", 5),
    "lite256": ("RAVE step, EfficientNet-Lite, {} px", 6),
}
PARTS = {  # of a step, as a reader knows them -> whether an operation belongs there; the first that says so has it
    "UNet, forward": lambda name: name.startswith("UNet") and name.endswith("forward"),
    "UNet, backward": lambda name: name.startswith("UNet"),
    "encoders, convolutions": lambda name: name.startswith("encoders, convolutions"),
    "encoders, matrix products and attention": lambda name: name.startswith("encoders"),
    "between the operations": lambda name: name == "between the operations",
    "the whole step": lambda name: name == "step",
    "the rest: casts, copies, sums, norms, resizing": lambda name: True,
}
COMPUTING = tuple(PARTS)[:4]


def targets(results: dict, wheres: Callable[[dict], str]) -> str:
    """Target, figure here and bound of all that was measured."""
    inference, training, network = (results.get(kind, {}) for kind in ("inference", "training", "network"))
    rows = [*_speeds(inference, network), *_inference(inference), *_trainings(training), *_network(network)]
    if not rows:
        return "Not measured yet."
    lines = ["| what | target | here | bounded by |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    note = "Times as fast as the plain way, but for memory, seconds and dB. Bounded by: what the same operations would "
    note += "reach at the rate of a large matrix product, with nothing else to do"
    limits = _products(network)
    if {"fp32", "bf16"} <= limits.keys():
        note += f". That product is {limits['bf16'] / limits['fp32']:.1f} times as fast in bf16 as in fp32 here"
    used = {case: inference[case] for case in (*SPEEDS, "24", "photo") if case in inference}
    used |= {case: training[case] for case in STEPS if case in training}
    used |= {"unet256": network["unet256"]} if "unet256" in network else {}
    devices = wheres(used).partition(", commit")[0]
    return "\n".join(lines) + f"\n\n{note}; `make bench`, {devices}, commits under the tables below."


def _products(network: dict) -> dict[str, float]:
    """precision -> the rate of a large matrix product, measured beside a frame."""
    rows = network.get("frame", {"rows": {}})["rows"]
    return {name.rpartition(" ")[2]: row["limit_tflops"] for name, row in rows.items()}


def _speeds(inference: dict, network: dict) -> Iterator[Row]:
    frame = _products(network)
    for name, (what, *targets) in SPEEDS.items():
        case = inference.get(name)
        for way, times in zip(("openvino", "torch"), targets, strict=True) if case else ():
            row = case["rows"].get(way, {})
            if "same_as" in row:
                row = case["rows"][row["same_as"]] | {"choice": row["choice"]}
            if "ratio" not in row:
                continue
            limit = case.get("limit_tflops", frame).get(row["choice"].split(", ")[1])
            alone = FLOPS * case["megapixels"] * 1e6 / limit / 1e12 if limit else None
            bound = f"{case['rows']['baseline']['median'] / alone:.1f}×" if alone else ""
            title = f"{what}, {case['megapixels']:.1f} megapixels, {'OpenVINO' if way == 'openvino' else 'PyTorch'}"
            yield title, f"{times}×", f"{row['ratio']:.1f}×", bound


def _inference(cases: dict) -> Iterator[Row]:
    names = {"torch": "PyTorch", "openvino": "OpenVINO"}
    for case, what, target, key, unit in (
        ("24", "memory, 24 megapixels", "1.5 GB", "peak_mb", "GB"),
        ("photo", "one photo of half a megapixel with start-up", "3 s", "median", "s"),
    ):
        rows = cases.get(case, {"rows": {}})["rows"]
        for way, name in names.items():
            row = rows.get(way, {})
            row = rows[row["same_as"]] if "same_as" in row else row
            if row:
                value = f"{row[key] / 1000:.1f}" if unit == "GB" else f"{row[key]:.1f}"
                default = ", the default install" if case == "photo" and way == "torch" else ""
                yield f"{what}, {name}{default}", target, f"{value} {unit}", ""
    if seconds := cases.get("photo", {}).get("help"):
        yield "`inference.py --help`", "0.15 s", f"{seconds['median']:.2f} s", ""
    psnr = lowest_psnr({name: cases[name] for name in SPEEDS if name in cases})
    if psnr:
        yield "PSNR to the plain way's results, the lowest", "50 dB", f"{psnr:.1f} dB", ""


def _trainings(cases: dict) -> Iterator[Row]:
    for name, (what, target) in STEPS.items():
        rows = cases.get(name, {"rows": {}})["rows"]
        ways = {way: row for way, row in rows.items() if "bf16" in WAYS[way] and "ratio" in row}
        if ways:
            here = ", ".join(f"{row['ratio']:.1f}× {WAYS[way]}" for way, row in ways.items())
            row = next(iter(ways.values()))
            alone = row["tflops"] * row["median"] / row["limit_tflops"]
            bound = f"{rows['baseline']['median'] / alone:.1f}×"
            yield what.format(cases[name]["side"]), f"{target}×", here, bound


def _network(cases: dict) -> Iterator[Row]:
    for name, row in cases.get("unet256", {"rows": {}})["rows"].items():
        if "ratio" in row:
            precision = name.rpartition(" ")[2]
            yield f"UNet step beside its convolutions alone, {precision}", "1.3 times", f"{row['ratio']:.2f} times", ""


def layers(cases: dict, where: Callable[[dict], str]) -> str:
    """Where the time of a training step goes, in parts that a reader knows."""
    if "layers" not in cases:
        return "Not measured yet."
    case = cases["layers"]
    parts = {part: {"median": 0.0, "flops": 0} for part in PARTS}
    for name, row in case["rows"].items():
        part = parts[next(part for part, its in PARTS.items() if its(name))]
        part["median"] += row["median"]
        part["flops"] += row["flops"]
    whole, limit = parts.pop("the whole step"), case["limit_tflops"]
    lines = ["| operations | s | of the step | GFLOP/s |", "|---|---|---|---|"]
    computing = {key: sum(parts[name][key] for name in COMPUTING) for key in ("median", "flops")}
    ordered = sorted(parts.items(), key=lambda item: -item[1]["median"])
    for name, part in [*ordered, ("the whole step", whole)]:
        rate = f"{part['flops'] / part['median'] / 1e9:.0f}" if name in COMPUTING or part is whole else ""
        lines.append(f"| {name} | {part['median']:.2f} | {part['median'] / whole['median']:.0%} | {rate} |")
    reached = computing["flops"] / computing["median"] / limit / 1e12
    what = f"RAVE step, {case['side']} px, batch {case['batch']}, encoders {' and '.join(case['encoders'])}, all in "
    what += f"{case['precision']}; `python -m lab.bench --cases layers`, {where(case)}.\n\nArithmetic bounds the step: "
    what += (
        f"convolutions and matrix products take {computing['median'] / whole['median']:.0%} of it, at {reached:.0%} "
    )
    what += f"of a large matrix product's rate, {1000 * limit:.0f} GFLOP/s. At that rate, and with nothing else to do, "
    what += f"it would take {whole['flops'] / limit / 1e12:.2f} s"
    return "\n".join(lines) + f"\n\n{what}."
