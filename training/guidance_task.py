"""Guidance training: the prompt pair or latent pair of CLIP-LIT learns to tell backlit,
enhanced and well-lit photos apart.

Images are embedded by the frozen encoder in one call for a whole batch, on the device. With
`cached_augmentations: K` that happens once: every photo under the same K augmentations; steps then
draw photo and augmentation from the cache. What this changes: K augmentations instead of one drawn
again each time. What it keeps: which photos a step sees, and that the images of one ranking sample
share their augmentation.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from common.errors import UserError
from common.files import open_file, writing
from common.progress import track
from configs.schema import TrainConfig
from data.augment import training_augmentation
from data.folders import BatchOrder, LabelledPhotos, PhotoArray, PhotoStages, ResizedPhotos, mix, permutation
from losses.guidance import initialisation_loss, negative_similarity
from losses.ranking import refinement_loss
from losses.residual import in_space
from models.clip_encoder import ClipEncoder
from models.guidance import load_guidance, new_guidance
from training.embeddings import embed_vocabulary
from training.paths import find_pretrained
from training.phases import CROSS_ENTROPY, RANKING, Phase
from training.photos import training_photos
from training.runtime import adam, seed_everything
from training.state import TrainState
from training.task import Task
from training.validation import enhance_photos, to_uint8

KIND = {"clip_lit": "prompts", "clip_lit_latent": "latents"}
ZOOM = (0.5, 1.5)  # of the augmentation of guidance photos (release)


class GuidanceTask(Task):
    """The guidance pair, its optimiser, its photos and its losses."""

    name = "guidance"

    def __init__(self, config: TrainConfig, accelerator: Accelerator, encoder: ClipEncoder, folder: Path) -> None:
        """`folder`: where the enhanced sets are kept. Raises UserError for photos,
        an encoder or guidance that cannot be used.
        """
        self.config, self.accelerator, self.encoder, self.folder = config, accelerator, encoder, folder
        options, data, seed = config.guidance_model, config.data, config.exp.seed
        self.batch_size, self.display_iter, self.scale = options.batch_size, options.display_iter, options.logit_scale
        self.augmentation = training_augmentation(ZOOM) if data.augment else None
        size, cache_dir = options.image_size, config.exp.cache_dir
        with accelerator.main_process_first():  # one process computes, the others find the cache
            self.backlit, self.well_lit = (
                ResizedPhotos(paths, size, cache_dir, self.augmentation, limits=data.limits)
                for paths in training_photos(data)
            )
        self.train_backlit, self.held_backlit = hold_back(len(self.backlit), options.held_back, mix(seed, 0))
        self.train_well_lit, self.held_well_lit = hold_back(len(self.well_lit), options.held_back, mix(seed, 1))
        self.stages: list[PhotoArray] = []  # I_{t−1}, I_t, as far as there are any
        self._embedded: dict[int, Tensor] = {}  # cached embeddings (K,N,D) of each photo set, by its id

        seed_everything(seed)
        kind = KIND[config.exp.mode]
        if options.load_pretrain:
            pair = load_guidance(find_pretrained(config, "guidance_model"), kind, encoder, options.length_prompt)
        else:
            pair = new_guidance(kind, encoder, options.length_prompt, options.init_texts)
        self.pair = pair
        optimizer = adam(pair.parameters(), accelerator.device, lr=options.lr, weight_decay=options.weight_decay)
        self.module, self.optimizer = accelerator.prepare(pair, optimizer)
        self._order(1, 0)  # refuses a batch that the processes cannot share

    def vectors(self) -> Tensor:
        """The guidance (2,D) as it stands, without gradient, unit norm."""
        with torch.no_grad():
            return torch.nn.functional.normalize(self.pair(self.encoder).float(), dim=-1)

    # ------------------------------------------------------------------------------ one step

    def begin(self, phase: Phase, state: TrainState) -> None:
        """The enhanced sets I_{t−1}, I_t are made of the UNets of the last two rounds."""
        self.set_enhancers(state.enhancers)

    def batches(self, phase: Phase, start: int) -> Iterator[tuple[list[Tensor], Tensor | None]]:
        """Embeddings on the device, from iteration `start` on:
        ([(B,D)], labels (B,)), or ([(B,D) of each stage], None) for ranking.
        """
        if RANKING in phase.terms:
            return self._ranking_batches(start)
        return self._labelled_batches(start)

    def losses(
        self, phase: Phase, batch: tuple[list[Tensor], Tensor | None]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weighted loss, and what else is worth a line in the log, without gradient."""
        embeddings, labels = batch
        with self.accelerator.autocast():  # for the text tower only: cosines differ by little, and stay in float32
            pair = self.module(self.encoder)
        pair = pair.float()
        if labels is not None:
            loss = initialisation_loss(embeddings[0], pair, labels, self.scale)
            predicted = negative_similarity(embeddings[0], pair.detach(), self.scale) < 0.5  # 1: well-lit
            accuracy = (predicted == labels.bool()).float().mean()
            return {CROSS_ENTROPY: phase.terms[CROSS_ENTROPY] * loss}, {"batch_accuracy": accuracy}
        scores = [negative_similarity(stage, pair, self.scale) for stage in embeddings]
        loss = refinement_loss(scores, self.config.loss.margins)
        enhanced = ("previous", "enhanced")[4 - len(scores) :]  # S_{t−1}, S_t: none at first, then the latest
        names = ("backlit", *enhanced, "welllit")
        measures = {f"s_{name}": score.detach().mean() for name, score in zip(names, scores, strict=True)}
        return {RANKING: phase.terms[RANKING] * loss}, measures

    def learning_rate(self, phases: Sequence[Phase], state: TrainState) -> float:
        """Constant (release)."""
        return self.config.guidance_model.lr

    def _labelled_batches(self, start: int) -> Iterator[tuple[list[Tensor], Tensor]]:
        pool = [(0, i) for i in self.train_backlit] + [(1, i) for i in self.train_well_lit]
        keys = ([(pool[i], seed) for i, seed in batch] for batch in self._order(len(pool), start))
        if self._slots:
            sets = (self.backlit, self.well_lit)
            cached = [self._cached(photos) for photos in sets]
            for batch in keys:
                embeddings = torch.stack([cached[label][seed % self._slots, index] for (label, index), seed in batch])
                yield [embeddings], torch.tensor([label for (label, _), _ in batch], device=embeddings.device)
        else:
            for photos, labels in self._loader(LabelledPhotos((self.backlit, self.well_lit)), keys):
                yield [self._embed(photos)], labels.to(self.accelerator.device)

    def _ranking_batches(self, start: int) -> Iterator[tuple[list[Tensor], None]]:
        orders = (
            self._order(len(self.train_backlit), start),
            self._order(len(self.train_well_lit), start, mix(self.config.exp.seed, 2)),
        )
        keys = (
            [(self.train_backlit[i], seed, self.train_well_lit[j]) for (i, seed), (j, _) in zip(*batches, strict=True)]
            for batches in zip(*orders, strict=True)
        )
        stages = [self.backlit, *self.stages]
        if self._slots:
            cached, well_lit = [self._cached(photos) for photos in stages], self._cached(self.well_lit)
            for batch in keys:
                index, seeds, other = (torch.tensor(column) for column in zip(*batch, strict=True))
                slots = seeds % self._slots
                yield [*(c[slots, index] for c in cached), well_lit[slots, other]], None
        else:
            for images in self._loader(PhotoStages(stages, self.well_lit, self.augmentation), keys):
                embeddings = self._embed(images.flatten(0, 1)).unflatten(0, images.shape[:2])
                yield list(embeddings.unbind(dim=1)), None

    # ------------------------------------------------------------------------------ enhanced sets

    def set_enhancers(self, enhancers: Sequence[dict[str, Tensor]]) -> None:
        """Make the enhanced sets of these UNets (at most two, the latest last),
        or find them as files in the run folder.
        """
        self.stages = [PhotoArray(self._enhanced_set(weights), self.augmentation) for weights in enhancers]
        used = {str(photos.pixels.filename) for photos in self.stages}
        if self.accelerator.is_main_process and self.folder.is_dir():
            for file in self.folder.glob("*.npy"):
                if str(file.resolve()) not in used:
                    file.unlink()
        kept = {id(photos) for photos in (self.backlit, self.well_lit)}
        self._embedded = {key: value for key, value in self._embedded.items() if key in kept}

    def delete_enhanced_sets(self) -> None:
        """They take space, and a finished run needs them no more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _enhanced_set(self, weights: dict[str, Tensor]) -> np.ndarray:
        """Memory-mapped (N,S,S,3) uint8: the backlit photos as this UNet enhances them."""
        photos = " ".join(self.backlit.contents)
        digest = hashlib.sha256(f"{self.backlit.size} {photos} {self.accelerator.device.type}".encode())
        for tensor in weights.values():
            digest.update(tensor.contiguous().numpy())
        file = self.folder.resolve() / f"{digest.hexdigest()[:32]}.npy"
        with self.accelerator.main_process_first():
            if not _whole(file):
                photos = track(self.backlit, "enhancing the training photos")
                header = {"descr": "|u1", "fortran_order": False, "shape": self.backlit.pixels.shape}
                digest = hashlib.sha256()
                with writing(file) as temporary, temporary.open("wb") as output:
                    np.lib.format.write_array_header_1_0(output, header)
                    for result in enhance_photos(weights, photos, self.accelerator.device):
                        pixels = to_uint8(result).tobytes()
                        digest.update(pixels)
                        output.write(pixels)
                    output.write(digest.digest())
        return np.load(file, mmap_mode="r")

    # ------------------------------------------------------------------------------ report

    def report(self) -> dict[str, float | str]:
        """What the guidance can do, on photos held back from its training, unaugmented.

        guidance_accuracy: share of backlit and well-lit photos on their side (S above or below 0.5);
        s_backlit, s_enhanced (once there is an enhanced set), s_welllit: mean negative similarity;
        tokens_backlit, tokens_welllit: the vocabulary's nearest tokens or classes, where the encoder has one.
        """
        sets = {"backlit": (self.backlit, self.held_backlit), "welllit": (self.well_lit, self.held_well_lit)}
        if self.stages:
            sets["enhanced"] = (self.stages[-1], self.held_backlit)
        vectors = self.vectors()
        scores = {
            name: negative_similarity(self._embed_set(photos, indices), vectors, self.scale)
            for name, (photos, indices) in sets.items()
        }
        right = torch.cat([scores["backlit"] > 0.5, scores["welllit"] < 0.5])
        report: dict[str, float | str] = {"guidance_accuracy": right.float().mean().item()}
        report.update(
            {f"s_{name}": scores[name].mean().item() for name in ("backlit", "enhanced", "welllit") if name in scores}
        )
        wanted = self.config.guidance_model.nearest_tokens
        if wanted and self.encoder.vocabulary_kind:
            tokens = embed_vocabulary(self.encoder, self.config.exp.cache_dir).to(vectors.device)
            tokens = in_space(tokens, self.encoder.embed_dim)
            words, _ = self.encoder.words()
            separator = " " if self.encoder.vocabulary_kind == "tokens" else ", "  # words and classes hold spaces
            for name, vector in zip(("backlit", "welllit"), vectors, strict=True):
                report[f"tokens_{name}"] = separator.join(words[i] for i in (tokens @ vector).topk(wanted).indices)
        return report

    # ------------------------------------------------------------------------------ embeddings

    @property
    def _slots(self) -> int:
        """Cached augmentations of each photo; 0: none is cached. Without augmentation one is all there is."""
        wanted = self.config.guidance_model.cached_augmentations
        return min(wanted, 1) if self.augmentation is None else wanted

    def _cached(self, photos: PhotoArray) -> Tensor:
        """(K,N,D): every photo under augmentations 1 to K, the same K for every set."""
        if id(photos) not in self._embedded:
            seeds = [mix(self.config.exp.seed, -1 - slot) for slot in range(self._slots)]
            rounds = track(seeds, "embedding augmented photos", unit="round")
            self._embedded[id(photos)] = torch.stack(
                [self._embed_set(photos, range(len(photos)), seed) for seed in rounds]
            )
        return self._embedded[id(photos)]

    def _embed_set(self, photos: PhotoArray, indices: Sequence[int], seed: int | None = None) -> Tensor:
        """(N,D) of these photos, under the augmentation of `seed` if given."""
        keys = [index if seed is None else (index, seed) for index in indices]
        size = self.config.guidance.embed_batch_size
        return torch.cat(
            [self._embed(torch.stack([photos[k] for k in keys[i : i + size]])) for i in range(0, len(keys), size)]
        )

    @torch.no_grad()
    def _embed(self, images: Tensor) -> Tensor:
        with self.accelerator.autocast():
            return self.encoder.embed_images(images.to(self.accelerator.device, memory_format=torch.channels_last))

    def _loader(self, photos: LabelledPhotos | PhotoStages, keys: Iterator[list]) -> DataLoader:
        pin = self.accelerator.device.type == "cuda"
        return DataLoader(photos, batch_sampler=keys, num_workers=self.config.train.num_workers, pin_memory=pin)

    def _order(self, photos: int, start: int, seed: int | None = None) -> BatchOrder:
        accelerator = self.accelerator
        return BatchOrder(
            photos,
            self.batch_size,
            self.config.exp.seed if seed is None else seed,
            start=start,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            key="guidance_model.batch_size",
        )


def hold_back(photos: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on, and those held back, both sorted; where nothing is held back, all are in both.

    At least one photo is held back where `share` is above 0 and there are two or more.
    """
    number = 0 if share == 0 or photos < 2 else max(1, round(share * photos))
    order = permutation(photos, seed)
    return sorted(order[number:]), sorted(order[:number] or order)


def _whole(file: Path) -> bool:
    """Whether an enhanced set is there, with the pixels whose checksum it ends with."""
    try:
        with open_file(file, limit=2**50) as stream:
            np.lib.format.read_magic(stream)
            np.lib.format.read_array_header_1_0(stream)
            start, digest = stream.tell(), hashlib.sha256()
            left = file.stat().st_size - start - digest.digest_size
            while left > 0 and (block := stream.read(min(left, 2**20))):
                digest.update(block)
                left -= len(block)
            return stream.read() == digest.digest()
    except (OSError, ValueError, UserError):
        return False
