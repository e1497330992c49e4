"""Strips equal the whole frame: every size, every strip, both paddings."""

import pytest
import torch

from models.unet import IlluminationUNet
from serving.strips import illumination_in_strips


def network(padding_mode: str) -> IlluminationUNet:
    torch.manual_seed(0)
    unet = IlluminationUNet(padding_mode, map_bias=1.0)
    for parameter in unet.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, 0, (2 / parameter[0].numel()) ** 0.5)  # strong enough for every branch to count
    return unet.eval()


SIZES = [((90, 40), 34), ((141, 13), 70), ((69, 33), 34), ((37, 5), 1), ((7, 50), 1), ((1, 9), 1), ((2, 1), 1), ((1, 1), 1)]


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize(("size", "rows"), SIZES)
def test_strips_equal_the_whole_frame(padding_mode, size, rows):
    unet = network(padding_mode)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole, strips = unet(images), illumination_in_strips(unet, images, strip_pixels=rows * size[1])
    assert strips.shape == whole.shape
    assert (strips - whole).abs().max() < 1e-5 * whole.abs().max().clamp(min=1)


def test_the_pooled_grids_matter_in_this_test():
    unet = network("reflect")
    images = torch.rand(1, 3, 90, 40, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = unet(images)
        naive = torch.cat([unet(images[:, :, :45]), unet(images[:, :, 45:])], dim=2)
    assert (naive - whole).abs()[:, :, :20].max() > 1e-2 * whole.abs().max()  # far from the cut: only the pooling differs
