"""UNet training: I_t = I_b / UNet(I_b), the identity loss, and the guidance of RAVE or CLIP-LIT,
which is frozen meanwhile.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from configs.schema import TrainConfig
from data.folders import BatchOrder, MixedInputs, ResizedPhotos
from data.images.photo import LUMA
from losses.guidance import clip_guidance_loss
from losses.identity import identity_loss
from losses.pixel import pixel_loss, white_loss
from losses.residual import ResidualGuidance, photo_set_points, residual_loss
from models.clip_encoder import ClipEncoder
from models.retinex import divide, first_illumination
from models.unet import IlluminationUNet
from training.phases import CLIP, IDENTITY, MAP, PIXEL, RESIDUAL, WHITE, Phase
from training.runtime import adam, seed_everything
from training.state import TrainState
from training.task import Task

LOWEST_RATE = 0.05  # where `lr_schedule: cosine` ends, of the learning rate


@dataclass(frozen=True)
class Batch:
    """Inputs of the UNet (B,3,S,S), and where simulated ones are among them:
    which (B,), and these as they were lit (K,3,S,S).
    """

    photos: Tensor
    lit: Tensor | None = None
    known: Tensor | None = None


class UNetTask(Task):
    """The enhancement network, its optimiser, its photos and its losses."""

    name = "unet"

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        photos: ResizedPhotos | MixedInputs,
        guidance_encoder: ClipEncoder | None,
        identity_encoder: ClipEncoder | None,
        residual: ResidualGuidance | None,
        guidance_vectors: Callable[[], Tensor] | None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Encoders: None where no phase needs them. `residual` guides RAVE;
        `guidance_vectors` gives the (2,D) that guide CLIP-LIT, and is asked at the start of a phase (`begin`).
        start: the weights of `unet_model.pretrain_dir`, with `load_pretrain`.
        """
        self.config, self.accelerator, self.photos = config, accelerator, photos
        self.guidance_encoder, self.identity_encoder = guidance_encoder, identity_encoder
        self.residual, self._ask_for_vectors, self._start = residual, guidance_vectors, start
        options = config.unet_model
        self.batch_size, self.display_iter = options.batch_size, options.display_iter
        self.grad_clip, self.ema = options.grad_clip, options.ema
        unet = self.fresh(restart=0).to(memory_format=torch.channels_last)
        if config.train.compile:
            unet.compile(dynamic=False)  # in place: names of weights stay
        optimizer = adam(
            unet.parameters(),
            accelerator.device,
            lr=options.lr,
            weight_decay=options.weight_decay,
            beta1=options.adam_beta1,
        )
        self.module, self.optimizer = accelerator.prepare(unet, optimizer)
        self.batch_order(0)  # refuses a batch that the processes cannot share

    def begin(self, phase: Phase, state: TrainState) -> None:
        """The guidance of CLIP-LIT, frozen from here on."""
        if CLIP in phase.terms:
            with torch.no_grad():
                self.guidance_vectors = self._ask_for_vectors()

    def batches(self, phase: Phase, start: int) -> Iterator[Batch]:
        """Photos on the device, from iteration `start` on."""
        loader = DataLoader(
            self.photos,
            batch_sampler=self.batch_order(start),
            num_workers=self.config.train.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        for loaded in loader:
            if isinstance(loaded, Tensor):
                yield Batch(self._on_device(loaded))
            else:
                photos, lit, known = loaded
                yield Batch(self._on_device(photos), self._on_device(lit[known]), known.to(self.accelerator.device))

    def losses(self, phase: Phase, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weighted terms of the loss, and what else is worth a line in the log, without gradient."""
        photos = batch.photos
        precision = self.accelerator.autocast  # for networks only: losses are differences of near numbers, in float32
        if MAP in phase.terms:
            photos = F.avg_pool2d(photos, 4)  # what is learned is local: a quarter of the size, a sixteenth of the time
            with precision():
                illumination = self.module(photos)
            illumination = illumination.float()
            relative = illumination / first_illumination(photos) - 1  # what the division makes of it
            measures = {"mean_illumination": illumination.detach().mean()}
            return {MAP: phase.terms[MAP] * relative.square().mean()}, measures
        with precision():
            illumination = self.module(photos)
        illumination = illumination.float()
        unclamped = divide(photos, illumination)
        result = unclamped.clamp(0, 1)
        terms = {}
        measures = {
            "mean_illumination": illumination.detach().mean(),
            "input_error": luma_error(result.detach(), photos),
        }
        if phase.encodes:
            terms, more = self._encoded_terms(phase, batch, result)
            measures |= more
        if WHITE in phase.terms:
            terms[WHITE] = white_loss(unclamped, self._known_or_photo(batch))
        if PIXEL in phase.terms:
            terms[PIXEL] = self._pixel_term(unclamped, batch)
        return {name: phase.terms[name] * term for name, term in terms.items()}, measures

    def _known_or_photo(self, batch: Batch) -> Tensor:
        """The lit photo of each input (B,3,H,W), where that is known, or the input."""
        if batch.known is None:
            return batch.photos
        reference = batch.photos.clone()
        reference[batch.known] = batch.lit
        return reference

    def _pixel_term(self, unclamped: Tensor, batch: Batch) -> Tensor:
        """L_pixel over the photos whose ground truth is known; 0 where that is none."""
        if batch.known is None or not batch.known.any():
            return unclamped.new_zeros(())
        loss = self.config.loss
        return pixel_loss(unclamped[batch.known], batch.lit, loss.structure, loss.pixel_error)

    def _encoded_terms(self, phase: Phase, batch: Batch, result: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The terms that compare embeddings or feature maps, not yet weighted,
        and what else is worth a line in the log.
        """
        photos, layers = batch.photos, used_layers(phase.identity_layers)
        with torch.no_grad():  # in each step: with augmentation hardly an input comes twice
            by_photo = RESIDUAL in phase.terms and self.config.guidance.set_point == "photo"
            source_embeddings, source_maps = self._encoded(photos, len(layers), by_photo)
            set_points = self._set_points(source_embeddings, batch) if by_photo else None
        embeddings, maps = self._encoded(result, len(layers), phase.guided)
        terms, measures = {}, {}
        if IDENTITY in phase.terms:
            reduction = self.config.loss.identity_reduction
            content = identity_loss(maps, source_maps, layers, reduction)
            # processes average their gradients; a sum over the whole batch must stay one
            terms[IDENTITY] = content * self.accelerator.num_processes if reduction == "sum" else content
        if RESIDUAL in phase.terms:
            terms[RESIDUAL] = residual_loss(embeddings, self.residual, set_points)
            if by_photo:
                measures["set_point"] = set_points.mean()
                measures["backlit_projection"] = (source_embeddings @ self.residual.vector).mean()
            measures["projection"] = (embeddings.detach() @ self.residual.vector).mean()
            if phase.settle_at is not None:
                start = measures.get("backlit_projection", self.residual.start)
                target = measures.get("set_point", self.residual.target)
                measures["way"] = (measures["projection"] - start) / (target - start)
        if CLIP in phase.terms:
            terms[CLIP] = clip_guidance_loss(embeddings, self.guidance_vectors, self.config.guidance_model.logit_scale)
            measures["negative_similarity"] = terms[CLIP].detach()
        return terms, measures

    def _encoded(self, images: Tensor, count: int, embed: bool) -> tuple[Tensor | None, list[Tensor]]:
        """Embeddings (B,D) where asked for, and the first `count` maps; from one pass where one network gives both."""
        for_embeddings = self.accelerator.autocast
        # near the identity map bf16 rounds away by how little the maps of photo and result differ
        for_maps = for_embeddings if self.config.train.precision == "fastest" else nullcontext
        if embed and self.guidance_encoder.model is self.identity_encoder.model:
            with for_maps():
                embeddings, maps = self.guidance_encoder.embed_with_maps(images)
            return embeddings, maps[:count]
        with for_embeddings():
            embeddings = self.guidance_encoder.embed_images(images) if embed else None
        with for_maps():
            return embeddings, self.identity_encoder.feature_maps(images, count)

    def _set_points(self, source_embeddings: Tensor, batch: Batch) -> Tensor:
        """One for each photo (B,): from its own projection, or, where it is known how it was lit,
        the projection of that.
        """
        set_points = photo_set_points(source_embeddings, self.residual, self.config.guidance.set_point_factor)
        if batch.known is not None and len(batch.lit):
            with self.accelerator.autocast():
                embeddings = self.guidance_encoder.embed_images(batch.lit)
            set_points[batch.known] = embeddings @ self.residual.vector
        return set_points

    def _on_device(self, photos: Tensor) -> Tensor:
        return photos.to(self.accelerator.device, memory_format=torch.channels_last, non_blocking=True)

    def logged(self, means: dict[str, float]) -> dict[str, float]:
        """The error as a PSNR (dB) of the whole batch, however many processes share it."""
        values = dict(means)
        if "input_error" in values:
            values["input_psnr"] = -10 * math.log10(max(values.pop("input_error"), 1e-10))
        return values

    def is_dead(self, values: dict[str, float]) -> bool:
        """A map of zeros: the ReLU at the output passes no gradient back."""
        return values["mean_illumination"] == 0

    def learning_rate(self, phases: Sequence[Phase], state: TrainState) -> float:
        """Halved by each collapse; with `lr_schedule: cosine` it falls along half a cosine."""
        options, phase = self.config.unet_model, phases[state.phase]
        rate = (options.lr if phase.enhances else options.reconstruction_lr or options.lr) * 0.5**state.collapses
        if options.lr_schedule == "constant":
            return rate
        fall = math.cos(math.pi * schedule_progress(phases, state))
        return rate * (LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + fall))

    def end(self, phase: Phase, state: TrainState) -> None:
        """The UNets of CLIP-LIT's last two rounds make the enhanced sets of the refinement. After a first map Adam
        starts over: its gradients were so small that by their moments the first guided steps would be far too long.
        """
        if MAP in phase.terms:
            self.optimizer.state.clear()
        if phase.round:
            state.enhancers = [*state.enhancers, state.best["unet"]][-2:]

    def fresh(self, restart: int) -> IlluminationUNet:
        """An untrained UNet (or the one of `pretrain_dir`); each restart has another seed."""
        options = self.config.unet_model
        seed_everything(self.config.exp.seed + restart)
        unet = IlluminationUNet("zeros", map_bias=options.map_bias, init_std=options.init_std)
        if options.load_pretrain:
            unet.load_state_dict(self._start)
        return unet

    def batch_order(self, start: int) -> BatchOrder:
        accelerator, seed = self.accelerator, self.config.exp.seed
        return BatchOrder(
            len(self.photos),
            self.batch_size,
            seed,
            start=start,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )


def schedule_progress(phases: Sequence[Phase], state: TrainState) -> float:
    """0 to 1, through what the learning rate's schedule spans: all iterations that enhance, the last ones after
    `settle_at`, or those of the first map. A reconstruction has no schedule: 0.
    """
    phase = phases[state.phase]
    if phase.settle_at is not None:
        if state.settled_at is None:
            return 0.0
        return (state.iteration - state.settled_at) / max(state.planned - state.settled_at, 1)
    if phase.enhances:
        lengths = [p.iterations if p.enhances else 0 for p in phases]
        lengths[state.phase] = state.planned
        return (sum(lengths[: state.phase]) + state.iteration) / sum(lengths)
    return state.iteration / state.planned if MAP in phase.terms else 0.0


def used_layers(weights: Sequence[float]) -> Sequence[float]:
    """Weights of the maps from the stem to the last one that counts; at least one."""
    last = max((number for number, weight in enumerate(weights) if weight), default=0)
    return weights[: last + 1]


def luma_error(result: Tensor, source: Tensor) -> Tensor:
    """Mean squared error of BT.601 luma between two batches (B,3,H,W) in [0, 1], over the whole batch."""
    weights = result.new_tensor(LUMA).view(1, 3, 1, 1)
    return ((result - source) * weights).sum(dim=1).square().mean()
