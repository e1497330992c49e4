"""The authors' way, written out: what every figure of the benchmark is compared with.

Inference: whole frame, NCHW, eager, fp32, one photo after the other. Training: fp32, NCHW, photo by photo through the
encoders, a pass of its own for each term, the whole identity encoder for its maps, inputs and results alike, Adam as
PyTorch has it, every value read in each step.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.images import Photo, read_rgb8, write_photo

if TYPE_CHECKING:
    from torch import Tensor

    from configs.schema import TrainConfig
    from training.unet_task import UNetTask


def plain(weights: dict[str, "Tensor"], images: "Tensor", padding: str = "reflect") -> "Tensor":
    """Photos (B,3,H,W) in [0, 1] -> illumination (B,1,H,W): the layers one after the other, as published.

    `padding` of the four plain convolutions: "reflect" at inference, "constant" (zeros) in training.
    """
    import torch
    import torch.nn.functional as F

    def conv(name: str, x: "Tensor", mode: str = "reflect") -> "Tensor":
        x = F.pad(x, (1, 1, 1, 1), mode=mode)
        return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def block(number: int, x: "Tensor") -> "Tensor":
        inner = F.leaky_relu(conv(f"ResidualBlock{number}.conv1", x), 0.2)
        return F.leaky_relu(conv(f"ResidualBlock{number}.conv2", inner) + x, 0.2)

    x = block(2, block(1, F.leaky_relu(conv("cond1", images, padding), 0.2)))
    maps = [x]
    for number, bins in enumerate((1, 2, 3, 6)):
        grid = F.conv2d(F.adaptive_avg_pool2d(x, bins), weights[f"PPM1.features.{number}.1.weight"])
        grid = F.prelu(grid, weights[f"PPM1.features.{number}.2.weight"])
        maps.append(F.interpolate(grid, x.shape[2:], mode="bilinear", align_corners=True))
    x = F.prelu(conv("PPM1.fuse.0", torch.cat(maps, dim=1), "constant"), weights["PPM1.fuse.1.weight"])
    x = block(4, block(3, conv("condx", x, padding)))
    x = block(6, block(5, conv("condy", x, padding)))
    return F.relu(conv("cond_add1", x, padding))


def plain_enhancer(weights_file: Path, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from models.checkpoints import load_unet

    weights = {name: tensor.to(device) for name, tensor in load_unet(weights_file).state_dict().items()}

    def enhance(rgb: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            images = torch.from_numpy(rgb.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous().to(device)
            result = (images / (plain(weights, images) + 1e-9)).clamp(0, 1)
            return (result[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()

    return enhance


def plain_run(weights_file: Path, folder: Path, output: Path) -> None:
    """Enhance each photo of a folder."""
    enhance = plain_enhancer(weights_file)
    for path in sorted(folder.iterdir()):
        write_photo(output / path.name, Photo(enhance(read_rgb8(path))), png_level=6)  # Pillow's


def plain_steps(config: "TrainConfig", task: "UNetTask", photos: int) -> Iterator[float]:
    """The losses of step after step of the RAVE phase, of a task with this many photos."""
    import torch

    from losses.identity import identity_loss
    from losses.residual import residual_loss
    from models.retinex import enhance
    from training.phases import schedule

    for encoder in (task.guidance_encoder, task.identity_encoder):
        encoder.to(memory_format=torch.contiguous_format)
    weights = {
        name: tensor.detach().clone().contiguous().requires_grad_() for name, tensor in task.module.state_dict().items()
    }
    optimizer = torch.optim.Adam(weights.values(), lr=config.unet_model.lr, weight_decay=config.unet_model.weight_decay)
    phase = schedule(config, photos)[-1]

    def maps(photo: "Tensor") -> "list[Tensor]":
        return task.identity_encoder.embed_with_maps(photo)[1]  # with the attention pool

    for batch in task.batches(phase, 0):
        photos = batch.photos.contiguous()
        results = enhance(photos, plain(weights, photos, "constant"))
        pairs = list(zip(results.split(1), photos.split(1), strict=True))
        identity = sum(identity_loss(maps(result), maps(photo), phase.identity_layers) for result, photo in pairs)
        residual = sum(
            residual_loss(task.guidance_encoder.embed_images(result), task.residual) for result, _ in pairs
        ) / len(pairs)
        terms = {"identity": phase.terms["identity"] * identity, "residual": phase.terms["residual"] * residual}
        loss = sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values = {name: term.item() for name, term in terms.items()} | {"loss": loss.item()}
        yield values["loss"]
