"""Directions of one's own: each way to build one, saved and read back, and its trace in a training."""

import json

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.errors import UserError
from common.paths import REPO_ROOT
from configs.schema import Guidance
from data.backlight import BacklightRanges, darkening, lifting
from data.listing import list_images
from losses.residual import residual_guidance
from models.checkpoints import read_tensors, save_tensors
from models.clip_encoder import load_clip
from models.guidance import LatentPair, new_guidance, save_guidance
from models.weight_files import read_metadata
from tests.helpers import config, metrics
from training import directions
from training.directions import describe, load_direction, read_recipe, run_direction, save_direction, source_weights
from training.embeddings import embed_photos
from training.loop import train

LITE0 = "clip.guidance={model: efficientnet-lite0, pretrained: imagenet}"
WEIGHTS = f"clip.guidance={{model: mini-clip, pretrained: {REPO_ROOT / 'pretrained_models/mini-clip.safetensors'}}}"


@pytest.fixture(scope="module")
def encoder():
    return load_clip("mini-clip", str(REPO_ROOT / "pretrained_models/mini-clip.safetensors"))


@pytest.fixture
def sides(encoder):
    generator = torch.Generator().manual_seed(0)
    return [
        F.normalize(torch.randn(count, encoder.embed_dim, generator=generator) + level, dim=1)
        for count, level in ((6, 0.3), (5, -0.3))
    ]


@pytest.fixture
def no_vocabulary(monkeypatch):
    """Embedding 49,408 tokens where nothing needs them fails."""

    def fail(*arguments):
        raise AssertionError("the vocabulary was embedded")

    monkeypatch.setattr(directions, "embed_vocabulary", fail)


def built(options: dict, encoder, sides, tmp_path):
    return read_recipe(Guidance(**options), encoder, tmp_path).direction(*sides)


@pytest.mark.usefixtures("no_vocabulary")
def test_the_default_is_raves_residual(encoder, sides, tmp_path):
    found, expected = built({}, encoder, sides, tmp_path), residual_guidance(*sides)
    assert torch.equal(found.vector, expected.vector)
    assert found.target == expected.target


@pytest.mark.usefixtures("no_vocabulary")
def test_a_pair_of_texts_gives_the_way_from_the_first_to_the_second(encoder, sides, tmp_path):
    texts = ["a dark photo", "a bright photo"]
    found = built({"direction": "texts", "texts": texts}, encoder, sides, tmp_path)
    dark, bright = encoder.embed_texts(texts)
    assert torch.allclose(found.vector, F.normalize(bright - dark, dim=0), atol=1e-6)
    assert found.target == pytest.approx(float(residual_guidance(*sides).well_lit @ found.vector), abs=1e-6)
    back = built({"direction": "texts", "texts": texts[::-1]}, encoder, sides, tmp_path)
    assert torch.allclose(back.vector, -found.vector, atol=1e-6)


@pytest.mark.usefixtures("no_vocabulary")
def test_removed_words_are_orthogonal_to_the_direction(encoder, sides, tmp_path):
    found = built({"remove": ["blue", "a green photo"]}, encoder, sides, tmp_path)
    assert (encoder.embed_texts(["blue", "a green photo"]) @ found.vector).abs().max() < 1e-5
    assert found.vector.norm() == pytest.approx(1)


def test_a_sum_is_shifted_and_then_loses_words(encoder, sides, tmp_path, monkeypatch):
    tokens = F.normalize(torch.randn(60, encoder.embed_dim, generator=torch.Generator().manual_seed(5)), dim=1)
    monkeypatch.setattr(directions, "embed_vocabulary", lambda *arguments: tokens)
    options = {"direction": "sum", "weights": {"folders": 2.0, "texts": -0.5}, "texts": ["dark", "bright"]}
    plain = built(options, encoder, sides, tmp_path)
    dark, bright = encoder.embed_texts(["dark", "bright"])
    expected = F.normalize(2 * residual_guidance(*sides).vector - 0.5 * F.normalize(bright - dark, dim=0), dim=0)
    assert torch.allclose(plain.vector, expected, atol=1e-6)
    both = built({**options, "remove_first_n_tokens": 4, "remove": ["blue"]}, encoder, sides, tmp_path)
    assert abs(float(both.vector @ encoder.embed_texts(["blue"])[0])) < 1e-5
    assert float(both.vector @ plain.vector) < 0.9999


