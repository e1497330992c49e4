"""Tiles equal the whole frame: every size, every tile, both paddings, every backend."""

import numpy as np
import pytest
import torch

import serving.tiles
from serving.tiles import HALO, illumination_tiles, spans
from serving.torch_network import TorchNetwork
from tests.serving.helpers import difference, network, noise_tensor, put_together

SIZES = [(90, 40), (141, 113), (69, 33), (37, 5), (7, 50), (1, 60), (60, 1), (2, 1), (1, 1), (2, 2), (35, 36), (6, 7)]


@pytest.fixture(params=[0, 10**9], ids=["read-twice", "kept"])
def kept(request, monkeypatch):
    """Both ways to the second pass."""
    monkeypatch.setattr(serving.tiles, "KEPT", request.param)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize("size", SIZES)
def test_tiles_equal_the_whole_frame(padding_mode, size):
    unet, images = network(padding_mode), noise_tensor(*size)
    torch_network = TorchNetwork(unet, "fp32", torch.device("cpu"))
    with torch.inference_mode():
        whole = unet(images)
    for tile_size, batch in ((1000, 1), (max(size) // 2 + 1, 1), (23, 3)):
        assert difference(put_together(torch_network, images, tile_size, batch), whole) < 1e-5, (tile_size, batch)


@pytest.mark.usefixtures("kept")
def test_random_sizes_tiles_and_batches():
    generator, unet = np.random.default_rng(0), network("reflect")
    torch_network = TorchNetwork(unet, "fp32", torch.device("cpu"))
    for _ in range(12):
        height, width, tile_size, batch = (int(generator.integers(1, most)) for most in (120, 120, 70, 5))
        tile_size = max(tile_size, 12)
        images = noise_tensor(height, width)
        with torch.inference_mode():
            whole = unet(images)
        assert difference(put_together(torch_network, images, tile_size, batch), whole) < 1e-5, (
            height,
            width,
            tile_size,
            batch,
        )


@pytest.mark.usefixtures("kept")
def test_tiles_of_one_pixel():
    unet, images = network("reflect"), noise_tensor(4, 5)
    with torch.inference_mode():
        whole = unet(images)
    assert difference(put_together(TorchNetwork(unet, "fp32", torch.device("cpu")), images, 1, 7), whole) < 1e-5


def test_naive_tiles_would_not_do():
    unet, images = network("reflect"), noise_tensor(90, 40)
    with torch.inference_mode():
        whole = unet(images)
        naive = torch.cat([unet(images[:, :, :45]), unet(images[:, :, 45:])], dim=2)
    assert (naive - whole).abs()[
        :, :, :20
    ].max() > 1e-2 * whole.abs().max()  # far from the cut: only the pooling differs


@pytest.mark.parametrize(("side", "tile_size"), [(1, 1), (5, 2), (100, 30), (101, 30), (500, 64), (34, 34), (35, 34)])
def test_windows_are_of_one_length_and_hold_the_halo(side, tile_size):
    parts = spans(side, tile_size, HALO)
    assert [p.low for p in parts] == [0, *(p.high for p in parts[:-1])] and parts[-1].high == side
    assert len({p.last - p.first for p in parts}) == 1 and parts[0].last - parts[0].first <= tile_size + 2 * HALO
    for p in parts:
        assert 0 < p.high - p.low <= tile_size and p.first >= 0 and p.last <= side
        assert p.first <= max(0, p.low - HALO) and p.last >= min(side, p.high + HALO)


def test_memory_follows_the_tile():
    """What the network is given at once does not grow with the photo, in either direction."""

    class Watched(TorchNetwork):
        largest = 0

        def below(self, images, interior):
            self.largest = max(self.largest, images.shape[2] * images.shape[3])
            return super().below(images, interior)

    watched = Watched(network("reflect"), "fp32", torch.device("cpu"))
    for size in ((40, 300), (300, 40)):
        put_together(watched, noise_tensor(*size), 32)
    assert watched.largest <= (32 + 2 * HALO) ** 2


def test_sizes_under_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        next(illumination_tiles(TorchNetwork(network("reflect"), "fp32", torch.device("cpu")), None, 4, 4, 0))
