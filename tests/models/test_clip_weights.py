"""Which activation weights need, and which files are opened: tags, files, OpenAI's archives, timm's classifiers."""

import hashlib
import warnings
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from common.errors import UserError
from models.clip_encoder import load_clip
from models.clip_networks import Wanted, activation_of_tag
from models.clip_weights import in_clip_cache, known_config, openai_archives, tag_config
from models.weight_files import read_content

OPENAI = {
    "ViT-B-32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A small CLIP in OpenAI's naming, in half precision, with the numbers that OpenAI's archives carry."""
    torch.manual_seed(1)
    model = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
        quick_gelu=True,
    ).eval()
    mask = model.attn_mask  # a constant of the code in OpenAI's archives, no part of their state dicts
    for name, number in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408), ("attn_mask", None)):
        if hasattr(model, name):
            delattr(model, name)
        if number is not None:
            model.register_buffer(name, torch.tensor(number))
    model.attn_mask = mask
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


@pytest.fixture(scope="module")
def archive(network, tmp_path_factory) -> Path:
    """The network as OpenAI publishes its own: a TorchScript archive."""
    path = tmp_path_factory.mktemp("clip") / "ViT-B-32.pt"
    picture = torch.rand(1, 3, 32, 32)
    tokens = open_clip.tokenize(["X"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is old
        traced = torch.jit.trace_module(network, {"encode_image": picture, "encode_text": tokens}, check_trace=False)
    for parameter in traced.parameters():
        parameter.data = parameter.data.half()
    traced.save(path)
    network.float()  # whose parameters the traced one shares
    return path


def test_every_tag_gets_the_activation_that_its_entry_asks_for():
    """open_clip's own comparison, over all of its table; one model says so in its config instead."""
    for model, tag in open_clip.list_pretrained():
        needs = activation_of_tag(Wanted(model, tag))
        gets = open_clip.get_model_config(model).get("quick_gelu", False) if needs == "auto" else needs
        assert gets == tag_config(model, tag).get("quick_gelu", False) or model == "roberta-ViT-B-32"
    assert activation_of_tag(Wanted("ViT-B-32", "openai")) is True
    assert activation_of_tag(Wanted("ViT-B-32", "laion2b_s34b_b79k")) == "auto"
    assert activation_of_tag(Wanted("ViT-B-32", "openai", quick_gelu=False)) is False


def test_openai_files_are_known_by_their_sha256():
    assert set(OPENAI.values()) < openai_archives() and len(openai_archives()) == 9
    assert known_config(OPENAI["RN101"])["hf_hub"] == "timm/resnet101_clip.openai/"
    assert known_config("d867053b" + "0" * 56)["quick_gelu"]  # open_clip's LAION-400M, 8 digits in its address
    assert known_config("0" * 64) is None


def test_a_file_that_does_not_tell_its_activation_is_refused_with_two_ways_out(tmp_path):
    save_file({"visual.proj": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as caught:
        load_clip("ViT-B-32", str(tmp_path / "w.safetensors"))
    message = str(caught.value)
    assert "w.safetensors" in message and "\n" not in message
    assert "clip.guidance.quick_gelu" in message and "ViT-B-32-quickgelu" in message
    with pytest.raises(UserError, match="expected the"):  # the name tells; these are not the model's tensors
        load_clip("ViT-B-32-quickgelu", str(tmp_path / "w.safetensors"))
    with pytest.raises(UserError, match="named for its QuickGELU"):
        load_clip("ViT-B-32-quickgelu", None, quick_gelu=False)


def test_what_is_said_of_the_activation_holds_for_any_model():
    texts = ["a backlit photo"]
    plain, quick = (load_clip("mini-rn", None, quick_gelu=said) for said in ("auto", True))
    assert not any(isinstance(module, QuickGELU) for module in plain.modules())
    assert any(isinstance(module, QuickGELU) for module in quick.modules())
    assert plain.fingerprint(text=True) == quick.fingerprint(text=True)  # the same weights
    assert not torch.allclose(plain.embed_texts(texts), quick.embed_texts(texts), atol=1e-3)
    for model in ("timm/resnet10t", "efficientnet-lite0", "mini-clip"):
        with pytest.raises(UserError, match="quick_gelu: auto"):
            load_clip(model, None, quick_gelu=True)


def test_an_archive_is_opened_only_where_its_sha256_is_known(archive, network):
    for model in ("auto", "ViT-B-32"):
        with pytest.raises(UserError, match="only OpenAI's own") as caught:
            load_clip(model, str(archive))
        assert str(archive) in str(caught.value)
    encoder = load_clip("auto", str(archive), trusted=[digest(archive)])
    pictures, texts = torch.rand(2, 3, 32, 32), ["a dark photo", "sky"]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    with torch.no_grad():
        expected = network.encode_image((pictures - mean) / std, normalize=True)
        assert torch.allclose(encoder.embed_images(pictures), expected, atol=1e-5)
        expected = network.encode_text(open_clip.tokenize(texts), normalize=True)
        assert torch.allclose(encoder.embed_texts(texts), expected, atol=1e-5)


def test_a_changed_archive_is_refused(archive, tmp_path):
    (tmp_path / "changed.pt").write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(UserError, match="TorchScript archive"):
        read_content(tmp_path / "changed.pt", archives=[digest(archive)])


def test_a_download_of_openai_clip_is_found_in_the_home_folder(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tag_config("ViT-B-32", "openai")
    assert in_clip_cache(config, ()) is None
    place = tmp_path / ".cache/clip/ViT-B-32.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(archive.read_bytes())
    assert in_clip_cache(config, ()) is None  # the name is right, the content is another's
    assert in_clip_cache(config, [digest(archive)]) == place
    assert in_clip_cache(tag_config("RN101", "openai"), [digest(archive)]) is None


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "test_vit"])
def test_a_classifier_of_timm_is_an_encoder_without_its_head(name, tmp_path):
    torch.manual_seed(2)
    classifier = timm.create_model(name, num_classes=10).eval()
    torch.save({"state_dict": classifier.state_dict(), "epoch": 3}, tmp_path / "best.pth")
    encoder = load_clip(f"timm/{name}", str(tmp_path / "best.pth"))
    side = encoder.image_size
    pictures = torch.rand(2, 3, side, side)
    with torch.no_grad():
        features = classifier.forward_features((pictures - encoder.mean) / encoder.std)
        expected = classifier.forward_head(features, pre_logits=True)
    assert torch.allclose(encoder.embed_images(pictures), F.normalize(expected, dim=-1), atol=1e-5)


def test_another_network_is_not_taken_for_a_classifier(tmp_path):
    tensors = timm.create_model("resnet10t").state_dict()
    torch.save({**tensors, "stray.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"1 unknown \(such as 'stray.weight'\)"):
        load_clip("timm/resnet10t", str(tmp_path / "w.pth"))
