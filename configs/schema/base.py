"""The bases of the sections of a config, and types that several share."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from common.paths import expand, why_no_path

if TYPE_CHECKING:
    from data.images import Limits


class Section(BaseModel):
    """Base of every section: unknown keys refused, strict types, immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        if any(isinstance(text, str) and "\0" in text for text in (value if isinstance(value, list) else [value])):
            raise PydanticCustomError("nul", "expected text without a NUL")
        return value


def _path(value: str) -> str:
    value = expand(value)
    if reason := why_no_path(value):
        raise PydanticCustomError("path", "expected {reason}", {"reason": reason})
    return value


PATH = AfterValidator(_path)
PathText = Annotated[str, PATH]
"""A path: `~` and `$NAME` are replaced; no longer than file systems take."""


def spelt(spellings: dict[str, str]) -> BeforeValidator:
    """Other spellings that a choice also takes: {other: ours}."""
    return BeforeValidator(lambda value: spellings.get(value, value) if isinstance(value, str) else value)


def none_if_empty() -> BeforeValidator:
    """'' means null, as in the releases' files."""
    return BeforeValidator(lambda value: None if value == "" else value)


def ascending(numbers: list[float]) -> list[float]:
    """Refuses a range that is given the wrong way round."""
    if numbers[0] > numbers[1]:
        raise PydanticCustomError("range", "expected the lower number first")
    return numbers


# Two numbers, between which something is drawn.
Range = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2), AfterValidator(ascending)]
Shares = Annotated[
    list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2), AfterValidator(ascending)
]


class PhotoData(Section):
    """Base of the sections that name photos: which of them are read at all."""

    max_megapixels: Annotated[float, Field(gt=0, le=4000)] = 300.0
    """Photos above this are refused, by their header."""
    incomplete: Literal["refuse", "accept"] = "refuse"
    """JPEG and TIFF files that lack data: `refuse`, or `accept` what is there, with a note."""

    @property
    def limits(self) -> "Limits":
        """Both as the readers of photos take them."""
        from data.images import Limits  # not for a config that names no photo that is there

        return Limits(self.max_megapixels, self.incomplete)
