"""Train the image tower of `mini-rn` to see how a photo is lit: a small stand-in for CLIP where there is no network.

python -m lab.train_mini_encoder PHOTOS [PHOTOS ...] --out pretrained_models/mini-rn-light.safetensors

Crops of normal photos are relit by a known amount (`data.backlight`, and plain exposure shifts) and the tower learns to tell
that amount from its unit-norm embedding. It knows light and nothing else: it is no CLIP.
"""

import argparse
import json
import time

from common.cli import EXIT_OK, ArgumentParser, run
from common.provenance import provenance

STOPS = (-4.0, 1.5)  # exposure shift of a crop, in stops, between which training draws
CROP = 96  # pixels, the input of mini-rn
PHOTO = 160  # pixels, photos are squashed to this once


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", help="folders of well-lit photos")
    parser.add_argument("--out", required=True, help="where to write the tower's weights (.safetensors)")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir", default=".cache")
    args = parser.parse_args(argv)
    error = train(args)
    print(f"{args.out}: mean error on held-out crops {error:.2f} stops")
    return EXIT_OK


def train(args: argparse.Namespace) -> float:
    """Train and save; returns the mean absolute error on relit crops of photos kept out of training, in stops."""
    import safetensors.torch
    import torch
    import torch.nn.functional as F
    from torch import nn
    from tqdm import tqdm

    from common.files import writing
    from data.folders import ResizedPhotos
    from data.listing import list_images
    from models.clip_encoder import load_clip
    from training.runtime import seed_everything

    paths = [path for folder in args.photos for path in list_images(folder, "photos")]
    photos = ResizedPhotos(paths, PHOTO, args.cache_dir)
    held_out, training = list(range(0, len(photos), 10)), [i for i in range(len(photos)) if i % 10]
    encoder = load_clip("mini-rn", None, seed=args.seed)
    tower = encoder.model.visual.requires_grad_(True)
    seed_everything(args.seed)
    head = nn.Linear(encoder.embed_dim, 1)
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps)

    def predict(images: torch.Tensor) -> torch.Tensor:
        embeddings = F.normalize(tower((images - encoder.mean) / encoder.std), dim=-1)
        return head(embeddings)[:, 0] * 10  # a unit vector's coordinates are small, stops are not

    started = time.perf_counter()
    generator = torch.Generator().manual_seed(args.seed)
    for _ in tqdm(range(args.steps), mininterval=5):
        tower.train()
        images, stops = _relit_batch(photos, training, args.batch, generator)
        loss = F.smooth_l1_loss(predict(images), stops)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    tower.eval()
    with torch.no_grad():
        images, stops = _relit_batch(photos, held_out, 256, torch.Generator().manual_seed(1))
        error = (predict(images) - stops).abs().mean().item()
    tensors = {f"visual.{name}": tensor.detach().contiguous() for name, tensor in tower.state_dict().items()}
    about = {
        "error_stops": f"{error:.4f}",
        "seconds": f"{time.perf_counter() - started:.0f}",
        "photos": str(len(training)),
    }
    metadata = {**about, "steps": str(args.steps), "seed": str(args.seed), "provenance": json.dumps(provenance())}
    with writing(args.out) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata)
    return error


def _relit_batch(photos, indices: list[int], size: int, generator):
    """Crops (size,3,96,96) in [0, 1], each relit, and by how many stops on average over the crop (size,)."""
    import torch

    from data.backlight import linear_to_srgb, smooth_mask, srgb_to_linear

    crops, stops = [], []
    low, high = STOPS
    for _ in range(size):
        draw = torch.rand(6, generator=generator)
        photo = photos[indices[int(draw[0] * len(indices))]]
        side = int(CROP + draw[1] * (PHOTO - CROP))
        top, left = (int(d * (PHOTO - side + 1)) for d in draw[2:4])
        crop = photo[:, top : top + side, left : left + side]
        crop = torch.nn.functional.interpolate(crop[None], (CROP, CROP), mode="bilinear", antialias=True)[0]
        if torch.rand((), generator=generator) < 0.5:
            crop = crop.flip(-1)
        shift = (low + draw[4] * (high - low)).expand(1, CROP, CROP)
        if draw[5] < 0.5:  # half of them darker in the foreground than behind
            mask = smooth_mask(crop, float(0.4 + draw[5]), generator)
            shift = shift * mask
        tint = 1 + 0.1 * torch.randn(3, 1, 1, generator=generator)
        linear = srgb_to_linear(crop) * tint * torch.exp2(shift)
        noise = 0.004 * torch.rand((), generator=generator) * torch.randn(linear.shape, generator=generator)
        crops.append(linear_to_srgb((linear + noise).clamp(0, 1)))
        stops.append(shift.mean())
    return torch.stack(crops), torch.stack(stops)


if __name__ == "__main__":
    run(main)
