"""What a run writes: log lines, validation, previews, checkpoints, summary and report. Main process only."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from common.console import note, say
from common.errors import UserError, reason_of
from common.progress import duration
from data.images.grid import photo_grid
from models.checkpoints import save_tensors
from models.guidance import save_guidance
from training.build import Parts
from training.guards import TrainingDiverged
from training.phases import Phase, last_phase
from training.plots import plot_curves
from training.report import write_report
from training.state import TrainState
from training.task import Task
from training.tracking import read_metrics
from training.validation import enhance_photos, to_uint8


class Recorder:
    """Writes into the run folder what the state of a training is worth telling."""

    def __init__(self, parts: Parts, state: TrainState) -> None:
        self.parts, self.state, self.main = parts, state, parts.accelerator.is_main_process
        self.logged_seconds, self.logged_total = 0.0, 0  # of the state, at the last log line
        self.preview: Tensor | None = None
        if self.main and (count := parts.config.train.preview_photos):
            photos = parts.validation.backlit if parts.validation else parts.unet.photos
            self.preview = torch.stack([photos[i] for i in range(min(count, len(photos)))])

    def start_clock(self) -> None:
        """Speed is measured from here on."""
        self.logged_seconds, self.logged_total = self.state.seconds, self.state.total

    def tell(self, line: str) -> None:
        """A line on the console."""
        if self.main:
            say(line)

    def log(self, phase: Phase, task: Task, values: dict[str, float]) -> None:
        """A line of the log about the last iteration, with the speed since the line before."""
        state = self.state
        seconds, steps = max(state.seconds - self.logged_seconds, 1e-9), state.total - self.logged_total
        speed = {
            "photos_per_second": steps * task.batch_size / seconds,
            "seconds_per_step": seconds / steps,
            "seconds": state.seconds,
        }
        if self.main:
            direction = self.parts.unet.residual if "projection" in values else None
            extra = {"set_point": direction.target, "backlit_projection": direction.start} if direction else {}
            rate = task.optimizer.param_groups[0]["lr"]
            line = {"phase": phase.name, **extra, **values, "learning_rate": rate, **speed}
            self.parts.folder.log(state.total, line)
        self.start_clock()

    def check(self, phase: Phase) -> None:
        """Validation and previews of the present weights."""
        if not self.main:
            return
        weights = self.state.snapshot("unet")
        if self.parts.validation:
            self._validate(phase, weights)
        if self.preview is not None:
            self._show(weights)

    def _validate(self, phase: Phase, weights: dict[str, Tensor]) -> None:
        """A line of the log with PSNR and SSIM; on the console where it is the best so far, or the last."""
        state, clock = self.state, time.perf_counter()
        values = self.parts.validation.run(weights, self.parts.accelerator.device)
        values["validation_seconds"] = time.perf_counter() - clock
        self.parts.folder.log(state.total, {"phase": phase.name, **values, "seconds": state.seconds}, tag="validation")
        best = state.keep_best_val(values["val_psnr"], weights)
        if (best and phase.enhances) or self.at_the_end():  # other checks are no news; the log has them
            what = "at the end" if not best else "new best  " if state.total else "at the start"
            scores = f"validation PSNR {values['val_psnr']:.2f} dB, SSIM {values['val_ssim']:.3f}"
            self.tell(f"{what} iteration {state.total}, {phase.name}: {scores}")

    def _show(self, weights: dict[str, Tensor]) -> None:
        """A picture of some photos, before, after, and as their ground truths are where these are known."""
        total, validation, folder = self.state.total, self.parts.validation, self.parts.folder
        enhanced = torch.cat(list(enhance_photos(weights, self.preview, self.parts.accelerator.device)))
        columns = [to_uint8(self.preview), to_uint8(enhanced)]
        titles = ["backlit", f"enhanced, iteration {total}"]
        if validation:
            columns.append([validation.truth.pixels[i] for i in range(len(self.preview))])
            titles.append("ground truth")
        file = folder.previews / f"iteration_{total:06}.png"
        folder.show(total, photo_grid(list(zip(*columns, strict=True)), titles, file))

    def at_the_end(self) -> bool:
        """Whether this was the last iteration that trains the UNet."""
        state = self.state
        return state.phase == last_phase(self.parts.phases, "unet") and state.iteration == state.planned

    def report(self, phase: Phase) -> None:
        """At the end of a phase: what the guidance can do by now, where it was trained."""
        if not self.main or phase.trains != "guidance":
            return
        report, total = self.parts.guidance.report(), self.state.total
        self.parts.folder.log(total, {"phase": phase.name, **report}, tag="guidance")
        names = [name for name in ("backlit", "enhanced", "welllit") if f"s_{name}" in report]
        shown = {"welllit": "well-lit"}  # the keys are older than the spelling
        similarity = ", ".join(f"{shown.get(name, name)} {report[f's_{name}']:.3f}" for name in names)
        accuracy = 100 * report["guidance_accuracy"]
        self.tell(f"guidance   accuracy {accuracy:.1f} %, mean S: {similarity}")
        if self.state.phase == last_phase(self.parts.phases, "guidance"):
            for name in ("backlit", "welllit"):
                if f"tokens_{name}" in report:
                    self.tell(f"           tokens nearest to {shown.get(name, name)}: {report[f'tokens_{name}']}")

    def save(self) -> None:
        """The state, from which --resume goes on, and the weights so far."""
        if not self.main:
            return
        state, folder, config, guidance = self.state, self.parts.folder, self.parts.config, self.parts.guidance
        state.log_lines = folder.lines
        state.save(folder.state_file)
        exp = config.exp
        facts = {"method": config.method, "run": exp.exp_name, "seed": str(exp.seed), "commit": folder.commit}
        if self.parts.unet.residual:
            facts["set_point"] = str(self.parts.unet.residual.target)
        for weights, path, iteration in (
            (state.best["unet"], folder.best_file, state.best_total["unet"]),
            (state.best_val, folder.best_val_file, state.best_val_total),
        ):
            if weights:
                save_tensors(weights, path, {**facts, "iteration": str(iteration)})
        if guidance:
            about = {**facts, "encoder": guidance.encoder.name, "iteration": str(state.total)}
            save_guidance(guidance.pair, folder.guidance_file, about)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """However the block ends: how it did is written into the run folder, and the report."""
        how, why = "finished", ""
        try:
            yield
        except KeyboardInterrupt:
            how, why = "stopped", "a stop was asked for"
            raise
        except BaseException as error:
            how, why = "diverged" if isinstance(error, TrainingDiverged) else "failed", reason_of(error, 1000)
            raise
        finally:
            if self.main:
                self._close({"exit": how, "reason": why, "left_out": list(self.parts.skipped)})

    def _close(self, outcome: dict) -> None:
        state, folder = self.state, self.parts.folder
        counted = {name: getattr(state, name) for name in ("restarts", "collapses")}
        try:
            folder.close({**outcome, "iterations": state.total, "seconds": round(state.seconds, 2), **counted})
            write_report(folder.path)
        except (UserError, OSError) as error:  # what was trained is saved, and counts for more
            note(f"no report: {error}")
        else:
            self.tell(f"report     {folder.report_file}")

    def finish(self) -> None:
        """Curves and the summary, by which a run, whose last state is saved, counts as finished."""
        if not self.main:
            return
        state, parts, folder = self.state, self.parts, self.parts.folder
        summary = {
            "method": parts.config.method,
            "iterations": state.total,
            "seconds": round(state.seconds, 2),
            "restarts": state.restarts,
            "collapses": state.collapses,
            "best_iteration": state.best_total["unet"],
        }
        if parts.validation:
            summary["best"] = parts.validation.run(state.best["unet"], parts.accelerator.device)
            summary["best_val_iteration"] = state.best_val_total
            summary["best_val"] = parts.validation.run(state.best_val, parts.accelerator.device)
            shown = {
                f"best by loss (iteration {state.best_total['unet']})": summary["best"],
                f"best by validation (iteration {state.best_val_total})": summary["best_val"],
            }
            if not state.best_val_total:
                self.tell("no iteration beats the start by validation")
            if summary["best_val"]["val_psnr"] <= (untouched := summary["best_val"]["val_psnr_input"]):
                self.tell(f"no iteration beats the untouched input, PSNR {untouched:.2f} dB")
            for name, values in shown.items():
                self.tell(f"{name}: PSNR {values['val_psnr']:.2f} dB, SSIM {values['val_ssim']:.3f}")
        plot_curves(read_metrics(folder.metrics_file), folder.path / "curves.png", parts.config.exp.exp_name)
        folder.finish(summary)
        if parts.guidance:
            parts.guidance.delete_enhanced_sets()
        took = f"{duration(state.seconds)} without validation"
        self.tell(f"finished   {state.total:,} iterations, {took}; all in {folder.path}")
        self.tell(f"weights    {folder.best_file}")
        if parts.validation:
            self.tell(f"           {folder.best_val_file}, the best by validation")


def loss_terms(phase: Phase, values: dict[str, float]) -> str:
    """The loss of an iteration and, where there are several, its terms by name."""
    terms = [f"{name} {values[name]:.3g}" for name in phase.terms if name in values]
    return f"loss {values['loss']:.3g}" + (f" ({', '.join(terms)})" if len(terms) > 1 else "")
