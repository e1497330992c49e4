"""The rooms of the code: their direction, no circles, sizes; and that lab/rooms.py finds what breaks them."""

import pytest

from common.paths import REPO_ROOT
from lab.rooms import METHOD, circles, level, measure, room, sources


@pytest.fixture(scope="module")
def texts():
    if not (REPO_ROOT / ".git").exists():
        pytest.skip("not a checkout")
    return sources(None)


def test_imports_go_down_and_never_in_circles(texts):
    found = measure(texts)
    assert found["circles"] == []
    assert [line for row in found["rooms"].values() for line in row["upward"]] == []
    assert {room(module) for module in texts} == found["rooms"].keys()  # every room has its level


def test_files_fit_a_reader(texts):
    lines = {module: len(text.splitlines()) for module, text in texts.items()}
    assert {m: n for m, n in lines.items() if room(m) in METHOD and n > 350} == {}
    assert sum(n for m, n in lines.items() if room(m) == "tools") < 1500


def test_circles_and_imports_against_the_direction_are_found():
    texts = {
        "tools.one": "def f():\n    from tools.two import g\n",
        "tools.two": "from tools import one\n",
        "losses.a": "from training.b import c\n",
        "training.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import losses.a\nimport errno\n",
    }
    found = measure(texts)
    assert found["circles"] == [["tools.one", "tools.two"]]
    assert found["rooms"]["losses"]["upward"] == ["losses.a → training.b"]
    assert found["rooms"]["training"]["upward"] == []
    assert circles({"a": ["b"], "b": ["c"], "c": []}) == []
    assert level("train_rave") > level("training.loop") > level("models.unet") > level("common.files")
