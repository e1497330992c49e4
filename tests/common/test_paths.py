"""Paths that a user names, and what an error about a missing one says."""

import pytest

from common.errors import UserError
from common.paths import REPO_ROOT, find_folder, find_folders, find_weights


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


def test_a_name_that_no_shipped_weights_have_is_answered_by_theirs():
    names = [path.name for path in (REPO_ROOT / "pretrained_models").glob("*.safetensors") if "clip" not in path.name]
    said = message(find_weights, "bakclit.safetensors", "--checkpoint")
    assert said.endswith(f"found nothing there: bakclit.safetensors (shipped: {', '.join(sorted(names))})")
    assert len(names) > 3
    assert message(find_weights, "some/where.pth", "--checkpoint").endswith("found nothing there: some/where.pth")
    assert all(find_weights(name, "--checkpoint").is_file() for name in names)
