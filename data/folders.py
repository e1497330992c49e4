"""Folders of photos as training sets: the resized cache and the order of batches.

Shapes: N photos, S side in pixels. Images are RGB, float32 in [0, 1], (3, S, S).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm

from common.errors import UserError
from common.files import real_path, write_text, writing
from data.augment import seeded
from data.images import ImageError, read_rgb8

SEEDS = 2**56  # how many `mix` tells apart


class PhotoArray(Dataset):
    """Photos of one size in an array (N,S,S,3) uint8, as a rule memory-mapped.

    Items are float32 (3,S,S) RGB in [0, 1]. An index may also be `(index, seed)`: the photo is then
    augmented under that seed, so that an item depends on nothing but its key.
    """

    def __init__(self, pixels: np.ndarray, augmentation: Callable[..., Any] | None = None) -> None:
        self.pixels, self.augmentation = pixels, augmentation

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, key: int | tuple[int, int]) -> Tensor:
        index, seed = key if isinstance(key, tuple) else (key, None)
        photo = torch.from_numpy(np.array(self.pixels[index])).permute(2, 0, 1).float() / 255
        return photo if seed is None or self.augmentation is None else seeded(self.augmentation, seed, photo)


class ResizedPhotos(PhotoArray):
    """Photos of a list, decoded and squashed to S x S once, then read from a memory-mapped cache.

    `paths` lists those that were read; `skipped` those that could not be, each with its reason, which are left out.
    Raises UserError where no photo can be read.
    """

    def __init__(
        self, paths: Sequence[Path], size: int, cache_dir: str | Path, augmentation: Callable[..., Any] | None = None
    ) -> None:
        self.size = size
        self.paths, self.skipped, pixels = _resized_cache(list(paths), size, Path(cache_dir))
        super().__init__(pixels[: len(self.paths)], augmentation)


class LabelledPhotos(Dataset):
    """Photos of several folders, each labelled by the number of its folder: items `(photo, label)`, keys `((label, index), seed)`."""

    def __init__(self, folders: Sequence[PhotoArray]) -> None:
        self.folders = folders

    def __getitem__(self, key: tuple[tuple[int, int], int]) -> tuple[Tensor, int]:
        (label, index), seed = key
        return self.folders[label][index, seed], label


class PhotoStages(Dataset):
    """The images of one ranking sample, (T,3,S,S): a backlit photo's stages (itself, its results) and a well-lit photo, in this order.

    stages: photo sets in which the same index is the same photo. Keys are `(index, seed, index of the well-lit photo)`;
    all T images get the same augmentation (CLIP-LIT release).
    """

    def __init__(
        self, stages: Sequence[PhotoArray], well_lit: PhotoArray, augmentation: Callable[..., Any] | None = None
    ) -> None:
        self.stages, self.well_lit, self.augmentation = stages, well_lit, augmentation

    def __getitem__(self, key: tuple[int, int, int]) -> Tensor:
        index, seed, well_lit = key
        images = [*(photos[index] for photos in self.stages), self.well_lit[well_lit]]
        return torch.stack(images if self.augmentation is None else seeded(self.augmentation, seed, *images))


class MixedInputs(Dataset):
    """Inputs of the UNet: backlit photos, a `share` of which is replaced by photos of a second set. Keys and items as of PhotoArray.

    Which ones, and by which photo, depends on the seed of the key alone. Without a seed, index i is the i-th backlit photo.
    """

    def __init__(self, backlit: PhotoArray, others: PhotoArray, share: float) -> None:
        self.backlit, self.others, self.share = backlit, others, share

    def __len__(self) -> int:
        return len(self.backlit)

    def __getitem__(self, key: int | tuple[int, int]) -> Tensor:
        if isinstance(key, int) or mix(key[1], 0) >= self.share * SEEDS:
            return self.backlit[key]
        return self.others[mix(key[1], 1) % len(self.others), key[1]]


class BatchOrder(Sampler):
    """Batch of iteration k = a function of (seed, k): nothing to save, nothing to lose on resume.

    Passes over N photos are shuffled one by one and follow each other without a gap. Yields, from
    iteration `start` on and without end, lists of `(index, augmentation seed)`; of each batch,
    process `rank` of `world` gets its part. `key` names the batch size in errors.
    """

    def __init__(
        self,
        photos: int,
        batch_size: int,
        seed: int,
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        key: str = "unet_model.batch_size",
    ) -> None:
        if batch_size % world:
            raise UserError(f"{key}: expected a multiple of the {world} processes, found {batch_size}")
        self.photos, self.batch_size, self.seed = photos, batch_size, seed
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in count(self.start):
            yield self.batch(iteration)[self.rank :: self.world]

    def batch(self, iteration: int) -> list[tuple[int, int]]:
        """The whole batch of one iteration, over all processes."""
        positions = range(iteration * self.batch_size, (iteration + 1) * self.batch_size)
        return [(self._order(p // self.photos)[p % self.photos], mix(self.seed, p)) for p in positions]

    def _order(self, epoch: int) -> list[int]:
        return permutation(self.photos, mix(self.seed, -1 - epoch))


@lru_cache(maxsize=4)
def permutation(length: int, seed: int) -> list[int]:
    """The numbers 0 to length - 1 in an order that depends on the seed alone."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed)).tolist()


def mix(seed: int, position: int) -> int:
    """A seed for one position of a sequence: any two of them are unrelated."""
    digest = hashlib.sha256(f"{seed} {position}".encode()).digest()
    return int.from_bytes(digest[:7], "little")  # below SEEDS


def _resized_cache(paths: list[Path], size: int, cache_dir: Path) -> tuple[list[Path], list[str], np.ndarray]:
    """Memory-mapped (N,S,S,3) uint8, built once for this list of files and size."""
    stamp = hashlib.sha256(f"resized v1 {size}".encode())
    for path in paths:
        info = path.stat() if path.exists() else path.lstat()  # a link to nowhere, which is left out below
        stamp.update(f"{real_path(path)} {info.st_size} {info.st_mtime_ns}\n".encode(errors="surrogateescape"))
    pixels_file = cache_dir / "resized" / f"{stamp.hexdigest()[:32]}.npy"
    list_file = pixels_file.with_suffix(".json")
    cached = _read_cache(list_file, pixels_file)
    if cached is None:
        read, skipped = [], []
        with writing(pixels_file) as temporary:
            pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(paths), size, size, 3))
            for index, path in enumerate(tqdm(paths, desc="reading photos", unit="photo", leave=False, disable=None)):
                try:
                    photo = Image.fromarray(read_rgb8(path))
                except ImageError as error:
                    skipped.append(str(error))
                    continue
                pixels[len(read)] = photo.resize(
                    (size, size), Image.Resampling.BILINEAR
                )  # Pillow's bilinear antialiases
                read.append(index)
            pixels.flush()
        write_text(list_file, json.dumps({"read": read, "skipped": skipped}))
        cached = _read_cache(list_file, pixels_file)
    read, skipped, pixels = cached
    if not read:
        raise UserError(
            f"{paths[0].parent}: none of the {len(paths)} photos can be read, the first because: {skipped[0]}"
        )
    return [paths[i] for i in read], skipped, pixels


def _read_cache(list_file: Path, pixels_file: Path) -> tuple[list[int], list[str], np.ndarray] | None:
    """What was read, what was not and why, and the pixels; None where there is no cache, or a damaged one, which is made anew."""
    try:
        listing = json.loads(list_file.read_text())
        return listing["read"], listing["skipped"], np.load(pixels_file, mmap_mode="r")
    except (OSError, ValueError, EOFError, LookupError, TypeError):
        return None
