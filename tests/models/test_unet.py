"""The enhancement network: structure, padding, equality with the authors' network."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from models.checkpoints import load_unet
from models.convolution import BAND, Conv3x3, Convolution, Padded, weight_gradient
from models.pooling import POOL_BINS, Pooled, Upsampled, means, upsampled
from models.retinex import enhance
from models.unet import IlluminationUNet

PUBLISHED = {
    "30374039626_355dca2192_o.reflect": ("clip_lit/enhancement_model.pth", "reflect"),
    "c5b8b4070688114c602b27933c6699b6.reflect": ("clip_lit/enhancement_model.pth", "reflect"),
    "c5b8b4070688114c602b27933c6699b6.zeros": ("clip_lit/enhancement_model.pth", "zeros"),
    "c5b8b4070688114c602b27933c6699b6.clip_lit_paired": ("rave/clip_lit_paired.pth", "reflect"),
    "c5b8b4070688114c602b27933c6699b6.clip_lit_unpaired": ("rave/clip_lit_unpaired.pth", "reflect"),
    "c5b8b4070688114c602b27933c6699b6.clip_lit_latent_paired": ("rave/clip_lit_latent_paired.pth", "reflect"),
    "c5b8b4070688114c602b27933c6699b6.rave_unpaired": ("rave/rave_unpaired.pth", "reflect"),
    "c5b8b4070688114c602b27933c6699b6.rave_unpaired_shifted": ("rave/rave_unpaired_shifted.pth", "reflect"),
}


LARGE = "30374039626_355dca2192_o.reflect"


@pytest.mark.parametrize("golden", [pytest.param(g, marks=pytest.mark.slow) if g == LARGE else g for g in PUBLISHED])
def test_illumination_equals_the_authors_network(shared, golden):
    weights, padding_mode = PUBLISHED[golden]
    expected = np.load(shared / "golden" / "unet" / f"{golden}.npz")
    stride = int(expected["stride"])
    photo = np.asarray(Image.open(shared / "data" / "photos" / f"{golden.rsplit('.', 1)[0]}.jpg").convert("RGB"))
    images = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        illumination = load_unet(shared / "published_weights" / weights, padding_mode)(images)
    assert np.abs(illumination[0, 0, ::stride, ::stride].numpy() - expected["illumination"]).max() < 1e-4
    result = enhance(images, illumination)[0, :, ::stride, ::stride].numpy() * 255
    assert np.abs(result - expected["enhanced_u8"]).max() <= 1.01  # the reference may round or truncate


def test_published_checkpoints_all_load(shared):
    files = sorted((shared / "published_weights").rglob("*.pth"))
    assert len(files) == 9
    for file in files:
        assert not load_unet(file).training


def test_size_is_that_of_the_paper():
    unet = IlluminationUNet()
    assert sum(p.numel() for p in unet.parameters()) == 278_790
    assert len(unet.state_dict()) == 30


def test_padding_switch_changes_only_the_border():
    torch.manual_seed(0)
    zeros, reflect = IlluminationUNet("zeros", map_bias=1.0), IlluminationUNet("reflect")
    reflect.load_state_dict(zeros.state_dict())
    for unet in (zeros, reflect):
        torch.nn.init.zeros_(unet.PPM1.fuse[0].weight[:, 32:])  # cut the pooling branch: the rest is local
    images = torch.rand(1, 3, 48, 48)
    with torch.inference_mode():
        difference = (zeros(images) - reflect(images)).abs()[0, 0]
    assert difference[0].max() > 0
    assert difference[17:-17, 17:-17].max() == 0  # the receptive field is 17 pixels to each side


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 1), (3, 2), (7, 40)])
def test_every_size_down_to_one_pixel_has_a_finite_map(size):
    torch.manual_seed(0)
    for padding_mode in ("zeros", "reflect"):
        illumination = IlluminationUNet(padding_mode, map_bias=1.0)(torch.rand(2, 3, *size))
        assert illumination.shape == (2, 1, *size)
        assert torch.isfinite(illumination).all()


@pytest.mark.parametrize("size", [(2, 2), (2, 5), (9, 3), (30, 21)])
def test_reflection_without_a_padded_copy_is_the_same(size):
    torch.manual_seed(0)
    conv, x = Conv3x3(5, 7, bias=True, padding_mode="reflect"), torch.rand(2, 5, *size)
    padded = torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), conv.weight, conv.bias
    )
    with torch.no_grad():
        assert torch.allclose(conv(x), padded, atol=1e-6)
    assert torch.equal(conv(x), padded)  # with a gradient


@pytest.mark.parametrize("padding_mode", ["reflect", "constant"])
@pytest.mark.parametrize("size", [(2, 2), (2, 5), (9, 3), (16, 21)])
def test_gradient_of_the_convolution_is_that_of_a_padded_copy(size, padding_mode):
    torch.manual_seed(0)
    x, weight = torch.rand(2, 5, *size, dtype=torch.float64), torch.rand(7, 5, 3, 3, dtype=torch.float64)
    bias, outer = torch.rand(7, dtype=torch.float64), torch.rand(2, 7, *size, dtype=torch.float64)

    def padded(*parts: torch.Tensor) -> torch.Tensor:
        x, *others = parts
        return torch.nn.functional.conv2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode=padding_mode), *others)

    def ours(*parts: torch.Tensor) -> torch.Tensor:
        return Convolution.apply(*parts, padding_mode == "reflect")

    found = torch.autograd.functional.vjp(ours, (x, weight, bias), outer)
    expected = torch.autograd.functional.vjp(padded, (x, weight, bias), outer)
    for a, b in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("bands", [2, 3])
def test_gradient_of_a_weight_in_bands_is_that_of_the_whole(bands):
    torch.manual_seed(0)
    x, gradient = (
        torch.rand(2, channels, bands * BAND, 21, dtype=torch.float64).to(memory_format=torch.channels_last)
        for channels in (5, 7)
    )
    weight = torch.rand(7, 5, 3, 3, dtype=torch.float64)
    expected = torch.nn.grad.conv2d_weight(x, weight.shape, gradient, padding=1)
    assert torch.allclose(weight_gradient(gradient, x, weight), expected, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (30, 21)])
def test_gradients_of_the_pooling_are_those_of_pytorchs_operations(size):
    torch.manual_seed(0)
    x = torch.rand(2, 5, *size, dtype=torch.float64)
    grids = tuple(torch.rand(2, 5, bins, bins, dtype=torch.float64) for bins in POOL_BINS)

    def pools(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.nn.functional.adaptive_avg_pool2d(x, bins) for bins in POOL_BINS)

    found, expected = (torch.autograd.functional.vjp(way, x, grids)[1] for way in (Pooled.apply, pools))
    assert torch.allclose(found, expected, atol=1e-12)
    for grid in grids:
        found, expected = (
            torch.autograd.functional.vjp(lambda grid, way=way: way(grid, *size), grid, x)[1]
            for way in (Upsampled.apply, upsampled)
        )
        assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 6), (7, 40), (30, 21)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_means_as_products_are_those_of_pytorch(size, layout):
    """What GPUs compute."""
    torch.manual_seed(0)
    x = torch.rand(2, 5, *size).contiguous(memory_format=layout)
    for bins, found in zip(POOL_BINS, means(x), strict=True):
        assert torch.allclose(found, torch.nn.functional.adaptive_avg_pool2d(x, bins), atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (2, 9), (3, 2), (7, 40)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_padding_in_the_layout_of_its_input_is_that_of_pytorch(size, layout):
    torch.manual_seed(0)
    x = torch.rand(2, 5, *size, dtype=torch.float64).contiguous(memory_format=layout)
    padded = partial(torch.nn.functional.pad, pad=(1, 1, 1, 1), mode="reflect")
    found = Padded.apply(x)
    assert torch.equal(found, padded(x)) and found.is_contiguous(memory_format=layout)
    gradient = torch.rand(found.shape, dtype=x.dtype).contiguous(memory_format=layout)
    given = gradient.clone()
    found, expected = (torch.autograd.functional.vjp(way, x, gradient)[1] for way in (Padded.apply, padded))
    assert torch.allclose(found, expected, atol=1e-12) and found.is_contiguous(memory_format=layout)
    assert torch.equal(gradient, given)  # others may need it


def test_training_keeps_no_padded_copies():
    """What the UNet saves for its gradient has the photo's sides, not two pixels more."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.shape) or tensor, lambda tensor: tensor
    ):
        IlluminationUNet("zeros")(torch.rand(1, 3, 20, 20))
    assert saved and not any(22 in shape for shape in saved)


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    unet = IlluminationUNet("zeros", map_bias=1.0)
    images = torch.rand(2, 3, 24, 24, requires_grad=True)
    enhance(images * 0.3, unet(images)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in unet.parameters())
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("way", ["autocast", "inner_to"])
def test_bf16_keeps_the_steps_of_a_map_near_one(way):
    """A ramp of light: bf16 holds three values between 0.99 and 1.01, the map has many."""
    torch.manual_seed(0)
    unet = IlluminationUNet("reflect", map_bias=1.0)
    ramp = torch.linspace(0, 1, 256).expand(1, 3, 32, 256)
    exact = unet(ramp).detach()
    if way == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found = unet(ramp)
    else:
        found = unet.inner_to(torch.bfloat16)(ramp)
        assert unet.ResidualBlock3.conv1.weight.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    near_one = (exact - 1).abs() < 0.01
    assert near_one.any() and found[near_one].unique().numel() > 0.5 * exact[near_one].unique().numel()
    assert (found - exact).abs().max() < 1e-3


def test_wrong_input_is_told():
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\), found \(1, 4, 8, 8\)"):
        IlluminationUNet()(torch.rand(1, 4, 8, 8))
    with pytest.raises(ValueError, match="padding_mode"):
        IlluminationUNet("mirror")


def test_retinex_divides_and_clamps():
    images = torch.full((1, 3, 1, 3), 0.4)
    illumination = torch.tensor([0.5, 0.2, 0.0]).view(1, 1, 1, 3)
    assert torch.allclose(enhance(images, illumination)[0, 0, 0], torch.tensor([0.8, 1.0, 1.0]))
    assert (
        enhance(torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1, 1)).max() == 0
    )  # black stays black where the map is black


def test_gradients_in_bf16_agree_with_those_in_float32():
    torch.manual_seed(0)
    unet, images = IlluminationUNet("zeros", map_bias=0.5, init_std=0.05), torch.rand(2, 3, 24, 20)
    exact = torch.autograd.grad(unet(images).square().mean(), unet.condx.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(unet(images).square().mean(), unet.condx.weight)[0]
    assert torch.nn.functional.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.99
