"""Which photos a training takes."""

import pytest
from PIL import Image

from common.errors import UserError
from configs.schema import TrainConfig
from training.photos import training_photos
from training.validation import Validation, validation_pairs


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), "red").save(path)


@pytest.mark.parametrize("well_lit", ["backlit", "backlit/good", "link", "mixed"])
def test_a_photo_that_is_in_both_folders_is_refused(tmp_path, well_lit):
    save(tmp_path / "backlit" / "a.png")
    save(tmp_path / "backlit" / "good" / "b.png")
    (tmp_path / "link").symlink_to("backlit")
    save(tmp_path / "mixed" / "c.png")
    (tmp_path / "mixed" / "b.png").symlink_to("../backlit/good/b.png")
    data = TrainConfig.model_fields["data"].annotation(
        backlit_images_path=str(tmp_path / "backlit"), welllit_images_path=str(tmp_path / well_lit)
    )
    with pytest.raises(UserError, match=r"data\.welllit_images_path: expected .* in both, such as"):
        training_photos(data)


def test_folders_beside_each_other_with_the_same_names_are_fine(tmp_path):
    for name in ("backlit", "good"):
        save(tmp_path / name / "a.png")
    data = TrainConfig.model_fields["data"].annotation(
        backlit_images_path=str(tmp_path / "backlit"), welllit_images_path=str(tmp_path / "good")
    )
    assert [len(paths) for paths in training_photos(data)] == [1, 1]


def test_a_damaged_validation_photo_costs_its_pair_and_not_the_training(tmp_path):
    for name in ("a", "b", "c"):
        save(tmp_path / "backlit" / f"{name}.png")
        save(tmp_path / "truth" / f"{name}.png")
    (tmp_path / "truth" / "a.png").write_bytes(b"")
    (tmp_path / "backlit" / "b.png").write_bytes(b"nothing")
    pairs, _ = validation_pairs(str(tmp_path / "backlit"), str(tmp_path / "truth"), None)
    validation = Validation(pairs, 16, str(tmp_path / "cache"))
    assert len(validation) == 1 and len(validation.truth) == 1
    assert [reason.split(": ")[0] for reason in validation.skipped] == [
        str(tmp_path / "backlit" / "b.png"),
        str(tmp_path / "truth" / "a.png"),
    ]
    (tmp_path / "truth" / "c.png").write_bytes(b"")
    with pytest.raises(UserError, match="validation: no pair can be read, the first because: "):
        Validation(pairs, 16, str(tmp_path / "cache"))
