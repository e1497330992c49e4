"""lab/train_mini_clip.py: captions say what was done, the loss has its reference, a run writes a file that loads."""

import json
import random

import pytest
import torch
import torch.nn.functional as F

from lab import captions, relit_crops
from lab import train_mini_clip as tool
from lab.mini_clip_figures import CURVE
from models import mini_clip
from models.clip_encoder import ClipEncoder
from models.clip_networks import Wanted
from models.weight_files import read_metadata


@pytest.fixture(scope="module")
def photos():
    generator = torch.Generator().manual_seed(0)
    return [
        F.interpolate(torch.rand(1, 3, 6, 6, generator=generator), (64, 64), mode="bilinear")[0] * 0.8 + 0.1
        for _ in range(4)
    ]


COUNTS = ["--crops", "8", "--steps", "2", "--text-steps", "2", "--batch", "8"]


@pytest.fixture
def arguments(photo_folders, tmp_path):
    backlit, well_lit = map(str, photo_folders)
    return ["--well-lit", well_lit, "--backlit", backlit, "--cache-dir", str(tmp_path / "cache"), *COUNTS]


def load(file) -> ClipEncoder:
    return ClipEncoder(mini_clip.from_file(Wanted(mini_clip.NAME, file=str(file))))


def test_a_run_writes_an_encoder_with_both_towers_and_its_figures(arguments, tmp_path, capsys):
    out = tmp_path / "clip.safetensors"
    arguments += ["--out", str(out), "--json", str(tmp_path / "figures.json")]
    assert tool.main(arguments) == 0
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["figures"] == json.loads(capsys.readouterr().out) and "commit" in written
    metadata = read_metadata(out)
    assert json.loads(metadata["figures"]).items() <= written["figures"].items()
    assert (metadata["steps"], metadata["seed"]) == ("2", "0")
    assert set(written["figures"]["response"]) == {f"{stops:+g}" for stops in CURVE}
    encoder = load(out)
    assert encoder.words()[0] == captions.vocabulary()
    unknown = encoder.embed_texts(["quantum", "spaceship"])  # words of no caption mean the same: nothing
    assert torch.allclose(unknown[0], unknown[1], atol=1e-6)
    assert not torch.allclose(unknown[0], encoder.embed_texts(["zebra"])[0], atol=1e-3)


@pytest.mark.slow
def test_losses_fall_and_a_run_is_repeatable(arguments, tmp_path):
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for file in files:
        assert tool.main([*arguments, "--steps", "12", "--text-steps", "12", "--out", str(file)]) == 0
    figures = json.loads(read_metadata(files[0])["figures"])
    for first, last in (figures["light_loss"], figures["text_loss"]):
        assert last < first
    assert load(files[0]).fingerprint(text=True) == load(files[1]).fingerprint(text=True)


@pytest.fixture(scope="module")
def content():
    """The classifier, vectors of made-up crops, and the projection of content with all that tells 999 classes apart."""
    classifier = tool.Classifier()
    vectors = F.normalize(torch.rand(300, 1792, generator=torch.Generator().manual_seed(0)), dim=1)
    truth = torch.ones(300, len(captions.VALUES))
    features = tool.Features(vectors, truth, torch.zeros(300, 2), truth[:, 0] > 0)
    visual = mini_clip.ImageTower(classifier.trunk).eval()
    visual.content = torch.nn.Linear(1280, 999)
    deviation, mean = torch.std_mean(vectors, dim=0)
    visual.norm.running_mean.copy_(mean)
    visual.norm.running_var.copy_(deviation.square())
    return classifier, vectors, visual, tool.content_of_classes(visual, features, classifier)


def test_the_content_of_photos_and_classes_is_what_the_classifier_says_of_them(content):
    """Where all dimensions are kept, dot products are the centred logits, up to the length of each class's vector."""
    classifier, vectors, visual, classes = content
    last = vectors[:, -1280:]
    logits = (last - last.mean(dim=0)) @ (classifier.rows - classifier.rows.mean(dim=0)).T
    found = visual.content(visual.norm(vectors)[:, -1280:]).detach() @ classes.T
    for c in (0, 207, 999):
        assert torch.corrcoef(torch.stack([found[:, c], logits[:, c]]))[0, 1] > 0.999
    assert torch.allclose(classes.norm(dim=1), torch.ones(1000), atol=1e-5)


