"""The frozen encoder: equality with the authors' CLIP code and with CLIP written out, gradients, freezing, loading."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.errors import UserError
from data.backlight import linear_to_srgb, srgb_to_linear
from data.samples import sample_picture
from models.checkpoints import read_tensors, save_tensors
from models.clip_encoder import load_clip

PRETRAINED = Path(__file__).resolve().parents[2] / "pretrained_models"


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.fixture(scope="module")
def mini():
    return load_clip("mini-rn", None, seed=3)


def test_image_features_equal_the_authors(vit, tiny_clip):
    expected = F.normalize(tiny_clip["expected"]["image_features"], dim=-1)
    assert relative(vit.embed_images(tiny_clip["inputs"]["pred"]), expected) < 1e-5


def test_feature_maps_equal_the_authors(resnet, tiny_clip):
    maps = resnet.feature_maps(tiny_clip["inputs"]["pred"])
    assert len(maps) == 5
    for level, found in enumerate(maps):
        assert relative(found, tiny_clip["expected"][f"rn_layer{level}"]) < 1e-5


def test_texts_and_prompts_equal_the_authors(vit, tiny_clip, golden_folder):
    expected = tiny_clip["expected"]
    words = (golden_folder / "words.txt").read_text().split()
    assert relative(vit.embed_texts(words, batch_size=5), F.normalize(expected["word_text_features"], dim=-1)) < 1e-5
    eos = int(expected["prompt_tokens"].argmax())
    assert relative(vit.embed_prompts(expected["prompt_embedding"], eos), expected["prompt_text_features"]) < 1e-5


def test_openai_file_is_not_rounded_to_half_precision(vit, golden_folder):
    with np.load(golden_folder / "tiny_vit_openai.npz") as given:
        assert np.array_equal(vit.model.visual.proj.numpy(), given["visual.proj"])


def test_prompts_through_both_kinds_of_text_tower(mini):
    """A prompt made of a text's own token embeddings embeds as that text does: plain CLIP and custom-text CLIP."""
    import open_clip

    custom = open_clip.create_model("mini-rn", pretrained=None, force_custom_text=True).eval()
    tokens = open_clip.get_tokenizer("mini-rn")(["a backlit photo", "sky"])
    eos = tokens.argmax(dim=-1)
    assert torch.allclose(
        mini.embed_prompts(mini.model.token_embedding(tokens), eos), mini.model.encode_text(tokens), atol=1e-5
    )
    mini_custom = load_clip("mini-rn", None)
    mini_custom.model = custom
    assert torch.allclose(
        mini_custom.embed_prompts(custom.text.token_embedding(tokens), eos), custom.encode_text(tokens), atol=1e-5
    )


def test_frozen_but_differentiable(mini):
    assert not mini.train().training
    assert not any(module.training for module in mini.modules())
    images = torch.rand(2, 3, 40, 60, requires_grad=True)
    (mini.embed_images(images).sum() + sum(m.square().mean() for m in mini.feature_maps(images))).backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in mini.parameters())


def test_unit_norm_and_batching(mini):
    images = torch.rand(3, 3, 50, 70)
    together = mini.embed_images(images)
    assert together.shape == (3, mini.embed_dim)
    assert torch.allclose(together.norm(dim=-1), torch.ones(3), atol=1e-6)
    assert torch.allclose(together, torch.cat([mini.embed_images(i[None]) for i in images]), atol=1e-6)


