"""What the web page shows and writes, without the web."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.files import DiskFull
from common.paths import REPO_ROOT
from configs.schema import InferenceModel
from data.images import ImageError, Photo, write_photo
from inference import main
from serving import Enhancer
from serving.studio import Studio, measured, read_direction, told, weight_files
from tests.faults import room_for
from tests.serving.helpers import noise

WEIGHTS = InferenceModel().checkpoint.rsplit("/", 1)[1]


@pytest.fixture
def photos(tmp_path) -> list[str]:
    """A JPEG with EXIF, a 16-bit PNG with alpha, and a grey PNG."""
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    Image.fromarray((noise(40, 61) * 90).astype(np.uint8)).save(folder / "a.jpg", exif=exif, dpi=(300, 300))
    deep = noise(20, 30)
    write_photo(folder / "b.png", Photo((deep * 9000).astype(np.uint16), (deep[..., 0] * 65535).astype(np.uint16), 16))
    Image.fromarray((noise(20, 30)[..., 0] * 90).astype(np.uint8)).save(folder / "c.png")
    return sorted(str(path) for path in folder.iterdir())


def test_files_are_those_of_inference(photos, tmp_path):
    studio = Studio(tmp_path / "work")
    for photo in photos[:2]:
        studio.view(photo, WEIGHTS)
    written, failed = studio.write(photos, WEIGHTS, 0.6)
    assert not failed
    assert main([*photos, "--output", str(tmp_path / "out"), "--strength", "0.6"]) == 0
    for photo, file in zip(photos, written, strict=True):
        name = photo.rsplit("/", 1)[1]
        with open(file, "rb") as found:  # noqa: PTH123
            assert found.read() == (tmp_path / "out" / name).read_bytes(), name


def test_the_network_runs_once_for_all_strengths(photos, tmp_path):
    studio, shares = Studio(tmp_path), []
    view = studio.view(photos[0], WEIGHTS, shares.append)
    assert shares[-1] == 1
    (computed,) = (tmp_path / "maps").iterdir()
    before = computed.stat().st_mtime_ns
    results = [studio.result(view, WEIGHTS, strength) for strength in (0, 0.5, 1)]
    assert np.array_equal(results[0], view.photo) and results[1].mean() < results[2].mean()
    assert np.array_equal(results[2], Enhancer().enhance(view.photo)[0])
    studio.view(photos[0], WEIGHTS, shares.append)
    studio.write(photos[:1], WEIGHTS, 0.5, shares.append)
    assert computed.stat().st_mtime_ns == before and len(list((tmp_path / "maps").iterdir())) == 1


def test_large_photos_are_shown_at_screen_size(tmp_path):
    Image.new("RGB", (2000, 30), (40, 50, 60)).save(tmp_path / "a.png")
    view = Studio(tmp_path / "work").view(str(tmp_path / "a.png"), WEIGHTS)
    assert view.photo.shape == (19, 1280, 3) and view.illumination.shape == (19, 1280)
    assert (view.photo == (40, 50, 60)).all()
    whole = Enhancer().illumination(tmp_path / "a.png")
    assert np.isclose(view.illumination.mean(), whole.mean(), atol=1e-3)


def test_bad_files_are_told_by_the_users_name(photos, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no photo")
    studio = Studio(tmp_path / "work")
    with pytest.raises(ImageError) as error:
        studio.view(str(bad), WEIGHTS)
    assert told(error.value, None, str(bad)).startswith("bad.jpg: expected an image")
    written, failed = studio.write([str(bad), photos[2]], WEIGHTS, 1.0)
    assert len(written) == 1 and failed[0].startswith("bad.jpg: expected an image")


def test_a_full_disk_spoils_no_photo_for_later(photos, tmp_path):
    studio = Studio(tmp_path / "work")
    with room_for(5000):  # the map takes 9,760 bytes
        with pytest.raises(DiskFull) as error:
            studio.view(photos[0], WEIGHTS)
        assert told(error.value, photos[0]).startswith("a.jpg: expected room on the disk for its illumination map")
        written, failed = studio.write([photos[0], photos[2]], WEIGHTS, 1.0)
        assert len(written) == 1 and failed[0].startswith("a.jpg: expected room on the disk")
    assert studio.view(photos[0], WEIGHTS).illumination.shape == (61, 40)
    assert not studio.write(photos[:1], WEIGHTS, 1.0)[1]


@pytest.mark.parametrize("texts", [("a photo", "a photo"), ("", ""), ("a photo", " ")])
def test_texts_without_a_way_between_them_are_told(monkeypatch, texts):
    network = SimpleNamespace(embed_words=lambda texts: torch.ones(len(texts), 4))
    monkeypatch.setattr("serving.studio._encoder", lambda name: (network, None))
    with pytest.raises(UserError, match=r"^From, To: expected two texts of different meaning, found '(a photo)?' and"):
        read_direction(None, None, "any", *texts, None)


def test_weights_are_those_of_the_folder_only(tmp_path):
    assert weight_files()[0] == WEIGHTS and "mini-clip.safetensors" not in weight_files()
    for name in ("../pretrained_models/rave.safetensors", "mini-clip.safetensors", "/etc/passwd"):
        with pytest.raises(UserError, match=r"weights: expected one of backlit\.safetensors"):
            Studio(tmp_path).enhancer(name)


def test_measured_rows_name_their_protocol(photos):
    rows, reason = measured(photos[0], photos[0])
    assert (reason == "") == (rows[0][3] != "–") and (not reason or reason.startswith("LPIPS: "))
    assert [row[:3] for row in rows] == [["rgb", "100.00", "1.0000"], ["paper", "100.00", "1.0000"]]
    with pytest.raises(UserError, match="expected"):
        measured(photos[0], photos[1])


@pytest.mark.slow
def test_a_brighter_photo_lies_farther_along_the_way_from_dark_to_bright():
    photo = np.asarray(Image.open(REPO_ROOT / "docs/photos/sunset.jpg").convert("RGB").resize((96, 96)))
    dark = (photo * 0.2).astype(np.uint8)
    encoder = "mini-clip (shipped, reads texts)"
    found = read_direction(dark, photo, encoder, "a dark photo", "a bright photo", None)
    assert float(found.projections[2][1]) > 0
    assert "bright" in [row[0] for row in found.words] and "dark" in [row[2] for row in found.words]
