"""The training loop: phases of UNet training under frozen CLIP guidance (RAVE, section 3).

Read top to bottom: `train_rave` prepares, `Trainer.run` walks through the phases, `Trainer._step`
is one iteration.
"""

import math
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from configs.load import find_file
from configs.provenance import provenance
from configs.schema import Encoder, TrainConfig
from data.augment import training_augmentation
from data.folders import BatchOrder, ResizedPhotos
from data.listing import list_images
from errors import UserError
from losses.identity import identity_loss
from losses.residual import ResidualGuidance, residual_guidance, residual_loss, shift
from metrics.pairing import Pair
from models.checkpoints import load_unet, save_unet
from models.clip_encoder import ClipEncoder, load_clip
from models.retinex import enhance
from models.unet import IlluminationUNet
from training.embeddings import embed_photos, embed_vocabulary
from training.phases import Phase, describe_schedule, rave_schedule
from training.runtime import describe_device, make_accelerator, seed_everything
from training.state import TrainState
from training.tracking import RunFolder, photo_grid, plot_curves
from training.validation import Validation, enhance_all, to_uint8, validation_pairs

LOWEST_RATE = 0.05  # where `lr_schedule: cosine` ends, of the learning rate
MAX_COLLAPSES = 5  # of a guided phase into white results; each halves the learning rate
MAX_RESTARTS = 10  # of a training that does not start; each has another seed
RESTART_ITERATIONS = 100  # that a restart adds (release)


class TrainingDiverged(UserError):
    """The loss or a gradient became infinite or NaN, or self-reconstruction never started."""


def train_rave(config: TrainConfig, *, resume: bool = False, dry_run: bool = False) -> Path | None:
    """Train a UNet with RAVE. Returns the run folder, or None for a dry run, which writes nothing.

    Raises UserError for paths, photos, encoders or a state that cannot be used, TrainingDiverged
    where the training breaks down.
    """
    accelerator = make_accelerator(config.train.device, config.train.precision)
    say = accelerator.print
    data = config.data
    backlit_paths = list_images(data.backlit_images_path, "data.backlit_images_path")
    welllit_paths = list_images(data.welllit_images_path, "data.welllit_images_path")
    phases = rave_schedule(config, len(backlit_paths))
    say(f"device     {describe_device(accelerator)}")
    say(f"photos     {len(backlit_paths)} backlit, {len(welllit_paths)} well-lit, trained at {data.image_size} x {data.image_size}")
    say(f"schedule\n{describe_schedule(phases, config)}")
    if config.unet_model.load_pretrain:
        _pretrained(config)
    pairs = _validation_pairs(config)
    if dry_run:
        return None

    run = RunFolder(config)
    if resume and not run.state_file.is_file():
        raise UserError(f"--resume: expected a saved state, found nothing there: {run.state_file}")
    _make_folder(config.exp.save_dir, "exp.save_dir")
    _make_folder(config.exp.cache_dir, "exp.cache_dir")
    guidance_encoder, identity_encoder = _encoders(config, accelerator)
    with accelerator.main_process_first():  # one process computes, the others find the cache
        guidance, skipped = _residual(config, guidance_encoder, backlit_paths, welllit_paths)
        validation = Validation(pairs, data.val_size or data.image_size, config.exp.cache_dir) if pairs else None
    if validation:
        psnr, ssim = validation.untouched
        say(f"validation {len(validation)} pairs; untouched input: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}")
    separation = float(guidance.well_lit @ guidance.backlit)
    say(f"encoders   guidance {guidance_encoder.name}, identity {identity_encoder.name}")
    say(f"residual   cos(well-lit mean, backlit mean) = {separation:.4f}, set point τ = {guidance.target:.4f}")
    for reason in skipped:
        say(f"left out   {reason}")
    with accelerator.main_process_first():  # the others find the cache
        photos = ResizedPhotos(backlit_paths, data.image_size, config.exp.cache_dir, training_augmentation() if data.augment else None)

    trainer = Trainer(
        config, accelerator, run, phases, photos, guidance.to(accelerator.device), guidance_encoder, identity_encoder, validation
    )
    if accelerator.is_main_process:
        if resume:
            trainer.state.load(run.state_file)
            run.reopen(config, trainer.state.total)
            if trainer.state.phase == len(phases):
                say(f"run        {run.path}: finished already, at iteration {trainer.state.total}")
                return run.path
        elif note := run.create(config, provenance()):
            say(f"note       {note}")
    accelerator.wait_for_everyone()
    if resume and not accelerator.is_main_process:
        trainer.state.load(run.state_file)
    say(f"run        {run.path}{f', resumed at iteration {trainer.state.total}' if resume else ''}")
    trainer.run()
    return run.path