def test_random_weights_depend_on_the_seed_alone(mini):
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    again, other = load_clip("mini-rn", None, seed=3), load_clip("mini-rn", None, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.fingerprint() == mini.fingerprint() != other.fingerprint()


def test_preprocessing_changes_embedding_and_fingerprint(mini):
    crop = load_clip("mini-rn", None, seed=3, preprocess="center_crop")
    wide = torch.rand(1, 3, 60, 180)
    assert crop.to_input_size(wide).shape == mini.to_input_size(wide).shape == (1, 3, 96, 96)
    assert not torch.allclose(crop.embed_images(wide), mini.embed_images(wide))
    assert crop.fingerprint() != mini.fingerprint()
    middle = crop.to_input_size(wide)
    assert torch.allclose(
        middle, F.interpolate(wide, (96, 288), mode="bicubic", antialias=True).clamp(0, 1)[..., 96:192]
    )


def test_bf16_is_close_and_returns_float32(mini):
    low = load_clip("mini-rn", None, seed=3, precision="bf16")
    images = torch.rand(2, 3, 64, 64)
    assert low.embed_images(images).dtype == torch.float32
    assert F.cosine_similarity(low.embed_images(images), mini.embed_images(images)).min() > 0.999


def test_image_only_trunk():
    encoder = load_clip("timm/resnet10t", None)
    images = torch.rand(1, 3, 64, 64)
    assert encoder.embed_images(images).shape == (1, encoder.embed_dim)
    assert len(encoder.feature_maps(images)) == 5
    assert not encoder.has_text
    with pytest.raises(UserError, match="image-only"):
        encoder.embed_texts(["dark"])


def test_local_weight_file(mini, tmp_path):
    from safetensors.torch import save_file

    save_file(
        {name: tensor.contiguous() for name, tensor in mini.model.state_dict().items()}, tmp_path / "mini.safetensors"
    )
    assert load_clip("mini-rn", str(tmp_path / "mini.safetensors"), seed=9).fingerprint() == mini.fingerprint()


def test_image_tower_alone_from_a_file(mini, tmp_path):
    from safetensors.torch import save_file

    tower = {f"visual.{name}": tensor.contiguous() for name, tensor in mini.model.visual.state_dict().items()}
    save_file(tower, tmp_path / "tower.safetensors")
    encoder = load_clip("mini-rn", str(tmp_path / "tower.safetensors"), seed=9)
    assert encoder.fingerprint() == mini.fingerprint()
    assert not encoder.has_text
    with pytest.raises(UserError, match="naming"):
        load_clip("auto", str(tmp_path / "tower.safetensors"))


def test_transformer_has_no_identity_features(vit):
    for maps in (vit.feature_maps, vit.embed_with_maps):
        with pytest.raises(UserError, match="five feature maps"):
            maps(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("model", ["mini-rn", "mini-clip", "timm/resnet10t"])
def test_embedding_and_maps_of_one_pass_are_those_of_two(model):
    encoder, images = load_clip(model, None), torch.rand(2, 3, 64, 64)
    embeddings, maps = encoder.embed_with_maps(images)
    assert torch.allclose(embeddings, encoder.embed_images(images), atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(maps, encoder.feature_maps(images), strict=True))


@pytest.mark.parametrize("model", ["mini-rn", "timm/resnet10t"])
def test_layers_above_the_last_map_are_not_computed(model):
    encoder, images = load_clip(model, None), torch.rand(2, 3, 64, 64)
    tower, run = getattr(encoder.model, "visual", encoder.model), []
    for name in ("layer1", "layer2", "layer3", "layer4", "attnpool", "global_pool"):
        if hasattr(tower, name):
            getattr(tower, name).register_forward_hook(lambda *_, name=name: run.append(name))
    first = encoder.feature_maps(images, 3)
    assert run == ["layer1", "layer2"]
    run.clear()
    maps = encoder.feature_maps(images)
    assert run == ["layer1", "layer2", "layer3", "layer4"]
    assert all(torch.equal(a, b) for a, b in zip(first, maps[:3], strict=True))


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B-33", "openai", "did you mean ViT-B-32"),
        ("mini-klip", None, "did you mean mini-clip"),
        ("ViT-B-32", "opnai", "unknown pretrained tag 'opnai'"),
        ("mini-rn", "openai", "mini-rn has none"),
        ("RN101", "missing.pt", "found nothing there"),
        ("auto", None, "expected a weight file"),
        ("timm/resnet_nope", None, "unknown to timm"),
    ],
)
def test_wrong_names_are_told(model, pretrained, message):
    with pytest.raises(UserError, match=message):
        load_clip(model, pretrained)


@pytest.fixture(scope="module")
def mini_clip():
    return load_clip("mini-clip", str(PRETRAINED / "mini-clip.safetensors"))


def dark_and_bright(*names: str) -> torch.Tensor:
    """Each of scikit-image's pictures three stops darker, then as it is, (2,3,224,224)."""
    pictures = [torch.from_numpy(sample_picture(name).copy()).permute(2, 0, 1)[None].float() / 255 for name in names]
    photos = torch.cat([F.interpolate(picture, (224, 224), mode="bilinear", antialias=True) for picture in pictures])
    return torch.stack([linear_to_srgb(srgb_to_linear(photos) / 8), photos], dim=1).flatten(0, 1)


def test_the_shipped_mini_clip_knows_light_and_things_that_it_never_saw(mini_clip):
    """The file in pretrained_models, on pictures that were not trained on."""
    dark, bright, dark_cup, cup = mini_clip.embed_images(dark_and_bright("chelsea.png", "coffee.png"))
    backlit, well_lit = mini_clip.embed_texts(["a backlit photo", "a well-lit photo"])
    assert all(photo @ backlit > photo @ well_lit for photo in (dark, dark_cup))
    assert all(photo @ backlit < photo @ well_lit for photo in (bright, cup))
    caption = mini_clip.embed_texts(["a photo of a cat, backlit"])[0]
    assert dark @ caption > max(bright @ caption, dark_cup @ caption, cup @ caption)
    unknown = mini_clip.embed_texts(["quantum", "spaceship"])
    assert torch.allclose(unknown[0], unknown[1], atol=1e-5)


