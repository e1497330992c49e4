"""The golden values of this repository: made by the script beside them, and enough without the authors' files."""

import numpy as np
import open_clip
import torch

from models.checkpoints import load_unet
from models.retinex import enhance
from tests.golden import make
from tests.golden.authors import CONTENT, recognised


def test_the_script_still_gives_the_committed_values():
    made = {"tiny_clip": make.clip_values(open_clip.tokenize(make.WORDS)), "illumination": make.unet_values()}
    for name, values in made.items():
        with np.load(make.HERE / f"{name}.npz") as committed:
            assert set(committed.files) == set(values)
            for key, value in values.items():
                size = np.abs(committed[key]).max()
                assert np.abs(value.numpy() - committed[key]).max() <= 1e-4 * size, f"{name}: {key}"


def test_illumination_equals_the_architecture_written_out(tmp_path):
    """Saved as the authors save it, read with both paddings: map and result."""
    torch.save({f"module.{name}": tensor for name, tensor in make.unet_weights().items()}, tmp_path / "unet.pth")
    picture = make.unet_picture()
    with np.load(make.HERE / "illumination.npz") as expected:
        for padding in ("zeros", "reflect"):
            with torch.inference_mode():
                illumination = load_unet(tmp_path / "unet.pth", padding)(picture)
            assert np.abs(illumination.numpy() - expected[padding]).max() < 1e-5
            assert np.abs(enhance(picture, illumination).numpy() - expected[f"{padding}_enhanced"]).max() < 1e-4


def test_a_folder_is_taken_for_the_authors_by_what_it_holds(tmp_path):
    folder = tmp_path / "shared"
    assert recognised(folder) is None
    (folder / "golden").mkdir(parents=True)
    assert recognised(folder) is None
    for name in CONTENT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert recognised(folder) == folder