class Trainer:
    """One UNet, its state, and what guides it."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        run: RunFolder,
        phases: list[Phase],
        photos: ResizedPhotos,
        guidance: ResidualGuidance,
        guidance_encoder: ClipEncoder,
        identity_encoder: ClipEncoder,
        validation: Validation | None,
    ) -> None:
        self.config, self.accelerator, self.run_folder, self.phases = config, accelerator, run, phases
        self.photos, self.guidance, self.validation = photos, guidance, validation
        self.guidance_encoder, self.identity_encoder = guidance_encoder, identity_encoder
        options = config.unet_model
        unet = self._fresh_unet(restart=0).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(unet.parameters(), lr=options.lr, weight_decay=options.weight_decay)
        self.unet, self.optimizer = accelerator.prepare(unet, optimizer)
        self.state = TrainState(accelerator.unwrap_model(self.unet), self.optimizer)
        self.state.start_phase(0, phases[0].iterations)
        self._order()  # refuses a batch that the processes cannot share
        count = config.train.preview_photos
        source = validation.backlit if validation else [photos[i] for i in range(min(count, len(photos)))]
        self.preview = torch.stack(list(source[:count])) if count else None
        self.candidate: dict[str, Tensor] = {}  # weights at the last look for the best snapshot
        self.seconds = 0.0  # spent in steps since the last log line
        self.steps = 0

    def run(self) -> None:
        """All phases, from wherever the state stands. On Ctrl-C the state is saved first."""
        state, main = self.state, self.accelerator.is_main_process
        bar = tqdm(
            total=self._iterations_left() + state.total,
            initial=state.total,
            disable=not main,
            unit="it",
            desc=self.phases[state.phase].name,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 20,  # seconds; a log file wants few lines
        )
        batches = iter(self._loader())
        if state.total == 0:
            self._check()
        stop = _StopRequest()
        try:
            while state.phase < len(self.phases):
                phase = self.phases[state.phase]
                bar.set_description(phase.name)
                while state.iteration < state.planned:
                    stop.raise_if_asked()
                    self._step(phase, next(batches), bar)
                    self._after_step(phase, bar)
                self._finish_phase(phase)
        except KeyboardInterrupt:
            if main:
                self._save()
                bar.write(f"state saved to {self.run_folder.state_file}; go on with --resume")
            raise
        finally:
            stop.close()
            bar.close()
        self._finish()

    def _step(self, phase: Phase, photos: Tensor, bar: tqdm) -> None:
        """One UNet iteration: I_t = I_b / UNet(I_b), losses, one Adam step."""
        started = time.perf_counter()
        state, world = self.state, self.accelerator.num_processes
        photos = photos.to(self.accelerator.device, memory_format=torch.channels_last)
        with self.accelerator.autocast():
            result = enhance(photos, self.unet(photos).float())
            with torch.no_grad():
                source_maps = self.identity_encoder.feature_maps(photos)
            reduction = self.config.loss.identity_reduction
            content = identity_loss(self.identity_encoder.feature_maps(result), source_maps, phase.identity_layers, reduction)
            if reduction == "sum":
                content = content * world  # processes average their gradients; a sum over the whole batch must stay one
            terms = {"identity": phase.identity * content}
            if phase.residual:
                embeddings = self.guidance_encoder.embed_images(result)
                terms["residual"] = phase.residual * residual_loss(embeddings, self.guidance)
        loss = sum(terms.values())
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self._gradient_norm()
        if not torch.isfinite(loss.detach() + norm):
            raise TrainingDiverged(
                f"{phase.name}, iteration {state.total}: loss {loss.item():.3g}, gradient norm {norm.item():.3g}; "
                "nothing was updated and earlier checkpoints are intact; lower unet_model.lr or set unet_model.grad_clip"
            )
        state.iteration += 1
        state.total += 1
        if norm == 0:
            self._revive(phase, bar)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(phase)
        if self._looks_for_best():
            self.candidate = state.snapshot()  # the weights that this step measures, before they change
        self.optimizer.step()

        values = {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}
        values["input_psnr"] = luma_psnr(result.detach(), photos)
        if phase.residual:
            values["projection"] = (embeddings.detach() @ self.guidance.vector).mean()
        values = {name: self.accelerator.reduce(value, "mean").item() for name, value in values.items()}
        self.seconds += time.perf_counter() - started
        self.steps += 1
        state.record(values["input_psnr"] if phase.best_by == "input_psnr" else -values["loss"], values["loss"])
        if state.total % self.config.unet_model.display_iter == 0 or state.iteration == state.planned:
            self._log(phase, values, norm.item(), bar)

    def _after_step(self, phase: Phase, bar: tqdm) -> None:
        state, options = self.state, self.config.unet_model
        bar.update()
        if self._looks_for_best() and state.scores:
            self._keep_if_best()
        if phase.guard_psnr is not None and state.iteration == phase.guard_iterations and state.mean_score() < phase.guard_psnr:
            self._restart(phase, bar, f"{state.mean_score():.1f} dB after {state.iteration} iterations")
            state.planned += RESTART_ITERATIONS
            bar.total += RESTART_ITERATIONS
        if state.iteration == state.planned and phase.extend_while_loss_above is not None and state.losses:
            above = state.mean_loss() > phase.extend_while_loss_above
            if above and state.extensions < options.max_extensions:
                state.extensions += 1
                state.planned += options.extension_iters
                bar.total += options.extension_iters
                bar.write(f"{phase.name}: loss {state.mean_loss():.2f} above thr_loss, +{options.extension_iters} iterations")
        if state.total % self.config.train.val_iter == 0:
            self._check(bar)
        if state.total % self.config.train.save_iter == 0 and self.accelerator.is_main_process:
            self._save()

    def _learning_rate(self, phase: Phase) -> float:
        """A function of the state, so that there is no scheduler to save."""
        options, state = self.config.unet_model, self.state
        rate = options.lr * 0.5**state.collapses
        if options.lr_schedule == "constant" or not phase.residual:
            return rate
        progress = state.iteration / state.planned
        return rate * (LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))

    def _looks_for_best(self) -> bool:
        return self.state.iteration % self.config.unet_model.display_iter == 0 or self.state.iteration == self.state.planned

    def _keep_if_best(self) -> None:
        state = self.state
        if state.mean_score() > state.best_score:
            state.best_score, state.best_total, state.best = state.mean_score(), state.total, self.candidate

    def _revive(self, phase: Phase, bar: tqdm) -> None:
        """The map is zero everywhere: results are white, and a dead ReLU at the output has no gradient by which to leave that state.

        Before anything was learned only other weights help. Later, Retinex having divided by an ever
        smaller map, training goes back to the best snapshot, at half the learning rate.
        """
        state = self.state
        if state.phase == 0 and not state.scores:
            self._restart(phase, bar, "the map is zero everywhere")
            return
        state.collapses += 1
        if state.collapses > MAX_COLLAPSES:
            raise TrainingDiverged(
                f"{phase.name}: results turned white {state.collapses} times, the last at iteration {state.total}; "
                "lower unet_model.lr or loss.residual, or raise loss.identity_guided"
            )
        state.unet.load_state_dict(state.best)
        state.optimizer.state.clear()
        state.scores, state.losses = [], []
        bar.write(f"{phase.name}: results turned white, back to iteration {state.best_total} at half the learning rate")

    def _restart(self, phase: Phase, bar: tqdm, why: str) -> None:
        """Divergence guard: the phase begins anew with another seed."""
        state = self.state
        state.restarts += 1
        if state.restarts > MAX_RESTARTS:
            raise TrainingDiverged(
                f"{phase.name}: {why}, as from {MAX_RESTARTS} other seeds; "
                "lower unet_model.lr, or set unet_model.map_bias to 1.0 to start close to the identity map"
            )
        bar.write(f"{phase.name}: {why}; starting anew with another seed")
        state.unet.load_state_dict(self._fresh_unet(state.restarts).state_dict())
        state.optimizer.state.clear()
        bar.total += state.iteration
        state.iteration = 0
        state.forget_scores()

    def _finish_phase(self, phase: Phase) -> None:
        """The next phase starts from this phase's best snapshot."""
        state = self.state
        state.unet.load_state_dict(state.best)
        state.phase += 1
        if state.phase < len(self.phases):
            state.start_phase(state.phase, self.phases[state.phase].iterations)

    def _finish(self) -> None:
        if not self.accelerator.is_main_process:
            return
        run, state = self.run_folder, self.state
        if state.total % self.config.train.val_iter:
            self._check()
        self._save()
        summary = {"iterations": state.total, "restarts": state.restarts, "collapses": state.collapses, "best_iteration": state.best_total}
        if self.validation:
            summary["best"] = self.validation.run(state.best, self.accelerator.device)
            summary["best_val_iteration"] = state.best_val_total
            summary["best_val"] = self.validation.run(state.best_val, self.accelerator.device)
            shown = {
                f"best snapshot (iteration {state.best_total})": summary["best"],
                f"best by validation (iteration {state.best_val_total})": summary["best_val"],
            }
            for name, values in shown.items():
                self.accelerator.print(f"{name}: PSNR {values['val_psnr']:.2f} dB, SSIM {values['val_ssim']:.3f}")
        run.write_json("summary.json", summary)
        plot_curves(run.read_metrics(), run.path / "curves.png", self.config.exp.exp_name)
        run.close()
        self.accelerator.print(f"weights    {run.best_file}")

    def _log(self, phase: Phase, values: dict[str, float], norm: float, bar: tqdm) -> None:
        photos_per_second = self.steps * self.config.unet_model.batch_size / self.seconds
        bar.set_postfix({"loss": f"{values['loss']:.3f}", "photos/s": f"{photos_per_second:.1f}"})
        if self.accelerator.is_main_process:
            extra = {"set_point": self.guidance.target} if "projection" in values else {}
            speed = {"photos_per_second": photos_per_second, "seconds_per_step": self.seconds / self.steps}
            rate = {"gradient_norm": norm, "learning_rate": self._learning_rate(phase)}
            self.run_folder.log(self.state.total, {"phase": phase.name, **values, **extra, **rate, **speed})
        self.seconds, self.steps = 0.0, 0

    def _check(self, bar: tqdm | None = None) -> None:
        """Validation and previews, on the main process."""
        if not self.accelerator.is_main_process:
            return
        state, device, weights = self.state, self.accelerator.device, self.state.snapshot()
        name = self.phases[min(state.phase, len(self.phases) - 1)].name
        if self.validation:
            values = self.validation.run(weights, device)
            self.run_folder.log(state.total, {"phase": name, **values}, tag="validation")
            if bar:
                bar.write(f"iteration {state.total:5}  {name}: validation PSNR {values['val_psnr']:.2f} dB, SSIM {values['val_ssim']:.3f}")
            if values["val_psnr"] > state.best_val_psnr:
                state.best_val_psnr, state.best_val_total, state.best_val = values["val_psnr"], state.total, weights
        if self.preview is not None:
            columns = [to_uint8(self.preview), to_uint8(enhance_all(weights, self.preview, device))]
            titles = ["backlit", f"enhanced, iteration {state.total}"]
            if self.validation:
                columns.append(self.validation.truth[: len(self.preview)])
                titles.append("ground truth")
            rows = list(zip(*columns, strict=True))
            picture = photo_grid(rows, titles, self.run_folder.path / "previews" / f"iteration_{state.total:06}.png")
            self.run_folder.events.add_image("preview", picture, state.total, dataformats="HWC")

    def _save(self) -> None:
        state, run = self.state, self.run_folder
        state.save(run.state_file)
        facts = {
            "method": "rave",
            "run": self.config.exp.exp_name,
            "seed": str(self.config.exp.seed),
            "set_point": str(self.guidance.target),
        }
        for weights, path, iteration in (
            (state.best, run.best_file, state.best_total),
            (state.best_val, run.best_val_file, state.best_val_total),
        ):
            if weights:
                unet = IlluminationUNet()
                unet.load_state_dict(weights)
                save_unet(unet, path, {**facts, "iteration": str(iteration)})

    def _gradient_norm(self) -> Tensor:
        limit = self.config.unet_model.grad_clip
        return torch.as_tensor(self.accelerator.clip_grad_norm_(self.unet.parameters(), float("inf") if limit is None else limit))

    def _fresh_unet(self, restart: int) -> IlluminationUNet:
        options = self.config.unet_model
        seed_everything(self.config.exp.seed + restart)
        unet = IlluminationUNet("zeros", map_bias=options.map_bias)
        if options.load_pretrain:
            unet.load_state_dict(load_unet(_pretrained(self.config)).state_dict())
        return unet

    def _order(self) -> BatchOrder:
        return BatchOrder(
            len(self.photos),
            self.config.unet_model.batch_size,
            self.config.exp.seed,
            start=self.state.total,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

    def _loader(self) -> DataLoader:
        return DataLoader(
            self.photos,
            batch_sampler=self._order(),
            num_workers=self.config.train.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def _iterations_left(self) -> int:
        later = sum(phase.iterations for phase in self.phases[self.state.phase + 1 :])
        return self.state.planned - self.state.iteration + later


def luma_psnr(result: Tensor, source: Tensor) -> Tensor:
    """PSNR in dB of BT.601 luma between two batches (B,3,H,W) in [0, 1], over the whole batch."""
    weights = result.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    error = ((result - source) * weights).sum(dim=1).square().mean()
    return -10 * torch.log10(error.clamp(min=1e-10))


def _encoders(config: TrainConfig, accelerator: Accelerator) -> tuple[ClipEncoder, ClipEncoder]:
    """Guidance and identity encoder; one object where the config names the same for both."""
    clip = config.clip
    loaded: dict[tuple, ClipEncoder] = {}

    def load(encoder: Encoder) -> ClipEncoder:
        key = (encoder.model, encoder.pretrained)
        if key not in loaded:
            loaded[key] = load_clip(*key, device=accelerator.device, preprocess=clip.preprocess, seed=clip.seed)
        return loaded[key]

    with accelerator.main_process_first():  # one process downloads
        guidance, identity = load(clip.guidance), load(clip.identity)
    if config.guidance.remove_first_n_tokens and not guidance.has_text:
        raise UserError(f"guidance.remove_first_n_tokens: needs an encoder with a text tower, found {guidance.name}")
    side = identity.image_size
    identity.feature_maps(torch.zeros(1, 3, side, side, device=accelerator.device))  # refuses an encoder without five maps
    return guidance, identity


def _residual(config: TrainConfig, encoder: ClipEncoder, backlit: list[Path], welllit: list[Path]) -> tuple[ResidualGuidance, list[str]]:
    cache, batch = config.exp.cache_dir, config.guidance.embed_batch_size
    welllit_embeddings, skipped_welllit = embed_photos(welllit, encoder, cache, batch, "data.welllit_images_path")
    backlit_embeddings, skipped_backlit = embed_photos(backlit, encoder, cache, batch, "data.backlit_images_path")
    try:
        guidance = residual_guidance(welllit_embeddings, backlit_embeddings)
    except ValueError as error:
        raise UserError(f"data.backlit_images_path, data.welllit_images_path: {error}") from None
    n = config.guidance.remove_first_n_tokens
    if n:
        guidance = shift(guidance, embed_vocabulary(encoder, cache), n)
    return guidance, skipped_welllit + skipped_backlit


def _validation_pairs(config: TrainConfig) -> list[Pair]:
    data = config.data
    if data.val_backlit_path is None and data.val_gt_path is None:
        return []
    if data.val_backlit_path is None or data.val_gt_path is None:
        raise UserError("data.val_backlit_path, data.val_gt_path: expected both or neither, found one")
    list_file = None if data.val_list is None else find_file(data.val_list, "data.val_list")
    return validation_pairs(data.val_backlit_path, data.val_gt_path, list_file)


def _pretrained(config: TrainConfig) -> Path:
    if config.unet_model.pretrain_dir is None:
        raise UserError("unet_model.pretrain_dir: expected a weight file (unet_model.load_pretrain is true), found nothing (null)")
    return find_file(config.unet_model.pretrain_dir, "unet_model.pretrain_dir")


def _make_folder(path: str, key: str) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: expected a folder that can be made, found {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"{key}: expected a folder that can be written, found {path}")


class _StopRequest:
    """Ctrl-C between two iterations: inside one, it would leave half an update. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.main_thread = threading.current_thread() is threading.main_thread()
        self.previous = signal.signal(signal.SIGINT, self._ask) if self.main_thread else None

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def raise_if_asked(self) -> None:
        if self.asked:
            raise KeyboardInterrupt

    def close(self) -> None:
        if self.main_thread:
            signal.signal(signal.SIGINT, self.previous)
