"""Matching is by exact name: nothing is paired because one name is a part of another."""

from pathlib import Path

import pytest

from common.errors import UserError
from data.listing import named
from metrics.pairing import Pairing, pair, read_names


@pytest.fixture
def paired(tmp_path):
    def build(enhanced: list[str], truths: list[str]) -> Pairing:
        for folder, names in (("enhanced", enhanced), ("gt", truths)):
            for name in names:
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return pair(tmp_path / "enhanced", tmp_path / "gt")

    return build


def _names(pairing: Pairing) -> dict[str, str]:
    return {p.name: p.truth.name for p in pairing.pairs}


def test_exact_name_any_suffix(paired):
    found = paired(["1.png", "11.png", "photo.v2.jpg"], ["1.jpg", "11.jpg", "photo.v2.png"])
    assert _names(found) == {"1.png": "1.jpg", "11.png": "11.jpg", "photo.v2.jpg": "photo.v2.png"}
    assert not found.unmatched_enhanced and not found.unmatched_gt and not found.problems


def test_never_by_substring(paired):
    found = paired(["10.png", "1_enhanced.png", "01.png", "1(1)(2).png", "1(x).png", "1(2)b.png"], ["1.png"])
    assert not found.pairs
    assert found.unmatched_enhanced == sorted(
        ["10.png", "1_enhanced.png", "01.png", "1(1)(2).png", "1(x).png", "1(2)b.png"]
    )
    assert found.unmatched_gt == ["1.png"]


def test_names_in_both_forms_of_unicode_are_one(paired, tmp_path):
    found = paired(["caf\u00e9.png", "u\u0308ber(1).png"], ["cafe\u0301.jpg", "\u00fcber.jpg"])
    assert [p.truth.name for p in found.pairs] == ["cafe\u0301.jpg", "\u00fcber.jpg"]
    (tmp_path / "list.txt").write_text("\ufeffcafe\u0301.png\n# no photo\n\n", encoding="utf-8")
    names = read_names(tmp_path / "list.txt", "--list")
    assert [named(Path(name), names) for name in ("caf\u00e9.png", "day/cafe\u0301.png", "cafe.png")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfea\x00", "expected text in UTF-8, found UTF-16"),
        (b"a\xe9b", "expected text in UTF-8, found the byte 0xe9 at position 1"),
        (bytes(2**20 + 1), "at most 1,048,576 bytes"),
    ],
)
def test_lists_that_are_no_text_are_told_with_their_key(tmp_path, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_names(tmp_path / "list.txt", "data.val_list")
    assert str(caught.value).startswith("data.val_list: ") and str(caught.value).count("list.txt") == 1


def test_trailing_number_is_removed_once(paired):
    found = paired(["0152(1).png", "0152 (2).png", "7(1)(1).png", "(3).png"], ["0152.jpg", "7(1).png"])
    assert _names(found) == {"0152(1).png": "0152.jpg", "0152 (2).png": "0152.jpg", "7(1)(1).png": "7(1).png"}
    assert found.unmatched_enhanced == ["(3).png"]


def test_name_as_it_is_comes_first(paired):
    assert _names(paired(["a(1).png", "a(2).png"], ["a.png", "a(1).png"])) == {
        "a(1).png": "a(1).png",
        "a(2).png": "a.png",
    }


def test_one_of_a_family_is_the_first(paired):
    found = paired(
        ["a(10).png", "a(2).png", "a(3).png", "b.png", "c.png", "c(1).png", "d(4).png"],
        ["a.png", "b.png", "c.png", "d.png"],
    )
    assert {p.name for p in found.pairs if p.first_of_family} == {"a(2).png", "b.png", "c.png", "d(4).png"}
    assert len(found.pairs) == 7


def test_sub_folders_are_part_of_the_name(paired):
    found = paired(["day/1.png", "night/1(1).png", "2.png"], ["day/1.jpg", "night/1.jpg", "day/2.jpg"])
    assert {p.name: Path(*p.truth.parts[-2:]).as_posix() for p in found.pairs} == {
        "day/1.png": "day/1.jpg",
        "night/1(1).png": "night/1.jpg",
    }
    assert found.unmatched_enhanced == ["2.png"] and found.unmatched_gt == ["day/2.jpg"]


def test_two_ground_truths_of_one_name_are_a_problem(paired):
    found = paired(["1.png", "1(1).png", "2.png"], ["1.jpg", "1.png", "2.png", "3.jpg", "3.png"])
    assert _names(found) == {"2.png": "2.png"}
    assert sorted(name for name, _ in found.problems) == ["1(1).png", "1.png"]
    assert all("1.jpg, 1.png" in reason for _, reason in found.problems)
    assert found.unmatched_gt == ["3.jpg", "3.png"]  # nobody asks for these, so they are no problem


def test_missing_or_empty_folder(tmp_path, paired):
    paired(["1.png"], ["1.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"data\.gt_images_path: expected a folder, found nothing"):
        pair(tmp_path / "enhanced", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"data\.enhanced_images_path: expected images, found none"):
        pair(tmp_path / "empty", tmp_path / "gt")


def test_two_results_of_one_name_are_a_problem(paired):
    found = paired(["1.png", "1.jpg", "2.png", "2(1).png"], ["1.png", "2.png"])
    assert _names(found) == {"2.png": "2.png", "2(1).png": "2.png"}
    assert found.problems == [(name, "several results have its name: 1.jpg, 1.png") for name in ("1.jpg", "1.png")]
    assert found.unmatched_gt == []


def test_names_compare_in_one_unicode_form(paired):
    assert list(_names(paired(["Z\u00fcrich.png"], ["Zu\u0308rich.png"]))) == ["Z\u00fcrich.png"]
