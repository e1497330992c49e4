"""HTML pages that open anywhere: one file each, pictures and styles inside, every text escaped.

A page is a Jinja template beside the module that fills it and extends `page.html.j2` here, which has the looks of all.
"""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

GENERATOR = "backlit"  # by which a page of ours is known again
BACKLIT, WELLLIT = "#31589c", "#e08a1e"  # colours of the two folders, and of before and after


def page(template: Path, **content: Any) -> str:
    """The HTML of a template file, every text escaped. Raises jinja2's errors for a name that is not in `content`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folders = FileSystemLoader([template.parent, Path(__file__).parent])
    environment = Environment(
        loader=folders, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = shown
    environment.globals |= {"generator": GENERATOR, "backlit_color": BACKLIT, "welllit_color": WELLLIT}
    return environment.get_template(template.name).render(**content)


def shown(value: float | None, form: str) -> str:
    """A number as text; a dash where there is none."""
    return "–" if value is None else format(value, form)


def figure_uri(figure: "Figure", dpi: int = 120) -> str:
    """A matplotlib figure as a PNG data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return _uri("png", buffer)


def picture_uri(picture: "Image.Image", width: int, height: int, quality: int = 82) -> str:
    """A PIL image in RGB as a JPEG data URI, made to fit into `width` x `height` pixels."""
    from PIL import Image

    small = picture.copy()
    small.thumbnail((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=quality)
    return _uri("jpeg", buffer)


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
