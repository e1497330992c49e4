"""The training loop of all three methods: it walks through a schedule of phases (`training.phases`).

Read top to bottom: `train` prepares, `Trainer.run` walks through the phases, `Trainer._step` is one iteration.
What a training consists of is put together in `training.build`; what a step computes is in `training.unet_task` and
`training.guidance_task`; when it may not go on as it is, in `training.guards`; what it writes, in `training.recorder`.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from common.console import say
from common.files import make_folder
from common.progress import Progress
from configs.schema import TrainConfig
from data.caches import limit_caches
from training.build import Parts, Task, build, plan, tell_weights
from training.directions import save_direction
from training.guards import Decision, TrainingDiverged, after_iteration, on_dead_map, rate_key
from training.phases import Phase
from training.recorder import Recorder, loss_terms
from training.resume import check_resume, lengthen, photo_record
from training.runtime import keep_memory, make_accelerator
from training.state import TrainState
from training.stop import StopRequest
from training.tracking import RunFolder


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    dry_run: bool = False,
    left_out: list[str] | None = None,
    on_iteration: Callable[["Trainer"], None] | None = None,
    on_end: Callable[[Path], None] | None = None,
) -> Path | None:
    """Train a UNet by the method of `exp.mode`. Returns the run folder, or None for a dry run, which writes nothing.

    left_out: a list to which the reasons of photos that cannot be read are added, on the main process.
    on_iteration: called before each step. on_end: called with the run folder, on the main process, however the
    training ended once it had begun.
    Raises UserError for paths, photos, encoders or a state that cannot be used, TrainingDiverged where the training
    breaks down.
    """
    keep_memory()
    accelerator = make_accelerator(config.train.device, config.train.precision, config.train.process_timeout)
    planned = plan(config, accelerator)
    if dry_run:
        tell_weights(config, planned)
        return None
    make_folder(config.exp.save_dir, "exp.save_dir")
    make_folder(config.exp.cache_dir, "exp.cache_dir")
    folder, main = RunFolder(config), accelerator.is_main_process
    with (
        StopRequest(main=main, together=accelerator.num_processes > 1) as stop,
        folder.lock() if main else nullcontext(),
    ):
        photos = photo_record(config, planned)
        earlier = check_resume(folder, config, photos, planned) if resume else None
        parts = build(config, accelerator, planned, folder)
        if config.exp.cache_gb is not None and main:
            limit_caches(config.exp.cache_dir, config.exp.cache_gb)
        if left_out is not None and main:
            left_out += parts.skipped
        trainer = Trainer(parts, stop, on_iteration)
        state = trainer.state
        if resume:  # every process: all have to agree on what is left
            if note := state.load(folder.state_file):
                say(f"note       {note}")
            lengthen(state, earlier, parts.phases)
            if state.phase == len(parts.phases) and folder.summary_file.is_file():
                say(f"run        {folder.path}: finished already, at iteration {state.total}")
                return folder.path
        if main and resume:
            folder.reopen(config, state.total, state.log_lines)
        elif main:
            if note := folder.create(config, photos):
                say(f"note       {note}")
            if residual := parts.unet.residual:
                encoder = parts.unet.guidance_encoder
                save_direction(residual, folder.direction_file, config.guidance, encoder, parts.photos_used)
        accelerator.wait_for_everyone()
        say(f"run        {folder.path}{f', resumed at iteration {state.total}' if resume else ''}")
        try:
            with trainer.recorder.ending():
                trainer.run()
        finally:
            if on_end is not None and main:
                on_end(folder.path)
    return folder.path


class Trainer:
    """Walks through the phases. All that has to outlive a stop is in `state`."""

    def __init__(
        self,
        parts: Parts,
        stop: StopRequest | None = None,
        on_iteration: Callable[["Trainer"], None] | None = None,
    ) -> None:
        self.config, self.accelerator, self.phases = parts.config, parts.accelerator, parts.phases
        self.unet, self.guidance, self.tasks = parts.unet, parts.guidance, parts.tasks
        modules = {name: self.accelerator.unwrap_model(task.module) for name, task in self.tasks.items()}
        self.state = TrainState(modules, {name: task.optimizer for name, task in self.tasks.items()})
        self.state.seconds = parts.seconds
        for name in self.tasks:  # each has a best snapshot, its first weights
            self.state.start_phase(0, name, 0)
        self.start_phase(0)
        self.recorder = Recorder(parts, self.state)
        self.candidate: dict[str, Tensor] = {}  # weights at the last look for the best snapshot
        self.stop, self.on_iteration = stop or StopRequest(main=True), on_iteration

    def run(self) -> None:
        """All phases, from wherever the state stands. Where a stop is asked for, the state is saved first."""
        state, recorder = self.state, self.recorder
        try:
            if state.log_lines == 0:
                recorder.check(self.phases[state.phase])
                recorder.save()
            recorder.start_clock()
            while state.phase < len(self.phases):
                self._run_phase(self.phases[state.phase])
            recorder.finish()
        except KeyboardInterrupt:
            file = recorder.parts.folder.state_file
            if self.stop.whole:
                recorder.save()
                recorder.tell(f"state saved to {file}; go on with --resume")
            else:  # the state may count a step that was not made
                recorder.tell(f"stopped inside an iteration; --resume goes on from the state saved before: {file}")
            raise

    def _run_phase(self, phase: Phase) -> None:
        """What is left of a phase, and its end."""
        state, recorder, task = self.state, self.recorder, self.tasks[phase.trains]
        self._check_if_due(phase)
        clock = time.perf_counter()
        if self.guidance:
            self.guidance.set_enhancers(state.enhancers)
        batches = iter(task.batches(phase, state.total))
        with Progress(phase.name, state.planned, "it", done=state.iteration) as progress:
            while state.iteration < state.planned:
                batch = next(batches)
                if state.iteration == 0:
                    progress.restart_clock()  # the first batch may have embedded all photos: not an iteration's time
                with self.stop.held():
                    if self.on_iteration:
                        self.on_iteration(self)
                    values = self._step(phase, task, batch)
                    state.seconds += time.perf_counter() - clock
                    self._after_step(phase, task, values, progress)
                self._check_if_due(phase)
                if state.total % self.config.train.save_iter == 0:
                    recorder.save()
                clock = time.perf_counter()
        recorder.tell(progress.ended())
        with self.stop.held():
            self._finish_phase(phase)

    def _step(self, phase: Phase, task: Task, batch: object) -> dict[str, float]:
        """One iteration: losses, gradient, one Adam step. Returns the values to log; none for a step not made."""
        state = self.state
        terms, measures = task.losses(phase, batch)
        loss = sum(terms.values())
        task.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        limit = float("inf") if task.grad_clip is None else task.grad_clip
        norm = torch.as_tensor(self.accelerator.clip_grad_norm_(task.module.parameters(), limit))
        asked = torch.zeros_like(norm) + (self.stop.asked is not None)
        values = self._read({"loss": loss, **terms, **measures, "gradient_norm": norm, "asked": asked})
        self.stop.agree(values.pop("asked") > 0)
        if not math.isfinite(values["loss"] + values["gradient_norm"]):
            raise TrainingDiverged(
                f"{phase.name}, iteration {state.total}: loss {values['loss']:.3g}, gradient norm "
                f"{values['gradient_norm']:.3g}; nothing was updated and earlier checkpoints are intact; "
                f"lower {rate_key(phase)}" + (" or set unet_model.grad_clip" if task is self.unet else "")
            )
        state.iteration += 1
        state.total += 1
        if task is self.unet and values["mean_illumination"] == 0:
            return {}
        for group in task.optimizer.param_groups:
            group["lr"] = self._learning_rate(phase)
        if self._looks_for_best(task):
            self.candidate = state.snapshot()  # the weights that this step measures, before they change
        task.optimizer.step()
        if task is self.unet and self.config.unet_model.ema is not None:
            state.update_average(self.config.unet_model.ema)
        state.record(values["input_psnr"] if phase.best_by == "input_psnr" else -values["loss"], values["loss"])
        if "way" in values:
            state.record_way(values["way"])
        return values

    def _read(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Scalars of a step, means over all processes, in one transfer:
        the only place where a step waits for the device.

        It has to: whether the weights may change (not finite, a dead map) is decided here, for all processes alike.
        """
        packed = torch.stack([value.detach().float() for value in values.values()])
        read = dict(zip(values, self.accelerator.reduce(packed, "mean").tolist(), strict=True))
        if "input_error" in read:  # the PSNR of the whole batch, however many processes share it
            read["input_psnr"] = -10 * math.log10(max(read.pop("input_error"), 1e-10))
        return read

    def _after_step(self, phase: Phase, task: Task, values: dict[str, float], progress: Progress) -> None:
        state = self.state
        if not values:
            first = not any(p.trains == "unet" for p in self.phases[: state.phase])
            self._carry_out(on_dead_map(phase, state, first=first))
        elif self._looks_for_best(task):
            self.recorder.log(phase, task, values, self._learning_rate(phase))
            progress.note = loss_terms(phase, values)
            if state.mean_score() > state.best_score:
                state.best_score = state.mean_score()
                state.keep_best(self.candidate)
        self._carry_out(after_iteration(phase, state))
        progress.at(state.iteration, state.planned)
        ends = state.phase == self._last_of_unet() and state.iteration == state.planned
        state.check_due = task is self.unet and (ends or state.total % self.config.train.val_iter == 0)

    def _check_if_due(self, phase: Phase) -> None:
        """Validation and previews of this iteration; one that a stop prevented is made up for when the run goes on."""
        if self.state.check_due:
            self.recorder.check(phase)
            self.state.check_due = False

    def _carry_out(self, decision: Decision) -> None:
        """What a guard decided."""
        state = self.state
        if decision.action == "go on":
            return
        self.recorder.tell(decision.why)
        state.planned += decision.more
        if decision.action == "extend":
            state.extensions += 1
            return
        if decision.action == "settle":
            state.settled_at = state.iteration
            return
        self.unet.optimizer.state.clear()
        if decision.action == "restart":
            state.restarts += 1
            state.modules["unet"].load_state_dict(self.unet.fresh(state.restarts).state_dict())
            state.iteration, state.average = 0, {}
            state.forget_scores()
        else:
            state.collapses += 1
            state.go_back_to_best()
            state.scores, state.losses, state.ways = [], [], []

    def _learning_rate(self, phase: Phase) -> float:
        """At the progress, 0 to 1, through what the schedule spans: all iterations that enhance, the last ones after
        `settle_at`, or those of the first map. A reconstruction has no schedule.
        """
        state, progress = self.state, 0.0
        if phase.settle_at is not None:
            if state.settled_at is not None:
                progress = (state.iteration - state.settled_at) / max(state.planned - state.settled_at, 1)
        elif phase.enhances:
            lengths = [p.iterations if p.enhances else 0 for p in self.phases]
            lengths[state.phase] = state.planned
            progress = (sum(lengths[: state.phase]) + state.iteration) / sum(lengths)
        elif "map" in phase.terms:
            progress = state.iteration / state.planned
        return self.tasks[phase.trains].learning_rate(phase, progress, state.collapses)

    def _looks_for_best(self, task: Task) -> bool:
        return self.state.iteration % task.display_iter == 0 or self.state.iteration == self.state.planned

    def start_phase(self, number: int) -> None:
        """Counters and the search for the best snapshot begin anew."""
        self.state.start_phase(number, self.phases[number].trains, self.phases[number].iterations)

    def _finish_phase(self, phase: Phase) -> None:
        """The module in training ends with its best snapshot; the guidance is reported; the next phase begins."""
        state = self.state
        if phase.trains == "guidance" or state.phase + 1 < len(self.phases):
            state.go_back_to_best()  # but for a run's last UNet, which may be asked to go on
        if phase.trains == "guidance":
            self.recorder.report(phase)
        elif phase.round:
            state.enhancers = [*state.enhancers, state.best["unet"]][-2:]
        state.phase += 1
        if state.phase < len(self.phases):
            self.start_phase(state.phase)
            if self.phases[state.phase].enhances and not any(p.enhances for p in self.phases[: state.phase]):
                state.best_val_psnr = float("-inf")  # from here on; what came before was a start, not a result

    def _last_of_unet(self) -> int:
        return max(number for number, phase in enumerate(self.phases) if phase.trains == "unet")
