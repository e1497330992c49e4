"""The training loop of all three methods: it walks through a schedule of phases (`training.phases`).

Read top to bottom: `train` prepares, `Trainer.run` walks through the phases, `Trainer._step` is one
iteration. What a step computes is in `training.unet_task` and `training.guidance_task`.
"""

import contextlib
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
from torchvision.transforms import v2
from tqdm import tqdm

from common.errors import UserError
from common.paths import find_file
from configs.schema import Encoder, TrainConfig
from data.augment import training_augmentation
from data.backlight import BacklightRanges, RandomBacklight
from data.folders import MixedInputs, ResizedPhotos
from data.listing import photo_sizes
from metrics.pairing import Pair
from models.checkpoints import save_tensors
from models.clip_encoder import ClipEncoder
from models.guidance import save_guidance
from training.directions import build_direction, check_guidance, describe, save_direction
from training.embeddings import load_encoder
from training.guidance_task import GuidanceTask
from training.phases import Phase, describe_schedule, schedule
from training.runtime import describe_device, keep_memory, make_accelerator
from training.state import TrainState
from training.tracking import RunFolder, photo_grid, plot_curves, read_metrics
from training.unet_task import UNetTask, find_pretrained
from training.validation import Validation, enhance_all, to_uint8, training_photos, validation_pairs

MAX_COLLAPSES = 5  # of a training into white results; each halves the learning rate from there on
MAX_RESTARTS = 10  # of a training that does not start; each has another seed
RESTART_ITERATIONS = 100  # that a restart adds (release)


class TrainingDiverged(UserError):
    """The loss or a gradient became infinite or NaN, or self-reconstruction never started."""


def train(
    config: TrainConfig, *, resume: bool = False, dry_run: bool = False, left_out: list[str] | None = None
) -> Path | None:
    """Train a UNet by the method of `exp.mode`. Returns the run folder, or None for a dry run, which writes nothing.

    left_out: a list to which the reasons of photos that cannot be read are added, on the main process.
    Raises UserError for paths, photos, encoders or a state that cannot be used, TrainingDiverged
    where the training breaks down.
    """
    keep_memory()
    accelerator = make_accelerator(config.train.device, config.train.precision)
    say = accelerator.print
    data = config.data
    backlit_paths, welllit_paths = training_photos(data)
    phases = schedule(config, len(backlit_paths))
    say(f"method     {config.exp.mode}")
    say(f"device     {describe_device(accelerator)}")
    say(
        f"photos     {len(backlit_paths)} backlit, {len(welllit_paths)} well-lit, trained at {data.image_size} x {data.image_size}"
    )
    say(f"schedule\n{describe_schedule(phases)}")
    for section in ("unet_model",) if config.exp.mode == "rave" else ("unet_model", "guidance_model"):
        if getattr(config, section).load_pretrain:
            find_pretrained(getattr(config, section).pretrain_dir, section)
    if config.exp.mode == "rave":
        check_guidance(config.guidance)
    pairs, notes = _validation_pairs(config)
    for note in notes:
        say(f"note       {note}")
    if dry_run:
        return None

    run = RunFolder(config)
    if resume and not run.state_file.is_file():
        raise UserError(f"--resume: expected a saved state, found nothing there: {run.state_file}")
    used = {
        "backlit": photo_sizes(backlit_paths, data.backlit_images_path),
        "welllit": photo_sizes(welllit_paths, data.welllit_images_path),
    }
    if resume:
        run.check(config, used)
    _make_folder(config.exp.save_dir, "exp.save_dir")
    _make_folder(config.exp.cache_dir, "exp.cache_dir")
    guidance_encoder, identity_encoder = load_encoders(config, accelerator)
    say(f"encoders   guidance {guidance_encoder.name}, identity {identity_encoder.name}")
    with accelerator.main_process_first():  # one process computes, the others find the cache
        photos = _unet_inputs(config, backlit_paths, welllit_paths)
        validation = Validation(pairs, data.val_size or data.image_size, config.exp.cache_dir) if pairs else None
    if validation:
        psnr, ssim = validation.untouched
        say(f"validation {len(validation)} pairs; untouched input: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}")

    started = time.perf_counter()
    residual, guidance = None, None
    if config.exp.mode == "rave":
        with accelerator.main_process_first():  # one process computes, the others find the cache
            residual, skipped = build_direction(config, guidance_encoder, backlit_paths, welllit_paths)
        separation = float(residual.well_lit @ residual.backlit)
        say(f"direction  {describe(config.guidance)}")
        say(f"residual   cos(well-lit mean, backlit mean) = {separation:.4f}, set point τ = {residual.target:.4f}")
        if residual.start >= residual.target:
            say(
                "note       along this direction backlit photos lie above well-lit ones: training will pull away from light"
            )
        residual = residual.to(accelerator.device)
    else:
        guidance = GuidanceTask(config, accelerator, guidance_encoder, run.path / "enhanced_sets")
        skipped = guidance.well_lit.skipped + guidance.backlit.skipped
        counts = f"{len(guidance.held_backlit)} backlit, {len(guidance.held_well_lit)} well-lit photos"
        say(
            f"guidance   {guidance.pair.kind}; reported on {counts}{' held back from it' if config.guidance_model.held_back else ''}"
        )
    for reason in skipped:
        say(f"left out   {reason}")
    if left_out is not None and accelerator.is_main_process:
        left_out += skipped
    unet = UNetTask(
        config, accelerator, photos, guidance_encoder, identity_encoder, residual, guidance and guidance.vectors
    )
    trainer = Trainer(config, accelerator, run, phases, unet, guidance, validation)
    trainer.state.seconds = time.perf_counter() - started
    if resume:  # every process: all have to agree on what is left
        trainer.state.load(run.state_file)
        if trainer.state.phase == len(phases) and run.summary_file.is_file():
            say(f"run        {run.path}: finished already, at iteration {trainer.state.total}")
            return run.path
    if accelerator.is_main_process:
        if resume:
            run.reopen(trainer.state.total, trainer.state.log_lines)
        else:
            if note := run.create(config, used):
                say(f"note       {note}")
            if residual:
                unread = {reason.partition(": expected ")[0] for reason in skipped}
                counts = tuple(
                    sum(str(path) not in unread for path in paths) for paths in (backlit_paths, welllit_paths)
                )
                save_direction(residual, run.direction_file, config.guidance, guidance_encoder, counts)
    accelerator.wait_for_everyone()
    say(f"run        {run.path}{f', resumed at iteration {trainer.state.total}' if resume else ''}")
    trainer.run()
    return run.path