def test_a_caption_lies_half_way_between_its_thing_and_its_light(content):
    values = F.normalize(torch.randn(len(captions.VALUES), 32, generator=torch.Generator().manual_seed(0)), dim=1)
    concepts = tool.concept_vectors(content[3][:, :224], values)
    assert concepts.shape == (len(captions.WORDS), 256)
    zebra, backlit, noisy = captions.FIRST_THING + 340, *map(captions.VALUES.index, ("backlit", "noisy"))
    whole = tool.caption_vector(concepts, (zebra, backlit, noisy))
    thing, light = (tool.caption_vector(concepts, claims) for claims in ((zebra,), (backlit, noisy)))
    assert float(whole @ thing) == pytest.approx(0.5**0.5, abs=1e-5) == float(whole @ light)
    assert captions.WORDS[captions.FIRST_THING + 207] == ("golden retriever",) and 207 in captions.GROUPS["dog"]
    dogs = concepts[captions.FIRST_THING :][list(captions.GROUPS["dog"])]
    group = concepts[[words[0] for words in captions.WORDS].index("dog")]
    assert float((dogs @ group).mean()) > float((concepts[captions.FIRST_THING :][:1000] @ group).mean())


def test_what_is_said_of_a_crop_is_what_was_done(photos):
    generator = torch.Generator().manual_seed(1)
    crops, kinds = relit_crops.draw_crops(photos, photos, 64, generator, 32)
    relit = relit_crops.relight(crops, kinds, generator)
    assert relit.images.shape == (64, 3, 32, 32)
    assert relit.images.min() >= 0 and relit.images.max() <= 1
    assert relit.truth.shape == (64, len(captions.VALUES))
    assert relit.truth.min() >= 0 and relit.truth.max() <= 1
    assert (relit.stops[relit.known, 1] <= 0).all()
    says = dict(zip(captions.VALUES, relit.truth.T, strict=True))
    brightness = relit.images.mean(dim=(1, 2, 3))
    assert brightness[says["very dark"] > 0.9].max() < brightness[says["over-exposed"] > 0.9].min()
    assert (relit.stops[relit.known & (says["dark"] == 1), 0] <= -1.1).all()
    assert (says["well lit"][relit.known & (relit.stops[:, 0].abs() > 1.3)] == 0).all()


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
    truth = relit_crops.light_truth(torch.tensor([stops]), torch.tensor([front]), torch.zeros(1))
    assert {name for name, value in truth.items() if value > 0.6} == expected


def test_colour_words_are_those_of_the_crop():
    crops = torch.zeros(3, 3, 32, 32) + 0.1
    crops[0, 0], crops[1, 2], crops[2] = 0.8, 0.8, 0.5
    truth = relit_crops.colour_truth(crops)
    assert truth["red"].tolist() == [1, 0, 0]
    assert truth["blue"].tolist() == [0, 1, 0]
    assert truth["greyish"].tolist() == [0, 0, 1]
    assert truth["colourful"].tolist() == [1, 1, 0]


def test_captions_are_made_of_true_words_only():
    truth = torch.zeros(len(captions.WORDS))
    true = [captions.VALUES.index(name) for name in ("over-exposed", "blue", "noisy")]
    true.append(captions.FIRST_THING + 340)  # zebra
    truth[true] = 1
    words = random.Random(0)
    composed = [captions.compose(truth, words) for _ in range(1000)]
    false = {word for i, said in enumerate(captions.WORDS) if truth[i] == 0 for word in said} - {"photo"}
    for text, claims in composed:
        assert set(claims) <= set(true)
        rest = text.replace("too bright", "")  # true, and "bright" alone is not
        assert not false & set(rest.replace(",", " ").replace(".", " ").split())
        for claim in claims:
            assert any(word in text for word in captions.WORDS[claim])
    assert any(not claims for _, claims in composed)
    assert {claim for _, claims in composed for claim in claims} == set(true)
    assert {"a photo of a zebra", "a photo of a zebra, blown out"} <= {text for text, _ in composed}


def test_a_caption_holds_as_far_as_its_weakest_claim():
    truth = torch.tensor([[1.0, 0.5, 0.0], [0.2, 1.0, 1.0]])
    assert captions.caption_truth(truth, [(0,), (0, 1), ()]).tolist() == [
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