def test_saved_directions_and_learned_pairs_are_read_back(encoder, sides, tmp_path):
    options = Guidance(direction="texts", texts=["dark", "bright"])
    guidance = read_recipe(options, encoder, tmp_path).direction(*sides)
    file = tmp_path / "direction.safetensors"
    save_direction(guidance, file, options, encoder, (5, 6))
    assert set(read_tensors(file)) == {"vector", "well_lit", "backlit", "difference"}
    about = read_metadata(file)
    assert about["direction"] == "'dark' → 'bright'"
    assert json.loads(about["guidance"])["texts"] == ["dark", "bright"]
    assert {"set_point", "encoder", "encoder_fingerprint", "commit", "command", "backlit_photos"} <= about.keys()
    again = built({"direction": "saved", "saved": str(file)}, encoder, sides, tmp_path)
    assert torch.allclose(again.vector, guidance.vector, atol=1e-6)
    assert again.target == pytest.approx(guidance.target, abs=1e-6)

    latents = torch.randn(2, encoder.embed_dim, generator=torch.Generator().manual_seed(1))
    save_guidance(LatentPair(latents), tmp_path / "latents.safetensors")
    backlit, well_lit = F.normalize(latents, dim=1)
    assert torch.allclose(
        load_direction(tmp_path / "latents.safetensors", encoder), F.normalize(well_lit - backlit, dim=0), atol=1e-6
    )
    torch.save({"module.guidance_embeddings": latents}, tmp_path / "published.pth")
    assert torch.allclose(
        load_direction(tmp_path / "published.pth", encoder), F.normalize(well_lit - backlit, dim=0), atol=1e-6
    )


def test_files_that_do_not_fit_are_refused_in_words(encoder, sides, tmp_path):
    other = load_clip("mini-clip", None)
    save_direction(residual_guidance(*sides), tmp_path / "other.safetensors", Guidance(), other, (5, 6))
    save_tensors({"vector": torch.zeros(encoder.embed_dim)}, tmp_path / "zeros.safetensors")
    save_tensors({"vector": torch.ones(64)}, tmp_path / "small.safetensors")
    save_tensors({"weight": torch.ones(3)}, tmp_path / "weights.safetensors")
    save_guidance(
        new_guidance("prompts", encoder, 2), tmp_path / "prompts.safetensors"
    )  # untrained: both prompts are the same
    for name, message in (
        ("other", "of the encoder mini-clip.*found one of mini-clip/random"),
        ("zeros", "finite direction"),
        ("small", rf"shape \({encoder.embed_dim},\).*\(64,\)"),
        ("weights", "expected one of the tensors vector, .* found 'weight'"),
        ("prompts", "same embedding"),
    ):
        with pytest.raises(UserError, match=rf"guidance\.saved: .*{message}"):
            load_direction(tmp_path / f"{name}.safetensors", encoder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "saved"}, r"guidance\.saved: expected a file"),
        (
            {"direction": "saved", "saved": "nowhere.safetensors"},
            r"guidance\.saved: expected a file, found nothing there",
        ),
        ({"direction": "sum", "weights": {"folders": 0.0}}, r"guidance\.weights: expected a weight other than 0"),
    ],
)
def test_keys_that_do_not_go_together(options, message):
    with pytest.raises(UserError, match=message):
        source_weights(Guidance(**options))


@pytest.mark.parametrize("options", [{"direction": "texts"}, {"remove": ["sky"]}, {"remove_first_n_tokens": 3}])
def test_words_need_a_text_tower(options, tmp_path):
    with pytest.raises(UserError, match=r"guidance\.\w+: needs an encoder with .*text tower.*, found timm/resnet10t"):
        read_recipe(Guidance(**options), load_clip("timm/resnet10t", None), tmp_path)