class Trainer:
    """What is trained, its state, and the run folder."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        run: RunFolder,
        phases: list[Phase],
        unet: UNetTask,
        guidance: GuidanceTask | None,
        validation: Validation | None,
    ) -> None:
        self.config, self.accelerator, self.run_folder, self.phases = config, accelerator, run, phases
        self.unet, self.guidance, self.validation = unet, guidance, validation
        self.tasks: dict[str, UNetTask | GuidanceTask] = {task.name: task for task in (unet, guidance) if task}
        modules = {name: accelerator.unwrap_model(task.module) for name, task in self.tasks.items()}
        self.state = TrainState(modules, {name: task.optimizer for name, task in self.tasks.items()})
        for name in self.tasks:  # each has a best snapshot, its first weights
            self.state.start_phase(0, name, 0)
        self._start_phase(0)
        count, photos = config.train.preview_photos, unet.photos
        source = validation.backlit if validation else [photos[i] for i in range(min(count, len(photos)))]
        self.preview = torch.stack(list(source[:count])) if count else None
        self.candidate: dict[str, Tensor] = {}  # weights at the last look for the best snapshot
        self.logged_seconds, self.steps = 0.0, 0  # state.seconds at the last log line, and steps since

    def run(self) -> None:
        """All phases, from wherever the state stands. On Ctrl-C the state is saved first."""
        state, main = self.state, self.accelerator.is_main_process
        bar = tqdm(
            total=self._iterations_left() + state.total,
            initial=state.total,
            disable=not main,
            unit="it",
            desc=self._phase_name(),
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 20,  # seconds; a log file wants few lines
        )
        if state.log_lines == 0:
            self._check()
            if main:
                self._save()
        self.logged_seconds = state.seconds
        stop = _StopRequest(main)
        try:
            while state.phase < len(self.phases):
                phase = self.phases[state.phase]
                task = self.tasks[phase.trains]
                bar.set_description(phase.name)
                clock = time.perf_counter()
                if self.guidance:
                    self.guidance.set_enhancers(state.enhancers)
                batches = iter(task.batches(phase, state.total))
                while state.iteration < state.planned:
                    stop.raise_if_asked()
                    batch = next(batches)
                    if state.iteration == 0:
                        bar.unpause()  # a phase's first batch may have embedded all photos: not an iteration's time
                    values = self._step(phase, task, batch, bar)
                    state.seconds += time.perf_counter() - clock
                    self._after_step(phase, task, values, bar)
                    clock = time.perf_counter()
                self._finish_phase(phase, bar)
        except KeyboardInterrupt:
            if main and stop.between_iterations:
                self._save()
                bar.write(f"state saved to {self.run_folder.state_file}; go on with --resume")
            elif main:  # the state may count a step that was not made
                bar.write(
                    f"stopped inside an iteration; --resume goes on from the state saved before: {self.run_folder.state_file}"
                )
            raise
        finally:
            stop.close()
            bar.close()
        self._finish()

    def _step(self, phase: Phase, task: UNetTask | GuidanceTask, batch: object, bar: tqdm) -> dict[str, float]:
        """One iteration: losses, gradient, one Adam step. Returns the values to log; none for a step that was not made."""
        state = self.state
        terms, measures = task.losses(phase, batch)
        loss = sum(terms.values())
        task.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        limit = float("inf") if task.grad_clip is None else task.grad_clip
        norm = torch.as_tensor(self.accelerator.clip_grad_norm_(task.module.parameters(), limit))
        values = self._read({"loss": loss, **terms, **measures, "gradient_norm": norm})
        if not math.isfinite(values["loss"] + values["gradient_norm"]):
            raise TrainingDiverged(
                f"{phase.name}, iteration {state.total}: loss {values['loss']:.3g}, gradient norm {values['gradient_norm']:.3g}; "
                f"nothing was updated and earlier checkpoints are intact; lower {task.name}_model.lr"
                + (" or set unet_model.grad_clip" if task is self.unet else "")
            )
        state.iteration += 1
        state.total += 1
        self.steps += 1
        if values["gradient_norm"] == 0 and task is self.unet:
            self._revive(phase, bar)
            return {}
        for group in task.optimizer.param_groups:
            group["lr"] = self._learning_rate(phase)
        if self._looks_for_best(task):
            self.candidate = state.snapshot()  # the weights that this step measures, before they change
        task.optimizer.step()
        if task is self.unet and self.config.unet_model.ema is not None:
            state.update_average(self.config.unet_model.ema)
        state.record(values["input_psnr"] if phase.best_by == "input_psnr" else -values["loss"], values["loss"])
        return values

    def _read(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Scalars of a step, means over all processes, in one transfer: the only place where a step waits for the device.

        It has to: whether the weights may change (not finite, a dead map) is decided here, for all processes alike.
        """
        packed = torch.stack([value.detach().float() for value in values.values()])
        read = dict(zip(values, self.accelerator.reduce(packed, "mean").tolist(), strict=True))
        if "input_error" in read:  # the PSNR of the whole batch, however many processes share it
            read["input_psnr"] = -10 * math.log10(max(read.pop("input_error"), 1e-10))
        return read

    def _after_step(self, phase: Phase, task: UNetTask | GuidanceTask, values: dict[str, float], bar: tqdm) -> None:
        state = self.state
        bar.update()
        if values and self._looks_for_best(task):
            self._log(phase, task, values, bar)
            if state.mean_score() > state.best_score:
                state.best_score = state.mean_score()
                state.keep_best(self.candidate)
        at_guard = phase.guard_psnr is not None and state.iteration == phase.guard_iterations
        if at_guard and state.scores and state.mean_score() < phase.guard_psnr:
            self._restart(phase, bar, f"{state.mean_score():.1f} dB after {state.iteration} iterations")
            state.planned += RESTART_ITERATIONS
            bar.total += RESTART_ITERATIONS
        if state.iteration == state.planned and phase.extend_while_loss_above is not None and state.losses:
            above = state.mean_loss() > phase.extend_while_loss_above
            if above and state.extensions < phase.max_extensions:
                state.extensions += 1
                state.planned += phase.extension_iterations
                bar.total += phase.extension_iterations
                self._tell(
                    bar,
                    f"{phase.name}: loss {state.mean_loss():.2f} above thr_loss, +{phase.extension_iterations} iterations",
                )
        if state.total % self.config.train.val_iter == 0 and task is self.unet:
            self._check(bar)
        if state.total % self.config.train.save_iter == 0 and self.accelerator.is_main_process:
            self._save()

    def _learning_rate(self, phase: Phase) -> float:
        """By how much of the guided training of this phase's module is done, or of learning the first map; else as at the start."""
        state, progress = self.state, 0.0
        if phase.guided:
            lengths = [p.iterations if p.guided else 0 for p in self.phases]
            lengths[state.phase] = state.planned
            progress = (sum(lengths[: state.phase]) + state.iteration) / sum(lengths)
        elif "map" in phase.terms:
            progress = state.iteration / state.planned
        return self.tasks[phase.trains].learning_rate(phase, progress, state.collapses)

    def _looks_for_best(self, task: UNetTask | GuidanceTask) -> bool:
        return self.state.iteration % task.display_iter == 0 or self.state.iteration == self.state.planned

    def _revive(self, phase: Phase, bar: tqdm) -> None:
        """The map is zero everywhere: results are white, and a dead ReLU at the output has no gradient by which to leave that state.

        Before anything was learned only other weights help. Later, Retinex having divided by an ever
        smaller map, training goes back to the best snapshot, at half the learning rate.
        """
        state = self.state
        first = not any(p.trains == "unet" for p in self.phases[: state.phase])
        if first and not state.scores:
            self._restart(phase, bar, "the map is zero everywhere")
            return
        state.collapses += 1
        if state.collapses > MAX_COLLAPSES:
            raise TrainingDiverged(
                f"{phase.name}: results turned white {state.collapses} times, the last at iteration {state.total}; "
                + (
                    "lower unet_model.lr or loss.residual (CLIP-LIT: loss.clip), or raise loss.identity_guided"
                    if phase.guided
                    else "lower unet_model.reconstruction_lr (null: unet_model.lr)"
                )
            )
        state.go_back_to_best()
        self.unet.optimizer.state.clear()
        state.scores, state.losses = [], []
        self._tell(
            bar,
            f"{phase.name}: results turned white, back to iteration {state.best_total['unet']} at half the learning rate",
        )

    def _restart(self, phase: Phase, bar: tqdm, why: str) -> None:
        """Divergence guard: the phase begins anew with another seed."""
        state = self.state
        state.restarts += 1
        if state.restarts > MAX_RESTARTS:
            raise TrainingDiverged(
                f"{phase.name}: {why}, as from {MAX_RESTARTS} other seeds; "
                "lower unet_model.lr, or set unet_model.map_bias to 1.0 to start close to the identity map"
            )
        self._tell(bar, f"{phase.name}: {why}; starting anew with another seed")
        state.modules["unet"].load_state_dict(self.unet.fresh(state.restarts).state_dict())
        self.unet.optimizer.state.clear()
        bar.total += state.iteration
        state.iteration = 0
        state.average = {}
        state.forget_scores()

    def _start_phase(self, number: int) -> None:
        self.state.start_phase(number, self.phases[number].trains, self.phases[number].iterations)

    def _finish_phase(self, phase: Phase, bar: tqdm) -> None:
        """The module in training ends with its best snapshot; the guidance is reported; the next phase begins."""
        state = self.state
        if state.phase == self._last_of_unet() and state.total % self.config.train.val_iter:
            self._check(bar)  # the last weights, before the best ones take their place
        state.go_back_to_best()
        if phase.trains == "guidance":
            self._report(phase, bar)
        elif phase.round:
            state.enhancers = [*state.enhancers, state.best["unet"]][-2:]
        state.phase += 1
        if state.phase < len(self.phases):
            self._start_phase(state.phase)
            if self.phases[state.phase].guided and not any(p.guided for p in self.phases[: state.phase]):
                state.best_val_psnr = float("-inf")  # from here on; what came before was a start, not a result

    def _report(self, phase: Phase, bar: tqdm) -> None:
        """What the guidance can do by now, as a line of the log and on the console."""
        if not self.accelerator.is_main_process:
            return
        report = self.guidance.report()
        self.run_folder.log(self.state.total, {"phase": phase.name, **report}, tag="guidance")
        similarity = ", ".join(
            f"{name} {report[f's_{name}']:.3f}" for name in ("backlit", "enhanced", "welllit") if f"s_{name}" in report
        )
        bar.write(
            f"iteration {self.state.total:5}  {phase.name}: accuracy {100 * report['guidance_accuracy']:.1f} %, mean S: {similarity}"
        )
        for name in ("backlit", "welllit"):
            if f"tokens_{name}" in report:
                bar.write(f"                 tokens nearest to {name}: {report[f'tokens_{name}']}")

    def _finish(self) -> None:
        if not self.accelerator.is_main_process:
            return
        run, state = self.run_folder, self.state
        self._save()
        summary = {
            "method": self.config.exp.mode,
            "iterations": state.total,
            "seconds": round(state.seconds, 2),
            "restarts": state.restarts,
            "collapses": state.collapses,
            "best_iteration": state.best_total["unet"],
        }
        if self.validation:
            summary["best"] = self.validation.run(state.best["unet"], self.accelerator.device)
            summary["best_val_iteration"] = state.best_val_total
            summary["best_val"] = self.validation.run(state.best_val, self.accelerator.device)
            shown = {
                f"best snapshot (iteration {state.best_total['unet']})": summary["best"],
                f"best by validation (iteration {state.best_val_total})": summary["best_val"],
            }
            for name, values in shown.items():
                self.accelerator.print(f"{name}: PSNR {values['val_psnr']:.2f} dB, SSIM {values['val_ssim']:.3f}")
        plot_curves(read_metrics(run.metrics_file), run.path / "curves.png", self.config.exp.exp_name)
        run.finish(summary)
        if self.guidance:
            self.guidance.delete_enhanced_sets()
        self.accelerator.print(f"weights    {run.best_file}")

    def _log(self, phase: Phase, task: UNetTask | GuidanceTask, values: dict[str, float], bar: tqdm) -> None:
        seconds = max(self.state.seconds - self.logged_seconds, 1e-9)
        photos_per_second = self.steps * task.batch_size / seconds
        bar.set_postfix({"loss": f"{values['loss']:.3f}", "photos/s": f"{photos_per_second:.1f}"})
        if self.accelerator.is_main_process:
            direction = self.unet.residual if "projection" in values else None
            extra = {"set_point": direction.target, "backlit_projection": direction.start} if direction else {}
            rate = {"learning_rate": self._learning_rate(phase)}
            speed = {
                "photos_per_second": photos_per_second,
                "seconds_per_step": seconds / self.steps,
                "seconds": self.state.seconds,
            }
            self.run_folder.log(self.state.total, {"phase": phase.name, **values, **extra, **rate, **speed})
        self.logged_seconds, self.steps = self.state.seconds, 0

    def _check(self, bar: tqdm | None = None) -> None:
        """Validation and previews, on the main process."""
        if not self.accelerator.is_main_process:
            return
        state, device, weights = self.state, self.accelerator.device, self.state.snapshot("unet")
        name = self._phase_name()
        if self.validation:
            values = self.validation.run(weights, device)
            self.run_folder.log(state.total, {"phase": name, **values, "seconds": state.seconds}, tag="validation")
            if bar:
                bar.write(
                    f"iteration {state.total:5}  {name}: validation PSNR {values['val_psnr']:.2f} dB, SSIM {values['val_ssim']:.3f}"
                )
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
        state.log_lines = run.lines
        state.save(run.state_file)
        facts = {
            "method": self.config.exp.mode,
            "run": self.config.exp.exp_name,
            "seed": str(self.config.exp.seed),
            "commit": run.commit,
        }
        if self.unet.residual:
            facts["set_point"] = str(self.unet.residual.target)
        for weights, path, iteration in (
            (state.best["unet"], run.best_file, state.best_total["unet"]),
            (state.best_val, run.best_val_file, state.best_val_total),
        ):
            if weights:
                save_tensors(weights, path, {**facts, "iteration": str(iteration)})
        if self.guidance:
            encoder = {"encoder": self.guidance.encoder.name, "iteration": str(state.total)}
            save_guidance(self.guidance.pair, run.guidance_file, {**facts, **encoder})

    def _tell(self, bar: tqdm, line: str) -> None:
        if self.accelerator.is_main_process:
            bar.write(line)

    def _last_of_unet(self) -> int:
        return max(number for number, phase in enumerate(self.phases) if phase.trains == "unet")

    def _phase_name(self) -> str:
        return self.phases[min(self.state.phase, len(self.phases) - 1)].name

    def _iterations_left(self) -> int:
        later = sum(phase.iterations for phase in self.phases[self.state.phase + 1 :])
        return self.state.planned - self.state.iteration + later


