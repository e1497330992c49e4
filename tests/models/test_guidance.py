"""The learned guidance: prompts through both kinds of text tower, latent vectors, our files and the releases'."""

import open_clip
import pytest
import torch

from common.errors import UserError
from losses.guidance import initialisation_loss
from models.checkpoints import save_tensors
from models.clip_encoder import ClipEncoder, load_clip
from models.clip_networks import Built
from models.guidance import LatentPair, PromptPair, load_guidance, new_guidance, save_guidance
from models.weight_files import read_metadata

PROMPT = " ".join(["X"] * 16)


@pytest.fixture(scope="module")
def plain():
    return load_clip("mini-rn", None)


@pytest.fixture(scope="module")
def custom(plain):
    """An encoder whose text tower is a module of its own, as open_clip's custom-text models have it."""
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    network, half = open_clip.CustomTextCLIP(**config), (0.5, 0.5, 0.5)
    tokenizer = open_clip.SimpleTokenizer()
    return ClipEncoder(Built(network=network, name="custom", image_size=32, mean=half, std=half, tokenizer=tokenizer))


@pytest.fixture(params=["plain", "custom"])
def encoder(request):
    return request.getfixturevalue(request.param)


def test_prompts_start_as_the_text_of_xs(encoder):
    pair = new_guidance("prompts", encoder)
    assert torch.equal(pair.prompt_embedding[0], pair.prompt_embedding[1])
    vectors = torch.nn.functional.normalize(pair(encoder), dim=-1)
    assert torch.allclose(vectors, encoder.embed_texts([PROMPT, PROMPT]), atol=1e-5)


def test_prompts_start_from_texts_of_ones_own(encoder, tmp_path):
    texts = ["a dark photo taken against the sun", "a well-lit photo"]
    pair = new_guidance("prompts", encoder, texts=texts)
    expected = encoder.embed_texts(texts)
    assert torch.allclose(torch.nn.functional.normalize(pair(encoder), dim=-1), expected, atol=1e-5)
    save_guidance(pair, tmp_path / "pair.safetensors")  # which keeps where each of the two ends
    loaded = load_guidance(tmp_path / "pair.safetensors", "prompts", encoder)
    assert torch.equal(loaded(encoder), pair(encoder)) and len(set(loaded.ends)) == 2


@pytest.mark.parametrize("about", [{"ends": "[1, 77]"}, {"ends": "[1]"}, {"ends": "x"}, {"eos_index": "7.5"}])
def test_damaged_ends_of_prompts_are_refused(plain, tmp_path, about):
    save_tensors(new_guidance("prompts", plain).state_dict(), tmp_path / "odd.safetensors", about)
    with pytest.raises(UserError, match=r"odd\.safetensors: expected two positions"):
        load_guidance(tmp_path / "odd.safetensors", "prompts", plain)


def test_texts_are_cut_to_the_longest_without_changing_them(encoder):
    texts = ["dark", "a photo of a well-lit street at noon", ""]
    tokens = encoder._tokenizer(texts)
    whole = torch.nn.functional.normalize(encoder.model.encode_text(tokens), dim=-1)
    assert torch.allclose(encoder.embed_texts(texts), whole, atol=1e-6)
    assert torch.allclose(encoder.embed_texts(texts, batch_size=1), whole, atol=1e-6)


def test_only_the_pair_is_trained(encoder):
    for kind in ("prompts", "latents"):
        pair = new_guidance(kind, encoder)
        embeddings = encoder.embed_images(torch.rand(4, 3, 32, 32))
        initialisation_loss(embeddings, pair(encoder), torch.tensor([0, 0, 1, 1])).backward()
        (parameter,) = pair.parameters()
        assert parameter.grad.abs().sum() > 0
        assert all(p.grad is None for p in encoder.parameters())


def test_golden_prompts_through_the_pair(vit, tiny_clip):
    expected = tiny_clip["expected"]
    pair = PromptPair(expected["prompt_embedding"], expected["prompt_tokens"].argmax(dim=-1).expand(2).tolist())
    assert torch.allclose(pair(vit), expected["prompt_text_features"], atol=1e-5)


@pytest.mark.parametrize("kind", ["prompts", "latents"])
def test_files_of_ours_and_of_the_releases(kind, plain, tmp_path):
    pair = new_guidance(kind, plain, length_prompt=5)
    (name,) = pair.state_dict()
    trained = {name: torch.randn_like(pair.state_dict()[name])}
    pair.load_state_dict(trained)

    save_guidance(pair, tmp_path / "ours.safetensors", {"run": "x"})
    assert read_metadata(tmp_path / "ours.safetensors")["run"] == "x"
    torch.save(trained, tmp_path / "release.pth")
    torch.save({f"module.{name}": trained[name]}, tmp_path / "parallel.pth")
    for file in ("ours.safetensors", "release.pth", "parallel.pth"):
        loaded = load_guidance(tmp_path / file, kind, plain, length_prompt=5)
        assert torch.equal(loaded(plain), pair(plain)), file
    if kind == "prompts":  # our file says where the prompt ends, whatever the config says
        assert load_guidance(tmp_path / "ours.safetensors", kind, plain, length_prompt=16).ends == (6, 6)


def test_files_that_do_not_fit_are_told(plain, tmp_path):
    save_guidance(LatentPair(torch.randn(2, plain.embed_dim)), tmp_path / "latents.safetensors")
    with pytest.raises(UserError, match=r"expected a pair of prompts \('prompt_embedding'\), found a pair of latents"):
        load_guidance(tmp_path / "latents.safetensors", "prompts", plain)
    save_guidance(LatentPair(torch.randn(2, 7)), tmp_path / "narrow.safetensors")
    with pytest.raises(UserError, match=r"expected shape \(2, 128\) for mini-rn/random, found \(2, 7\)"):
        load_guidance(tmp_path / "narrow.safetensors", "latents", plain)
    save_guidance(LatentPair(torch.full((2, plain.embed_dim), torch.nan)), tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match="NaN or infinity"):
        load_guidance(tmp_path / "nan.safetensors", "latents", plain)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"found 1 tensors \(such as 'weights'\)"):
        load_guidance(tmp_path / "other.pth", "latents", plain)


def test_prompts_need_a_text_tower():
    trunk = load_clip("timm/resnet18", None)
    with pytest.raises(UserError, match="expected an encoder with a text tower"):
        new_guidance("prompts", trunk)
    assert new_guidance("latents", trunk)(trunk).shape == (2, 512)
    with pytest.raises(ValueError, match="kind: expected one of prompts, latents"):
        new_guidance("text", trunk)
