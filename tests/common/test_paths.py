"""Paths that a user names, and what an error about a missing one says."""

import pytest

from common.errors import UserError
from common.paths import find_folder, find_folders


def message(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def test_the_hint_names_the_keys_that_are_wrong_and_no_other(tmp_path):
    keys = {"data.a": str(tmp_path), "data.pairs": "datasets/pairs/gt", "data.val_gt_path": "/nowhere", "data.z": "."}
    said = message(find_folders, keys)
    assert said.startswith("data.pairs: expected a folder, found nothing there: datasets/pairs/gt (")
    assert said.endswith("(name yours: --set data.pairs=DIR --set data.val_gt_path=DIR)")
    assert [str(folder) for folder in find_folders({"a": str(tmp_path), "z": "."})] == [str(tmp_path), "."]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("data.pairs", "(name yours: --set data.pairs=DIR)"),
        ("--backlit", "(name yours: --backlit DIR)"),
        ("photos", "(name yours)"),  # an argument without a flag
    ],
)
def test_the_hint_is_what_can_be_typed(key, hint):
    assert message(find_folder, "datasets/x", key).endswith(hint)
    assert "name yours" not in message(find_folder, "elsewhere/x", key)
