"""Folders of photos as training sets, and the order of batches.

Shapes: N photos, S side in pixels. Images are RGB, float32 in [0, 1], (3, S, S).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from common.errors import UserError
from data.augment import seeded
from data.images import STANDARD, Limits
from data.resized import store_photos

SEEDS = 2**56  # how many `mix` tells apart


class PhotoArray(Dataset):
    """Photos of one size: an array (N,S,S,3) uint8, or a sequence of N arrays (S,S,3).

    Items are float32 (3,S,S) RGB in [0, 1]. An index may also be `(index, seed)`: the photo is then
    augmented under that seed, so that an item depends on nothing but its key.
    """

    def __init__(self, pixels: Sequence[np.ndarray], augmentation: Callable[..., Any] | None = None) -> None:
        self.pixels, self.augmentation = pixels, augmentation
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, key: int | tuple[int, int]) -> Tensor:
        index, seed = key if isinstance(key, tuple) else (key, None)
        photo = torch.from_numpy(np.array(self.pixels[index])).permute(2, 0, 1).float() / 255
        return photo if seed is None or self.augmentation is None else seeded(self.augmentation, seed, photo)


class ResizedPhotos(PhotoArray):
    """Photos of a list, decoded and squashed to S x S once, then read from the cache (`data.resized`).

    limits: which photos are read at all. `paths` lists those that were read, `contents` their SHA-256; `skipped` those
    that could not be, each with its reason, which are left out; `uniform` those that were left out for being of one
    colour everywhere, such as black ones, where that was asked for.
    Raises UserError where no photo can be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        cache_dir: str | Path,
        augmentation: Callable[..., Any] | None = None,
        *,
        limits: Limits = STANDARD,
        leave_out_uniform: bool = False,
    ) -> None:
        stored, skipped = store_photos(list(paths), size, cache_dir, limits)
        self.uniform: list[Path] = []
        if leave_out_uniform:
            self.uniform = [stored.paths[i] for i in sorted(stored.uniform)]
            stored = stored.without(stored.uniform)
            if not stored.paths:
                raise UserError(f"{self.uniform[0].parent}: expected photos, found one colour everywhere in each")
        super().__init__(stored, augmentation)
        self.size, self.paths, self.contents, self.skipped = size, stored.paths, stored.contents, skipped


class LabelledPhotos(Dataset):
    """Photos of several folders, each labelled by the number of its folder:
    items `(photo, label)`, keys `((label, index), seed)`.
    """

    def __init__(self, folders: Sequence[PhotoArray]) -> None:
        self.folders = folders

    def __getitem__(self, key: tuple[tuple[int, int], int]) -> tuple[Tensor, int]:
        (label, index), seed = key
        return self.folders[label][index, seed], label


class PhotoStages(Dataset):
    """The images of one ranking sample, (T,3,S,S): a backlit photo's stages (itself,
    its results) and a well-lit photo, in this order.

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


class PairedPhotos(Dataset):
    """Backlit photos and their ground truths, `(input, truth)`, both under the same augmentation.

    rows: for each pair, its index in `backlit` and in `truths`.
    Keys are `(index, seed)`; an index alone gives the input alone.
    """

    def __init__(
        self,
        backlit: PhotoArray,
        truths: PhotoArray,
        rows: Sequence[tuple[int, int]],
        augmentation: Callable[..., Any] | None = None,
    ) -> None:
        self.backlit, self.truths, self.rows, self.augmentation = backlit, truths, rows, augmentation

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> Tensor | tuple[Tensor, Tensor]:
        if isinstance(key, int):
            return self.backlit[self.rows[key][0]]
        index, seed = key
        photos = tuple(s[row] for s, row in zip((self.backlit, self.truths), self.rows[index], strict=True))
        return photos if self.augmentation is None else seeded(self.augmentation, seed, *photos)


class MixedInputs(Dataset):
    """Inputs of the UNet: backlit photos, a share of which is replaced by well-lit photos, darkened or not.

    Items are `(input, lit, known)`: the input (3,S,S);
    the same content as it was lit (3,S,S), where that is known (a bool);
    of a backlit photo without ground truth it is not, and the input stands in its place.
    others: (share, set) each, of sets whose items are `(input, lit)`.
    Which ones, and by which photo, depends on the seed of
    the key alone. Without a seed, index i is the i-th backlit photo alone. skipped,
    uniform: photos of the sets that were left out, as of ResizedPhotos.
    """

    def __init__(
        self,
        backlit: PhotoArray | PairedPhotos,
        others: Sequence[tuple[float, PhotoArray]] = (),
        skipped: Sequence[str] = (),
        uniform: Sequence[Path] = (),
    ) -> None:
        self.backlit, self.others, self.skipped, self.uniform = backlit, others, list(skipped), list(uniform)

    def __len__(self) -> int:
        return len(self.backlit)

    def __getitem__(self, key: int | tuple[int, int]) -> Tensor | tuple[Tensor, Tensor, bool]:
        if isinstance(key, int):
            return self.backlit[key]
        drawn = mix(key[1], 0) / SEEDS
        for share, photos in self.others:
            if drawn < share:
                return *photos[mix(key[1], 1) % len(photos), key[1]], True
            drawn -= share
        photo = self.backlit[key]
        return (*photo, True) if isinstance(self.backlit, PairedPhotos) else (photo, photo, False)


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
