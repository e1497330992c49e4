"""The rule by which weights are chosen to be shipped, of the rows that `tools/compare_weights.py` makes.

It looks at validation photos only; the test pairs measure what it chose.
"""

VALIDATION = "pairs_validation"  # names of lists in configs/splits
STAY = ("stay_dark", "stay_other")

LIMITS = {  # (part of a row, figure) -> the most that a candidate may have
    (VALIDATION, "clipped"): 0.01,
    ("change, stay_dark", "mean"): 0.03,
    ("change, stay_dark", "largest"): 0.10,
    ("change, stay_other", "mean"): 0.015,
}
TIE = 0.05  # dB: candidates this close to the best go by SSIM


def exceeded(row: dict) -> list[str]:
    """The limits that a candidate does not keep, in words."""
    return [
        f"{figure} of {part} {row[part][figure]:.4f}, limit {most}"
        for (part, figure), most in LIMITS.items()
        if row[part][figure] > most
    ]


def choose(rows: dict[str, dict]) -> str | None:
    """The candidate with the highest PSNR on validation pairs of those that keep all `LIMITS`; by SSIM within `TIE`.

    rows: name -> the row, with the parts that `LIMITS` names. None where no candidate keeps them.
    """
    kept = {name: row[VALIDATION] for name, row in rows.items() if not exceeded(row)}
    best = max((row["psnr"] for row in kept.values()), default=0.0)
    near = {name: row["ssim"] for name, row in kept.items() if row["psnr"] >= best - TIE}
    return max(near, key=near.get, default=None)
