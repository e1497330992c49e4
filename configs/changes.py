"""What a config changes: against the defaults, and against other configs."""

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from configs.fitting import section_type

ABSENT = "–"


def flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def defaults(schema: type[BaseModel]) -> dict[str, Any]:
    """The config that nobody changed, without the keys that have no default."""
    tree: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        section = section_type(field.annotation)
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            tree[name] = value.model_dump() if isinstance(value, BaseModel) else value
        elif section:
            tree[name] = defaults(section)
    return tree


def changed(tree: dict, schema: type[BaseModel]) -> dict:
    """What in a config differs from the defaults: its own sections, the other keys left out."""
    return _unlike(tree, defaults(schema))


def as_yaml(tree: dict) -> str:
    """A config, or a part of one, as YAML text in the order of its keys."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True) if tree else ""


def differing(trees: Sequence[dict]) -> dict[str, list]:
    """Dotted key -> its value in each config (`ABSENT` where it is not there), of keys that are not alike in all."""
    leaves = [flat(tree) for tree in trees]
    keys = dict.fromkeys(key for its in leaves for key in its)
    rows = {key: [its.get(key, ABSENT) for its in leaves] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _unlike(tree: dict, other: dict) -> dict:
    found = {}
    for key, value in tree.items():
        theirs = other.get(key, ...)
        if isinstance(value, dict) and isinstance(theirs, dict):
            if inner := _unlike(value, theirs):
                found[key] = inner
        elif value != theirs:
            found[key] = value
    return found
