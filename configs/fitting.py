"""Values as they were written -> values of the type that their key has.

`exp_name: 2024-05-01` is the text, `seed: 7` the number, and `--set data.output=day #1` is what was typed.
"""

import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from common.errors import UserError
from configs.reading import Scalar, parse, scalar


@dataclass(frozen=True)
class Typed:
    """The VALUE of `--set KEY=VALUE`."""

    text: str


def fit(value: Any, annotation: Any) -> Any:
    """The value for a field of this type: sections to dicts, scalars to text where the field is text.

    What does not fit stays as YAML reads it, for the validation to refuse.
    """
    section = section_type(annotation)
    if isinstance(value, Typed):
        value = _structured(value.text, annotation)
    if section and (value is None or (isinstance(value, Scalar) and value.value is None)):
        return {}  # an empty section means its defaults
    if isinstance(value, Mapping):
        fields = section.model_fields if section else {}
        return {key: fit(v, fields[key].annotation if key in fields else Any) for key, v in value.items()}
    if isinstance(value, list):
        items = [typing.get_args(option)[0] for option in _options(annotation) if typing.get_origin(option) is list]
        return [fit(item, items[0] if items else Any) for item in value]
    if isinstance(value, Scalar):
        if value.value is None and type(None) in _options(annotation):
            return None
        is_text = str in _options(annotation) and not _is_choice(value.value, annotation)
        return value.text if is_text else value.value
    return value


def plain(value: Any) -> Any:
    """The value as YAML reads it, where no key says what it should be."""
    return fit(value, Any)


def section_type(annotation: Any) -> type[BaseModel] | None:
    """The section class behind a field's annotation, or None for a plain value."""
    return next((t for t in _options(annotation) if isinstance(t, type) and issubclass(t, BaseModel)), None)


def _structured(text: str, annotation: Any) -> Any:
    """What was typed: text where the key takes text, else what YAML makes of it."""
    options = _options(annotation)
    takes_list = any(typing.get_origin(option) is list for option in options)
    if str in options and not (takes_list and text.lstrip().startswith("[") and not os.path.lexists(text)):
        empty = text.strip() in ("", "null")  # `~` is a folder here
        if empty and type(None) in options:
            return None
        return scalar(text) if _is_choice(scalar(text).value, annotation) else text
    if takes_list or section_type(annotation) or annotation is Any:
        try:
            return parse(text)
        except UserError:
            return text
    return scalar(text.strip())


def _options(annotation: Any) -> list[Any]:
    """The types that an annotation allows; `str` for literals of text."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [option for part in typing.get_args(annotation) for option in _options(part)]
    if origin is typing.Literal:
        return [str, *(value for value in typing.get_args(annotation) if not isinstance(value, str))]
    return [annotation]


def _is_choice(value: Any, annotation: Any) -> bool:
    """Whether a value that is no text is one that the annotation takes: `auto | true | false`. Whole numbers are
    numbers too."""
    kinds = (int, float) if type(value) is int else (type(value),)
    return not isinstance(value, str) and any(value is option or option in kinds for option in _options(annotation))