def test_texts_of_one_meaning_are_no_direction(encoder, tmp_path):
    with pytest.raises(UserError, match=r"guidance\.texts: 'dark', 'Dark': both have the same embedding"):
        read_recipe(Guidance(direction="texts", texts=["dark", "Dark"]), encoder, tmp_path)


def test_neither_order_nor_names_of_photos_count_and_swapping_the_folders_flips_the_sign(overrides, photo_folders):
    settings = config(overrides, WEIGHTS)
    folder_encoder = directions_encoder(settings)
    backlit, well_lit = (list_images(folder, "key") for folder in photo_folders)
    guidance, skipped = run_direction(settings, folder_encoder, backlit, well_lit)
    assert skipped == []
    shuffled, _ = run_direction(settings, folder_encoder, backlit[::-1], well_lit[::-1])
    assert torch.allclose(shuffled.vector, guidance.vector, atol=1e-6)
    swapped, _ = run_direction(settings, folder_encoder, well_lit, backlit)
    assert torch.allclose(swapped.vector, -guidance.vector, atol=1e-6)


@pytest.mark.parametrize("photos", ["welllit", "backlit", "both"])
def test_relit_is_the_residual_of_photos_and_their_relit_selves(overrides, photo_folders, photos):
    """Made anew from the pixels; which photos are on the other side does not matter where they are not used."""
    settings = config(overrides, WEIGHTS, "guidance.direction=relit", f"guidance.relit.photos={photos}")
    encoder = directions_encoder(settings)
    folders = dict(zip(("backlit", "welllit"), (list_images(folder, "key") for folder in photo_folders), strict=True))
    found, skipped = run_direction(settings, encoder, folders["backlit"], folders["welllit"])
    assert skipped == []
    lit, dark = [], []
    for side, paths in folders.items():
        if photos in (side, "both"):
            plain, _ = embed_photos(paths, encoder, settings.exp.cache_dir, 4, "key")
            change = darkening(BacklightRanges(foreground_stops=(2.0, 4.5))) if side == "welllit" else lifting(2.2)
            relit, _ = embed_photos(paths, encoder, settings.exp.cache_dir, 4, "key", relighting=change)
            assert not torch.allclose(relit, plain, atol=1e-3)
            lit.append(plain if side == "welllit" else relit)
            dark.append(relit if side == "welllit" else plain)
    expected = residual_guidance(torch.cat(lit), torch.cat(dark))
    assert torch.allclose(found.vector, expected.vector, atol=1e-6)
    assert found.target == pytest.approx(expected.target)
    pairs = (torch.cat(lit) - torch.cat(dark)) @ found.vector
    assert found.step == pytest.approx(float(pairs.mean()), abs=1e-6)
    assert found.step > 0
    if photos == "welllit":
        alone, _ = run_direction(settings, encoder, folders["welllit"][:1], folders["welllit"])
        assert torch.equal(alone.vector, found.vector)


def test_relit_pairs_depend_on_a_photos_content_alone_and_are_cached(overrides, photo_folders, tmp_path, monkeypatch):
    encoder, paths = directions_encoder(config(overrides, WEIGHTS)), list_images(photo_folders[1], "key")
    darken = darkening(BacklightRanges(foreground_share=(0.6, 0.8)))
    first, _ = embed_photos(paths, encoder, tmp_path / "one", 8, "key", relighting=darken)
    paths[0].rename(paths[0].with_name("zzz.png"))
    again, _ = embed_photos(
        list_images(photo_folders[1], "key")[::-1], encoder, tmp_path / "two", 3, "key", relighting=darken
    )
    assert torch.allclose(again[0], first[0], atol=1e-5)
    monkeypatch.setattr(encoder, "embed_images", None)  # from now on the cache has to do
    cached, _ = embed_photos(
        list_images(photo_folders[1], "key"), encoder, tmp_path / "one", 8, "key", relighting=darken
    )
    assert torch.equal(cached[-1], first[0])


