"""Small photos and networks, and a map put together out of its tiles."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.guided import coefficients, guided, luma, reduced
from models.unet import IlluminationUNet
from serving.tiles import illumination_tiles


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, 3), np.float32)


def save_photo(path: Path, value: int = 60, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 5), (value,) * 3 if mode == "RGB" else value).save(path)
    return path


def network(padding_mode: str) -> IlluminationUNet:
    """Random weights, strong enough for every branch to count."""
    torch.manual_seed(0)
    unet = IlluminationUNet(padding_mode, map_bias=1.0)
    for parameter in unet.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, 0, (1.5 / parameter[0].numel()) ** 0.5)
    return unet.eval()


def noise_tensor(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


def put_together(network, images: torch.Tensor, tile_size: int, batch: int = 1) -> torch.Tensor:
    """The map out of its tiles; fails where a pixel is missing or given twice, or the photo's part is another."""
    height, width = images.shape[2:]
    result, count = torch.zeros(1, 1, height, width), torch.zeros(height, width)
    with torch.inference_mode():
        for rows, columns, photo, tile in illumination_tiles(
            network, lambda r, c: images[:, :, r, c], height, width, tile_size, batch
        ):
            assert torch.equal(photo, images[:, :, rows, columns])
            result[:, :, rows, columns] = tile
            count[rows, columns] += 1
    assert (count == 1).all()
    return result


def map_at_scale(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, scale: int) -> torch.Tensor:
    """The network's map of the reduced photos, brought up to their size, of whole photos at once."""
    small = reduced(images, scale)
    return guided(coefficients(luma(small), network(small)), luma(images), scale)


def difference(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result - expected).abs().max() / expected.abs().max().clamp(min=1))