def load_encoders(config: TrainConfig, accelerator: Accelerator) -> tuple[ClipEncoder, ClipEncoder]:
    """Guidance and identity encoder; one object where the config names the same for both."""
    clip = config.clip
    loaded: dict[tuple, ClipEncoder] = {}

    def load(encoder: Encoder) -> ClipEncoder:
        key = (encoder.model, encoder.pretrained)
        if key not in loaded:
            loaded[key] = load_encoder(encoder, clip, accelerator.device)
        return loaded[key]

    with accelerator.main_process_first():  # one process downloads
        guidance, identity = load(clip.guidance), load(clip.identity)
    side = identity.image_size
    identity.feature_maps(
        torch.zeros(1, 3, side, side, device=accelerator.device)
    )  # refuses an encoder without five maps
    return guidance, identity


def _unet_inputs(config: TrainConfig, backlit: list[Path], welllit: list[Path]) -> ResizedPhotos | MixedInputs:
    data, cache = config.data, config.exp.cache_dir
    augmentation = training_augmentation() if data.augment else None
    photos = ResizedPhotos(backlit, data.image_size, cache, augmentation)
    simulated = data.simulated_backlight
    if not simulated.share:
        return photos
    ranges = BacklightRanges(**{name: tuple(getattr(simulated, name)) for name in BacklightRanges.__dataclass_fields__})
    darken = RandomBacklight(ranges, simulated.untouched)
    others = ResizedPhotos(
        welllit, data.image_size, cache, v2.Compose([darken, augmentation]) if augmentation else darken
    )
    return MixedInputs(photos, others, simulated.share)


