"""Texts of files that people and programs may have damaged: every damage is a ValueError."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds. Raises ValueError where it is none, or nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """What a YAML text holds, of plain types. Raises ValueError where it is none, or nested too deeply to be read."""
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
