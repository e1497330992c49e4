"""lab/train_mini_clip.py: captions say what was done, the loss has its reference, a run writes a file that loads."""

import json
import random

import pytest
import torch
import torch.nn.functional as F

from lab import train_mini_clip as tool
from models.clip_encoder import load_clip
from models.weight_files import read_metadata


@pytest.fixture(scope="module")
def photos():
    generator = torch.Generator().manual_seed(0)
    return [
        F.interpolate(torch.rand(1, 3, 6, 6, generator=generator), (64, 64), mode="bilinear")[0] * 0.8 + 0.1
        for _ in range(4)
    ]


def test_a_run_writes_an_encoder_with_both_towers_and_its_figures(photo_folders, tmp_path, capsys):
    backlit, well_lit = photo_folders
    out = tmp_path / "clip.safetensors"
    arguments = [
        "--well-lit",
        str(well_lit),
        "--backlit",
        str(backlit),
        "--out",
        str(out),
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    assert tool.main([*arguments, "--steps", "3", "--batch", "8"]) == 0
    printed = json.loads(capsys.readouterr().out)
    metadata = read_metadata(out)
    assert json.loads(metadata["figures"]) == printed
    assert (metadata["steps"], metadata["seed"]) == ("3", "0")
    assert set(printed["response"]) == {f"{stops:+g}" for stops in tool.CURVE}
    encoder = load_clip("mini-clip", str(out))
    assert encoder.has_text
    assert encoder.model.visual.attnpool.c_proj.weight.dtype == torch.float32
    assert torch.isfinite(encoder.embed_images(torch.rand(2, 3, 40, 40))).all()
    unseen = encoder.embed_texts(["zebra", "piano"])  # words of no caption mean the same: nothing
    assert torch.allclose(unseen[0], unseen[1], atol=1e-6)
    assert not torch.allclose(unseen[0], encoder.embed_texts(["dark"])[0], atol=1e-3)


@pytest.mark.slow
def test_the_loss_falls_and_a_run_is_repeatable(photo_folders, tmp_path):
    backlit, well_lit = photo_folders
    arguments = [
        "--well-lit",
        str(well_lit),
        "--backlit",
        str(backlit),
        "--cache-dir",
        str(tmp_path / "cache"),
        "--steps",
        "12",
        "--batch",
        "8",
    ]
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for file in files:
        assert tool.main([*arguments, "--out", str(file)]) == 0
    figures = json.loads(read_metadata(files[0])["figures"])
    assert figures["loss_last"] < figures["loss_first"]
    assert load_clip("mini-clip", str(files[0])).fingerprint(text=True) == load_clip(
        "mini-clip", str(files[1])
    ).fingerprint(text=True)


def test_what_is_said_of_a_crop_is_what_was_done(photos):
    generator = torch.Generator().manual_seed(1)
    images, truth, stops, known = tool.relit_batch(photos, photos, 64, generator, side=32)
    assert images.shape == (64, 3, 32, 32)
    assert images.min() >= 0 and images.max() <= 1
    assert truth.shape == (64, len(tool.VALUES))
    assert truth.min() >= 0 and truth.max() <= 1
    assert (stops[known, 1] <= 0).all()
    says = dict(zip(tool.VALUES, truth.T, strict=True))
    brightness = images.mean(dim=(1, 2, 3))
    assert brightness[says["very dark"] > 0.9].max() < brightness[says["over-exposed"] > 0.9].min()
    assert (stops[known & (says["dark"] == 1), 0] <= -1.1).all()
    assert (says["well lit"][known & (stops[:, 0].abs() > 1.3)] == 0).all()


@pytest.mark.parametrize(
    ("stops", "front", "expected"),
    [
        (0.0, 0.0, {"well lit"}),
        (-1.5, 0.0, {"dark", "badly exposed"}),
        (-3.5, 0.0, {"dark", "very dark", "badly exposed"}),
        (1.5, 0.0, {"over-exposed", "badly exposed"}),
        (0.0, 2.0, {"backlit", "badly exposed"}),
    ],
)
def test_light_words(stops, front, expected):
    truth = tool.light_truth(torch.tensor([stops]), torch.tensor([front]), torch.zeros(1))
    assert {name for name, value in truth.items() if value > 0.6} == expected


def test_colour_words_are_those_of_the_crop():
    crops = torch.zeros(3, 3, 32, 32) + 0.1
    crops[0, 0], crops[1, 2], crops[2] = 0.8, 0.8, 0.5
    truth = tool.looks_truth(crops)
    assert truth["red"].tolist() == [1, 0, 0]
    assert truth["blue"].tolist() == [0, 1, 0]
    assert truth["greyish"].tolist() == [0, 0, 1]
    assert truth["colourful"].tolist() == [1, 1, 0]
    assert truth["smooth"].tolist() == [1, 1, 1]


def test_captions_are_made_of_true_words_only():
    truth = torch.zeros(len(tool.VALUES))
    true = [tool.VALUES.index(name) for name in ("over-exposed", "blue", "noisy")]
    truth[true] = 1
    words = random.Random(0)
    captions = [tool.compose(truth, words) for _ in range(200)]
    false = {word for name in tool.VALUES if truth[tool.VALUES.index(name)] == 0 for word in tool.WORDS[name]}
    for text, claims in captions:
        assert set(claims) <= set(true)
        assert not false & set(text.replace(",", " ").split())
        for claim in claims:
            assert any(word in text for word in tool.WORDS[tool.VALUES[claim]])
    assert any(not claims for _, claims in captions)
    assert {claim for _, claims in captions for claim in claims} == set(true)


def test_a_caption_holds_as_far_as_its_weakest_claim():
    truth = torch.tensor([[1.0, 0.5, 0.0], [0.2, 1.0, 1.0]])
    assert tool.caption_truth(truth, [(0,), (0, 1), ()]).tolist() == [
        pytest.approx([1, 0.5, 0.5]),
        pytest.approx([0.2, 0.2, 0.5]),
    ]


def test_caption_loss_is_that_of_clip_where_every_caption_is_true_of_one_image():
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(5, 8, generator=generator), dim=-1) for _ in range(2))
    logits, labels = 10 * images @ texts.T, torch.arange(5)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert torch.allclose(tool.caption_loss(images, texts, torch.eye(5), 10.0), expected)


def test_captions_of_one_meaning_are_no_negatives_of_each_other():
    images = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=-1)
    truth = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    aligned = tool.caption_loss(images, images, truth, 10.0)
    apart = tool.caption_loss(images, images[[0, 2, 2]], truth, 10.0)
    assert aligned < apart