def _validation_pairs(config: TrainConfig) -> tuple[list[Pair], list[str]]:
    data = config.data
    if data.val_backlit_path is None and data.val_gt_path is None:
        return [], []
    if data.val_backlit_path is None or data.val_gt_path is None:
        raise UserError("data.val_backlit_path, data.val_gt_path: expected both or neither, found one")
    list_file = None if data.val_list is None else find_file(data.val_list, "data.val_list")
    return validation_pairs(data.val_backlit_path, data.val_gt_path, list_file)


def _make_folder(path: str, key: str) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: expected a folder that can be made, found {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"{key}: expected a folder that can be written, found {path}")


class _StopRequest:
    """Ctrl-C between two iterations: inside one, it would leave half an update. A second Ctrl-C stops at once."""

    def __init__(self, main: bool) -> None:
        self.asked, self.between_iterations, self.main = False, False, main
        self.main_thread = threading.current_thread() is threading.main_thread()
        self.previous = signal.signal(signal.SIGINT, self._ask) if self.main_thread else None

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self.main:
            with contextlib.suppress(OSError):  # not print: the signal may have come in the middle of one
                os.write(2, b"\nstopping after this iteration; Ctrl-C again: at once\n")

    def raise_if_asked(self) -> None:
        if self.asked:
            self.between_iterations = True
            raise KeyboardInterrupt

    def close(self) -> None:
        if self.main_thread:
            signal.signal(signal.SIGINT, self.previous)
