"""YAML text -> a tree of dicts, lists and scalars, by the core rules of YAML 1.2, in bounded time and memory.

PyYAML scans and parses; what its scalars mean is decided here. YAML 1.1, which PyYAML's own loaders follow, makes a
date of `2024-05-01`, 90 of `1:30`, 8 of `010`, true of `on` and text of `2e-5`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from common.errors import UserError

DEEPEST = 20  # sections or lists in each other
LARGEST = 20_000  # values in a file, those of aliases counted where they are used
_NULL = re.compile(r"|~|null|Null|NULL")
_TRUE, _FALSE = re.compile(r"true|True|TRUE"), re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_LONGEST_NUMBER = 100  # digits; longer ones are text
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")


@dataclass(frozen=True)
class Scalar:
    """A value without quotes: as it is written, and what YAML makes of it. Which of the two counts, its key decides."""

    text: str
    value: bool | int | float | str | None


def scalar(text: str) -> Scalar:
    """What the core rules of YAML 1.2 make of a text without quotes."""
    return Scalar(text, _meaning(text))


def parse(text: str) -> Any:
    """The tree of one YAML document: dict with text keys, list, str (quoted text) or Scalar; None for an empty one.

    Raises UserError with the line: no YAML, a key twice, a tag, several documents, too deep or too large.
    """
    try:
        return _Reader(yaml.parse(text, yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{line}not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"line {line}: not valid YAML: the character 0x{ord(text[error.position]):04x}") from None
    except (ValueError, OverflowError, IndexError):  # "\U99999999" is no character
        raise UserError("not valid YAML: an escape that is no character") from None


class _Reader:
    """Builds the tree out of PyYAML's events, which come one by one, so that a bomb is refused before it is built."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.events = events
        self.anchors: dict[str, tuple[Any, int]] = {}  # name -> (value, how many values it holds)
        self.values = 0

    def document(self) -> Any:
        next(self.events)  # the start of the stream
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self.events), 0)
        next(self.events)  # the end of the document
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _error(event, "expected one document, found a second one")
        return value

    def _value(self, event: yaml.Event, depth: int) -> Any:
        before = self.values
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise _error(event, f"the alias '*{event.anchor}' stands before what it means")
            value, size = self.anchors[event.anchor]
            self._count(event, size)
            return value
        self._count(event, 1)
        if depth > DEEPEST:
            raise _error(event, f"more than {DEEPEST} sections or lists in each other")
        if event.tag not in _TEXT_TAGS:
            raise _error(event, f"expected a value without a tag, found '{event.tag}'")
        if isinstance(event, yaml.ScalarEvent):
            value = event.value if event.style else scalar(event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._list(depth)
        else:
            value = self._section(depth)
        if event.anchor:
            self.anchors[event.anchor] = value, self.values - before
        return value

    def _list(self, depth: int) -> list:
        values = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            values.append(self._value(event, depth + 1))
        return values

    def _section(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: list[dict] = []  # of `<<: *defaults`: what it brings may be given again
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._value(event, depth + 1)
            name = key.text if isinstance(key, Scalar) else key
            if not isinstance(name, str):
                raise _error(event, "a key must be text, found a list or mapping")
            value = self._value(next(self.events), depth + 1)
            if name == "<<" and isinstance(key, Scalar):
                merged += value if isinstance(value, list) else [value]
                continue
            if name in values:
                raise _error(event, f"key '{name}' is given twice")
            values[name] = value
        for other in merged:
            if not isinstance(other, dict):
                raise _error(event, "'<<' merges sections, found another value")
            values = other | values
        return values

    def _count(self, event: yaml.Event, values: int) -> None:
        self.values += values
        if self.values > LARGEST:
            raise _error(event, f"more than {LARGEST:,} values")


def _error(event: yaml.Event, message: str) -> UserError:
    return UserError(f"line {event.start_mark.line + 1}: {message}")


def _meaning(text: str) -> bool | int | float | str | None:
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if len(text) <= _LONGEST_NUMBER:
        if _INTEGER.fullmatch(text):
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if _FLOAT.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
