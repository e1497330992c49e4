"""Which photos a training takes."""

import pytest
from PIL import Image

from common.errors import UserError
from configs.schema import TrainConfig
from training.validation import training_photos


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
