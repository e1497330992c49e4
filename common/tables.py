"""Tables of text for a terminal."""

from collections.abc import Sequence

from common.console import one_line

WIDEST = 48  # characters of a cell; of a longer one its end is shown, which tells names apart


def lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """First column left, others right; a row of one cell is a title and takes no part in the widths."""
    cut = [[_cut(cell) if len(row) > 1 else cell for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*(row for row in cut if len(row) > 1), strict=True)]
    return [
        "   ".join(
            [row[0].ljust(widths[0] if widths else 0)]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
        ).rstrip()
        for row in cut
    ]


def _cut(cell: str) -> str:
    shown = one_line(cell)
    return shown if len(shown) <= WIDEST else f"...{shown[-WIDEST + 3 :]}"
