"""The bases of the sections of a config."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of every section: unknown keys refused, strict types, immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class PhotoData(Section):
    """Base of the sections that name photos: which of them are read at all."""

    max_megapixels: Annotated[float, Field(gt=0, le=4000)] = 300.0
    """Photos above this are refused, by their header."""
    incomplete: Literal["refuse", "accept"] = "refuse"
    """JPEG and TIFF files that lack data: `refuse`, or `accept` what is there, with a note."""
