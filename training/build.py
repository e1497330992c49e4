"""From a config to everything that a training consists of: photos, encoders, guidance, schedule, tasks.

`plan` looks at the config and the folders and writes nothing; `build` loads encoders, photos and guidance.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from common.console import note, say
from common.errors import UserError
from common.paths import find_file
from configs.schema import TrainConfig
from data.folders import MixedInputs, ResizedPhotos
from data.listing import left_out
from losses.residual import ResidualGuidance
from metrics.pairing import Pair
from models.checkpoints import load_unet
from models.clip_encoder import ClipEncoder
from training.directions import describe, run_direction, source_weights
from training.embeddings import encoder_loader, missing_weights
from training.guidance_task import GuidanceTask
from training.inputs import check_truths, truth_pairs, unet_inputs
from training.paths import find_pretrained
from training.phases import Phase, describe_schedule, schedule
from training.photos import leave_out_notes, training_photos
from training.runs import path_of
from training.runtime import describe_device
from training.task import Task
from training.tracking import RunFolder
from training.unet_task import UNetTask
from training.validation import Validation, validation_pairs


@dataclass(frozen=True)
class Plan:
    """What a training will do, known before anything heavy is loaded."""

    phases: list[Phase]
    backlit: list[Path]
    well_lit: list[Path]
    validation: list[Pair]
    truths: list[Pair]  # of `data.pairs`
    start: Mapping[str, Tensor] | None = None  # weights of `unet_model.pretrain_dir`, where they are loaded


@dataclass
class Parts:
    """What a training consists of. skipped: why photos were left out; seconds: what building took."""

    config: TrainConfig
    accelerator: Accelerator
    phases: list[Phase]
    unet: UNetTask
    guidance: GuidanceTask | None = None  # of CLIP-LIT
    validation: Validation | None = None
    folder: RunFolder | None = None
    skipped: tuple[str, ...] = ()
    photos_used: tuple[int, int] = (0, 0)  # backlit, well-lit
    seconds: float = 0.0

    @property
    def tasks(self) -> dict[str, Task]:
        return {task.name: task for task in (self.unet, self.guidance) if task}


def plan(config: TrainConfig, accelerator: Accelerator) -> Plan:
    """Check what the config names, and say what will be done. Raises UserError."""
    data, method = config.data, config.method
    backlit, well_lit = training_photos(data)
    phases, start = schedule(config, len(backlit)), None
    if config.unet_model.load_pretrain:
        start = load_unet(find_pretrained(config, "unet_model"), must_enhance=True).state_dict()
    if config.exp.mode == "rave":
        check_truths(config)
    if method == "rave":
        source_weights(config.guidance)  # which refuses keys that do not go together
    pairs, notes = _validation_pairs(config)
    truths, more = truth_pairs(data, backlit)
    side = f"{data.image_size} x {data.image_size}"
    say(f"method     {method}{': by ground truths, without guidance' if method == 'supervised' else ''}")
    say(f"device     {describe_device(accelerator)}")
    counted = f"{len(backlit)} backlit"
    if truths and len(truths) < len(backlit):
        counted = f"{len(truths)} backlit with a ground truth (left out: {len(backlit) - len(truths)} without)"
    say(f"photos     {counted}, {len(well_lit)} well-lit, trained at {side}")
    if others := left_out([data.backlit_images_path, data.welllit_images_path]):
        say(f"left out   {others}")
    for text in leave_out_notes(data):
        note(text)
    say("schedule", *describe_schedule(phases).splitlines())
    for text in (*notes, *more):
        note(text)
    return Plan(phases, backlit, well_lit, pairs, truths, start)


def tell_weights(config: TrainConfig, planned: Plan) -> None:
    """Say whether the encoders' weights are here; nothing is downloaded for it.

    Raises UserError for encoders and weights that cannot be used.
    """
    if any(phase.encodes for phase in planned.phases):
        missing = missing_weights(config.clip)
        say(f"weights    {'not on this machine: ' + ', '.join(missing) if missing else 'of the encoders are here'}")


def build(config: TrainConfig, accelerator: Accelerator, planned: Plan, folder: RunFolder) -> Parts:
    """Load encoders and photos, embed what the guidance is made of. Into `folder` nothing is written yet.

    Raises UserError for photos, encoders, weights or directions that cannot be used.
    """
    guidance_encoder, identity_encoder, residual, guidance, unread = None, None, None, None, []
    if encodes := any(phase.encodes for phase in planned.phases):
        guidance_encoder, identity_encoder = load_encoders(config, accelerator)
        say(f"encoders   guidance {guidance_encoder.name}, identity {identity_encoder.name}")
    photos, validation = _photos(config, accelerator, planned)
    started = time.perf_counter()
    if config.method == "rave" and encodes:
        residual, unread = _residual(config, accelerator, guidance_encoder, planned)
    elif config.exp.mode != "rave":
        guidance = _learned_guidance(config, accelerator, guidance_encoder, folder)
        unread = guidance.well_lit.skipped + guidance.backlit.skipped
    reasons = [*unread, *photos.skipped, *(validation.skipped if validation else ())]
    skipped = list({path_of(reason): reason for reason in reasons}.values())
    for reason in skipped:
        say(f"left out: {reason}", file=sys.stderr)
    vectors = guidance and guidance.vectors
    unet = UNetTask(config, accelerator, photos, guidance_encoder, identity_encoder, residual, vectors, planned.start)
    lost = {path_of(reason) for reason in unread}
    used = tuple(sum(str(path) not in lost for path in paths) for paths in (planned.backlit, planned.well_lit))
    return Parts(
        config=config,
        accelerator=accelerator,
        phases=planned.phases,
        unet=unet,
        guidance=guidance,
        validation=validation,
        folder=folder,
        skipped=tuple(skipped),
        photos_used=used,
        seconds=time.perf_counter() - started,
    )


def load_encoders(config: TrainConfig, accelerator: Accelerator) -> tuple[ClipEncoder, ClipEncoder]:
    """Guidance and identity encoder; one network where the config names the same for both."""
    clip, load = config.clip, encoder_loader(config.clip, accelerator.device)
    with accelerator.main_process_first():  # one process downloads
        guidance, identity = load(clip.guidance), load(clip.identity)
    if config.exp.mode != "clip_lit":  # texts, which prompts are, live in the last layer
        guidance = guidance.in_layers(config.guidance.layers)
    side = identity.image_size
    identity.feature_maps(torch.zeros(1, 3, side, side, device=accelerator.device))  # refuses one without five maps
    return guidance, identity


def _photos(
    config: TrainConfig, accelerator: Accelerator, planned: Plan
) -> tuple[ResizedPhotos | MixedInputs, Validation | None]:
    """What the UNet is trained on, and, on the main process, what validates it."""
    data, cache, validation = config.data, config.exp.cache_dir, None
    with accelerator.main_process_first():  # one process computes, the others find the cache
        photos = unet_inputs(data, cache, planned.backlit, planned.well_lit, planned.truths)
        if planned.validation and accelerator.is_main_process:  # which is the one that validates
            validation = Validation(planned.validation, data.val_size or data.image_size, cache, data.limits)
    for path in photos.uniform:
        note(f"{path}: of one colour everywhere, from which the UNet learns nothing; not trained on")
    if validation:
        psnr, ssim = validation.untouched
        say(f"validation {len(validation)} pairs; untouched input: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}")
    return photos, validation


def _learned_guidance(
    config: TrainConfig, accelerator: Accelerator, encoder: ClipEncoder, folder: RunFolder
) -> GuidanceTask:
    guidance = GuidanceTask(config, accelerator, encoder, folder.path / "enhanced_sets")
    counts = f"{len(guidance.held_backlit)} backlit, {len(guidance.held_well_lit)} well-lit photos"
    held = " held back from it" if config.guidance_model.held_back else ""
    say(f"guidance   {guidance.pair.kind}; reported on {counts}{held}")
    return guidance


def _residual(
    config: TrainConfig, accelerator: Accelerator, encoder: ClipEncoder, planned: Plan
) -> tuple[ResidualGuidance, list[str]]:
    with accelerator.main_process_first():  # one process computes, the others find the cache
        residual, skipped = run_direction(config, encoder, planned.backlit, planned.well_lit)
    separation = float(residual.well_lit @ residual.backlit)
    say(f"direction  {describe(config.guidance)}")
    wanted = f"set point τ = {residual.target:.4f}"
    if config.guidance.set_point == "photo":
        wanted = f"set point of each photo: its own + {config.guidance.set_point_factor * residual.step:.4f}"
    say(f"residual   cos(well-lit mean, backlit mean) = {separation:.4f}, {wanted}")
    if residual.start >= residual.target:
        say(
            "note       along this direction backlit photos lie above well-lit ones: training will pull away from light"
        )
    return residual.to(accelerator.device), skipped


def _validation_pairs(config: TrainConfig) -> tuple[list[Pair], list[str]]:
    data = config.data
    if data.val_backlit_path is None and data.val_gt_path is None:
        return [], []
    if data.val_backlit_path is None or data.val_gt_path is None:
        raise UserError("data.val_backlit_path, data.val_gt_path: expected both or neither, found one")
    list_file = None if data.val_list is None else find_file(data.val_list, "data.val_list")
    return validation_pairs(data.val_backlit_path, data.val_gt_path, list_file)