def test_mini_clip_reads_its_space_by_the_words_that_it_knows(mini_clip):
    names, vectors = mini_clip.vocabulary()
    assert {"backlit", "well-lit", "Egyptian cat", "dog"} < set(names)
    assert mini_clip.vocabulary_kind == "words" and vectors.shape == (len(names), mini_clip.embed_dim)
    bright = mini_clip.embed_images(dark_and_bright("chelsea.png"))[1]
    things = [(name, float(vector @ bright)) for name, vector in zip(names, vectors, strict=True)]
    assert {"cat", "Egyptian cat", "tabby"} & {name for name, _ in sorted(things, key=lambda thing: -thing[1])[:10]}


def test_mini_clips_file_holds_no_weights_of_the_package(mini_clip):
    tensors = read_tensors(PRETRAINED / "mini-clip.safetensors")
    assert not [name for name in tensors if "trunk" in name]
    lite0 = load_clip("efficientnet-lite0", "imagenet", image_size=128)
    images = torch.rand(1, 3, 64, 64)
    maps = mini_clip.feature_maps(images)
    assert all(torch.equal(a, b) for a, b in zip(maps, lite0.feature_maps(images), strict=True))


def test_a_file_that_is_no_mini_clip_is_refused(mini, tmp_path):
    save_tensors(mini.model.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors: .*mini-clip"):
        load_clip("mini-clip", str(tmp_path / "other.safetensors"))
    with pytest.raises(UserError, match="'mini-clip': unknown pretrained tag 'imagenet'"):
        load_clip("mini-clip", "imagenet")


@pytest.mark.parametrize(
    ("name", "change", "words", "message"),
    [
        ("text.token_embedding.weight", lambda weight: weight[0, 0], "[]", "expected shape"),
        ("text.token_embedding.weight", lambda weight: weight[:1].repeat(60000, 1), "[]", "expected shape"),
        ("text.token_embedding.rows", lambda rows: rows + 1, "[]", "expected tokens in rows 0 to"),
        ("text.token_embedding.rows", lambda rows: rows, '["backlit"', "expected a list of words"),
    ],
)
def test_a_damaged_mini_clip_is_refused(tmp_path, name, change, words, message):
    tensors = read_tensors(PRETRAINED / "mini-clip.safetensors")
    save_tensors(tensors | {name: change(tensors[name])}, tmp_path / "damaged.safetensors", {"words": words})
    with pytest.raises(UserError, match=rf"damaged\.safetensors: .*{message}"):
        load_clip("mini-clip", str(tmp_path / "damaged.safetensors"))


@pytest.mark.parametrize("kind", ["mini-rn", "mini-clip", "efficientnet-lite0"])
def test_stages_are_the_channel_means_of_the_maps_and_the_last_vector(kind, mini):
    """By hand from the maps; the encoder that it was made of stays as it is, and both have caches of their own."""
    encoder = mini if kind == "mini-rn" else load_clip(kind, "imagenet" if kind == "efficientnet-lite0" else None)
    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0)).requires_grad_()
    stages = encoder.in_layers("stages")
    found = stages.embed_images(images)
    parts = [F.normalize(m.mean(dim=(2, 3)), dim=1) for m in encoder.feature_maps(images)]
    parts.append(encoder.embed_images(images))
    assert torch.allclose(found, torch.cat(parts, dim=1) / 6**0.5, atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(2))
    assert found.shape[1] == stages.embed_dim == sum(part.shape[1] for part in parts)
    assert encoder.embed_images(images).shape[1] == encoder.embed_dim
    assert stages.fingerprint() != encoder.fingerprint()
    assert stages.name == f"{encoder.name}, stages"
    assert stages.in_layers("last").fingerprint() == encoder.fingerprint()
    found[:, 0].sum().backward()
    assert images.grad.abs().sum() > 0


def test_stages_need_five_maps(vit):
    with pytest.raises(UserError, match="five feature maps"):
        vit.in_layers("stages")


def test_input_size_of_ones_own():
    """Convolutional networks take it, and photos in another size have a cache of their own; transformers say no."""
    own, small = load_clip("timm/resnet10t", None), load_clip("timm/resnet10t", None, image_size=96)
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(small.embed_images(images), F.normalize(own._image_features((images - own.mean) / own.std)))
    assert small.fingerprint() != own.fingerprint()
    with pytest.raises(UserError, match=r"clip\.image_size: .* takes images of 224 px alone, found 96"):
        load_clip("timm/vit_tiny_patch16_224", None, image_size=96)
