"""The networks of ST-LPIPS, and their weights out of the package `stlpips-pytorch`."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, normalize, pad

from common.packages import file_in_package

PACKAGE = "stlpips-pytorch==0.0.2"
SHA256 = {
    "alex": "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
    "vgg": "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # LPIPS' own normalisation of [-1, 1]
# Layers of each slice, whose outputs are compared: a convolution (channels, kernel, padding), "r" ReLU, "b" blur of
# stride 2, "m" maximum over as many pixels as the network's pools look at, without a stride
_LAYERS = {
    "alex": (
        [(64, 11, 2), "b", "r"],
        ["m", "b", (192, 5, 2), "r"],
        ["m", "b", (384, 3, 1), "r"],
        [(256, 3, 1), "r"],
        [(256, 3, 1), "r"],
    ),
    "vgg": (
        [(64, 3, 1), "r", (64, 3, 1), "r"],
        ["m", "b", (128, 3, 1), "r", (128, 3, 1), "r"],
        ["m", "b", (256, 3, 1), "r", (256, 3, 1), "r", (256, 3, 1), "r"],
        ["m", "b", (512, 3, 1), "r", (512, 3, 1), "r", (512, 3, 1), "r"],
        ["m", "b", (512, 3, 1), "r", (512, 3, 1), "r", (512, 3, 1), "r"],
    ),
}
_POOL = {"alex": 3, "vgg": 2}  # px


class Blur(nn.Module):
    """[1, 2, 1] across and down, then every second pixel: (B,C,H,W) -> (B,C,H/2 + 1,W/2 + 1); borders are reflected."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(line, line).expand(channels, 1, 3, 3).clone())

    def forward(self, images: Tensor) -> Tensor:
        return conv2d(pad(images, (2, 2, 2, 2), mode="reflect"), self.kernel, stride=2, groups=images.shape[1])


class StLpipsNetwork(nn.Module):
    """Sum over the slices of the weighted mean of squared differences of their unit feature vectors."""

    def __init__(self, kind: Literal["alex", "vgg"]) -> None:
        super().__init__()
        channels, outputs, self.slices = 3, [], nn.ModuleList()
        for layers in _LAYERS[kind]:
            built: list[nn.Module] = []
            for layer in layers:
                if layer == "r":
                    built.append(nn.ReLU())
                elif layer == "b":
                    built.append(Blur(channels))
                elif layer == "m":
                    built.append(nn.MaxPool2d(_POOL[kind], stride=1))
                else:
                    built.append(nn.Conv2d(channels, layer[0], layer[1], padding=layer[2]))
                    channels = layer[0]
            self.slices.append(nn.Sequential(*built))
            outputs.append(channels)
        self.weights = nn.ModuleList(nn.Conv2d(channels, 1, 1, bias=False) for channels in outputs)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def forward(self, result: Tensor, truth: Tensor) -> Tensor:
        """(B,3,H,W) in [-1, 1], twice -> (B,), 0 for equal images."""
        pair = (torch.cat([result, truth]) - self.shift) / self.scale
        distance = torch.zeros(len(result), device=result.device)
        for features, weight in zip(self.slices, self.weights, strict=True):
            pair = features(pair)
            one, other = normalize(pair, dim=1, eps=1e-10).chunk(2)
            distance = distance + weight((one - other).square()).mean(dim=(1, 2, 3))
        return distance


def load_stlpips_network(kind: Literal["alex", "vgg"]) -> StLpipsNetwork:
    """The network with the package's weights, in eval mode.

    Raises UserError where the package is missing or holds other weights. The file is read as plain tensors.
    """
    name = f"weights/vST0.0/{kind}_shift_tolerant.pth"
    file = file_in_package("stlpips_pytorch", name, SHA256[kind], PACKAGE, "metrics.stlpips")
    state = torch.load(file, map_location="cpu", weights_only=True)
    network = StLpipsNetwork(kind)
    # the file numbers its layers through; their order is ours
    tensors = [tensor for key, tensor in state.items() if not key.startswith("scaling_layer.")]
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    return network.eval()