def test_relit_is_a_source_of_a_sum(overrides, photo_folders):
    backlit, well_lit = (list_images(folder, "key") for folder in photo_folders)

    def direction(*options):
        settings = config(overrides, WEIGHTS, *(f"guidance.{option}" for option in options))
        return run_direction(settings, directions_encoder(settings), backlit, well_lit)[0]

    relit, folders = direction("direction=relit"), direction("direction=folders")
    both = direction("direction=sum", "weights={folders: 0.5, relit: 2.0}")
    assert torch.allclose(both.vector, F.normalize(0.5 * folders.vector + 2 * relit.vector, dim=0), atol=1e-6)
    assert both.target == pytest.approx(float(relit.well_lit @ both.vector))  # set points are those of the pairs


def test_words_lie_in_the_last_part_of_the_stages(photo_folders, overrides):
    """With stages: saved and read back, shifted and without words; the early stages keep what they say."""
    settings = config(overrides, LITE0, "guidance.layers=stages")
    encoder = directions_encoder(settings).in_layers("stages")
    backlit, well_lit = (list_images(folder, "key") for folder in photo_folders)
    plain, _ = run_direction(settings, encoder, backlit, well_lit)
    assert plain.vector.shape == (16 + 24 + 40 + 112 + 320 + 1280,)
    changed = config(overrides, LITE0, "guidance.layers=stages", "guidance.remove=[tabby]")
    without, _ = run_direction(changed, encoder, backlit, well_lit)
    assert abs(float(without.vector[-1280:] @ encoder.embed_words(["tabby"])[0])) < 1e-6
    early = slice(0, -1280)
    assert F.cosine_similarity(without.vector[early], plain.vector[early], dim=0) > 1 - 1e-6
    changed = config(overrides, LITE0, "guidance.layers=stages", "guidance.remove_first_n_tokens=5")
    shifted, _ = run_direction(changed, encoder, backlit, well_lit)
    assert F.cosine_similarity(shifted.vector[early], plain.vector[early], dim=0) > 1 - 1e-6
    assert F.cosine_similarity(shifted.vector[-1280:], plain.vector[-1280:], dim=0) < 0.999


def directions_encoder(settings):
    from training.embeddings import load_encoder

    return load_encoder(settings.clip.guidance, settings.clip, "cpu")


def test_description_names_everything():
    options = Guidance(direction="sum", weights={"texts": 0.5}, remove=["sky"], remove_first_n_tokens=15)
    assert describe(options) == (
        "1 × residual of the two folders + 0.5 × 'a backlit photo' → 'a well-lit photo', shifted by 15 tokens, "
        "without 'sky'"
    )


def test_a_training_keeps_its_direction_and_shows_where_the_enhanced_photos_are_on_it(overrides, capsys):
    run = train(config(overrides, WEIGHTS, "guidance.direction=texts", "guidance.texts=[a dark photo, a bright photo]"))
    about = read_metadata(run / "checkpoints/direction.safetensors")
    steps = [line for line in metrics(run) if line.get("phase") == "rave" and "loss" in line]
    for line in steps:
        assert line["set_point"] == pytest.approx(float(about["set_point"]))
        assert line["backlit_projection"] == pytest.approx(
            float(read_tensors(run / "checkpoints/direction.safetensors")["backlit"] @ vector(run))
        )
        assert -1 <= line["projection"] <= 1
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"train/projection", "train/set_point", "train/backlit_projection"} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("train/projection")] == pytest.approx(
        [line["projection"] for line in steps]
    )
    assert "direction  'a dark photo' → 'a bright photo'" in capsys.readouterr().out


def vector(run):
    return read_tensors(run / "checkpoints/direction.safetensors")["vector"]


def test_a_dry_run_tells_of_a_missing_file(overrides):
    with pytest.raises(UserError, match=r"guidance\.saved: expected a file"):
        train(config(overrides, "guidance.direction=saved", "guidance.saved=nowhere.safetensors"), dry_run=True)
