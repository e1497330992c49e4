"""Lists of things."""

from collections.abc import Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT")


def evenly(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """At most `count` of the items, evenly spread, in their order; of several the first and the last are among them."""
    count = min(count, len(items))
    return [items[round(i * (len(items) - 1) / max(count - 1, 1))] for i in range(count)]
