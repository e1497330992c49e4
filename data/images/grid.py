"""Photos side by side in rows, as one PNG: previews of a training, and the sheets of the tools."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from common.files import writing
from common.pages import GENERATOR

GRID_MARK = f"Software\0{GENERATOR}"  # what a picture of `photo_grid` holds


def photo_grid(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], path: Path, side: int = 192) -> np.ndarray:
    """Write photos (H,W,3) uint8 as one PNG: a row of photos under each title, and return the picture (H,W,3) uint8.

    The file holds `GRID_MARK`.
    """
    gap, head = 6, 24
    width = len(titles) * (side + gap) + gap
    sheet = Image.new("RGB", (width, head + len(rows) * (side + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    for column, title in enumerate(titles):
        draw.text((gap + column * (side + gap) + side / 2, head / 2), title, fill="black", font=font, anchor="mm")
    for y, row in enumerate(rows):
        for x, photo in enumerate(row):
            picture = ImageOps.contain(Image.fromarray(photo), (side, side), Image.Resampling.LANCZOS)
            left, top = gap + x * (side + gap), head + y * (side + gap)
            sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
    mark = PngInfo()
    mark.add_text(*GRID_MARK.split("\0"))
    with writing(path) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=mark)
    return np.asarray(sheet)
