"""The training loop of all three methods: it walks through a schedule of phases (`training.phases`).

Read top to bottom: `train` prepares, `Trainer.run` walks through the phases, `Trainer._step` is one iteration.
What a training consists of is put together in `training.build`. The loop knows no method: what a step computes is in
the tasks (`training.task`: `unet_task`, `guidance_task`); when it may not go on as it is, in `training.guards`; what it
writes, in `training.recorder`.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.console import note, say
from common.files import make_folder
from common.progress import Progress
from configs.schema import TrainConfig
from data.caches import limit_caches
from training.build import Parts, build, plan, tell_weights
from training.directions import save_direction
from training.guards import Decision, after_iteration, check_finite, on_dead_map
from training.phases import Phase
from training.recorder import Recorder, loss_terms
from training.resume import PhotoRecord, check_photos, check_resume, length_key, lengthen, photo_record
from training.runtime import keep_memory, make_accelerator
from training.state import TrainState
from training.stop import StopRequest
from training.task import Task
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
        say("dry run    nothing was written, and no photo opened: python -m tools check-dataset looks at them")
        return None
    make_folder(config.exp.save_dir, "exp.save_dir")
    make_folder(config.exp.cache_dir, "exp.cache_dir")
    folder, main = RunFolder(config), accelerator.is_main_process
    with (
        StopRequest(main=main, together=accelerator.num_processes > 1) as stop,
        folder.lock() if main else nullcontext(),
    ):
        photos = photo_record(config, planned)
        earlier = check_resume(folder, config) if resume else None
        if resume:
            check_photos(folder.photos_file, photos)
        parts = build(config, accelerator, planned, folder)
        if config.exp.cache_gb is not None and main:
            limit_caches(config.exp.cache_dir, config.exp.cache_gb)
        if left_out is not None and main:
            left_out += parts.skipped
        trainer = Trainer(parts, stop, on_iteration)
        if earlier is None:
            _begin(parts, photos)
        elif not _go_on(trainer.state, parts, earlier):
            longer = f"a larger {length_key(config)} makes it go on"
            say(f"run        {folder.path}: finished already, at iteration {trainer.state.total}; {longer}")
            return folder.path
        accelerator.wait_for_everyone()
        say(f"run        {folder.path}{f', resumed at iteration {trainer.state.total}' if resume else ''}")
        try:
            with trainer.recorder.ending():
                trainer.run()
        finally:
            if on_end is not None and main:
                on_end(folder.path)
    return folder.path


def _begin(parts: Parts, photos: PhotoRecord) -> None:
    """Make the run folder, and write the direction that guides into it; on the main process."""
    if not parts.accelerator.is_main_process:
        return
    if moved := parts.folder.create(parts.config, photos):
        note(moved)
    if residual := parts.unet.residual:
        encoder, used = parts.unet.guidance_encoder, parts.photos_used
        save_direction(residual, parts.folder.direction_file, parts.config.guidance, encoder, used)


def _go_on(state: TrainState, parts: Parts, earlier: list[Phase]) -> bool:
    """Take over the state that the run, of the schedule `earlier`, has saved; on every process, for all have to agree
    on what is left. Returns False where that is nothing, and the run folder is complete.
    """
    folder = parts.folder
    if damaged := state.load(folder.state_file):
        note(damaged)
    if lengthen(state, earlier, parts.phases) and parts.config.unet_model.lr_schedule == "cosine":
        note("the learning rate follows the new length, so it rises again; a run of this length differs")
    if state.phase == len(parts.phases) and folder.summary_file.is_file():
        return False
    if parts.accelerator.is_main_process:
        folder.reopen(parts.config, state.total, state.log_lines)
    return True


@dataclass(frozen=True)
class Step:
    """What one iteration gave.

    values: of loss, terms, measures, for the log. made: False where the module was dead, and was not updated.
    measured: the module's weights before the update, which the values are of, where it is time to look for the best
    snapshot.
    """

    values: dict[str, float]
    made: bool = True
    measured: dict[str, Tensor] | None = None


class Trainer:
    """Walks through the phases. All that has to outlive a stop is in `state`."""

    def __init__(
        self,
        parts: Parts,
        stop: StopRequest | None = None,
        on_iteration: Callable[["Trainer"], None] | None = None,
    ) -> None:
        self.config, self.accelerator, self.phases = parts.config, parts.accelerator, parts.phases
        self.unet, self.tasks = parts.unet, parts.tasks
        modules = {name: self.accelerator.unwrap_model(task.module) for name, task in self.tasks.items()}
        self.state = TrainState(modules, {name: task.optimizer for name, task in self.tasks.items()})
        self.state.seconds = parts.seconds
        for name in self.tasks:  # each has a best snapshot, its first weights
            self.state.start_phase(0, name, 0)
        self.start_phase(0)
        self.recorder = Recorder(parts, self.state)
        self.stop, self.on_iteration = stop or StopRequest(main=True), on_iteration

    def run(self) -> None:
        """All phases, from wherever the state stands. Where a stop is asked for, the state is saved first."""
        state, recorder = self.state, self.recorder
        try:
            if state.log_lines == 0:
                recorder.check(self.phases[state.phase])
                self._save()
            recorder.start_clock()
            while state.phase < len(self.phases):
                self._run_phase(self.phases[state.phase])
            self._save()
            recorder.finish()
        except KeyboardInterrupt:
            file = recorder.parts.folder.state_file
            if self.stop.whole:
                with self.stop.ignored():
                    recorder.save()
                recorder.tell(f"state saved to {file}; go on with --resume")
            else:  # the state may count a step that was not made
                recorder.tell(f"stopped inside an iteration; --resume goes on from the state saved before: {file}")
            raise

    def _save(self) -> None:
        with self.stop.held():  # torch.save turns an interrupt into an exception of its own
            self.recorder.save()

    def start_phase(self, number: int) -> None:
        """Counters and the search for the best snapshot start over."""
        self.state.start_phase(number, self.phases[number].trains, self.phases[number].iterations)

    def _run_phase(self, phase: Phase) -> None:
        """What is left of a phase, and its end."""
        state, recorder, task = self.state, self.recorder, self.tasks[phase.trains]
        self._check_if_due(phase)
        clock = time.perf_counter()
        task.begin(phase, state)
        batches, begun = iter(task.batches(phase, state.total)), state.iteration
        with Progress(phase.name, state.planned, "it", done=state.iteration) as progress:
            while state.iteration < state.planned:
                batch = next(batches)
                if state.iteration == 0:
                    progress.restart_clock()  # the first batch may have embedded all photos: not an iteration's time
                with self.stop.held():
                    if self.on_iteration:
                        self.on_iteration(self)
                    step = self._step(phase, task, batch)
                    state.seconds += time.perf_counter() - clock
                    self._after_step(phase, task, step, progress)
                self._check_if_due(phase)
                if state.total % self.config.train.save_iter == 0:
                    self._save()
                clock = time.perf_counter()
        if state.iteration > begun:
            recorder.tell(progress.ended())
        with self.stop.held():
            self._finish_phase(phase, task)

    # ------------------------------------------------------------------------------ one iteration

    def _step(self, phase: Phase, task: Task, batch: Any) -> Step:
        """The loss of a batch and its gradient; then, unless the module is dead, one step of Adam.

        Raises TrainingDiverged for a loss or gradient that is not finite, before anything is updated.
        """
        state = self.state
        values = self._gradient(phase, task, batch)
        check_finite(phase, state, values)
        state.iteration += 1
        state.total += 1
        if task.is_dead(values):
            return Step(values, made=False)
        measured = state.snapshot() if self._looks_for_best(task) else None
        self._update(task)
        state.record(phase.score(values), values["loss"], values.get("way"))
        return Step(values, measured=measured)

    def _gradient(self, phase: Phase, task: Task, batch: Any) -> dict[str, float]:
        """The losses of a batch, and the gradient of their sum, clipped, which stays in the module.

        Returns the values to log.
        """
        terms, measures = task.losses(phase, batch)
        loss = sum(terms.values())
        task.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        limit = float("inf") if task.grad_clip is None else task.grad_clip
        norm = torch.as_tensor(self.accelerator.clip_grad_norm_(task.module.parameters(), limit))
        return task.logged(self._means({"loss": loss, **terms, **measures, "gradient_norm": norm}))

    def _means(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Means over all processes, in one transfer: the only place where a step waits for the device.

        It has to: whether the weights may change is decided by these, for all processes alike. So is, in the same
        transfer, whether all stop after this iteration: one of them may have been asked to.
        """
        asked = torch.full_like(values["loss"], self.stop.asked is not None)
        packed = torch.stack([value.detach().float() for value in (*values.values(), asked)])
        *means, asked_share = self.accelerator.reduce(packed, "mean").tolist()
        self.stop.agree(asked_share > 0)
        return dict(zip(values, means, strict=True))

    def _update(self, task: Task) -> None:
        """One step of the optimiser along the gradient, and of the weights' average where there is one."""
        rate = task.learning_rate(self.phases, self.state)
        for group in task.optimizer.param_groups:
            group["lr"] = rate
        task.optimizer.step()
        if task.ema is not None:
            self.state.update_average(task.ema)

    # ------------------------------------------------------------------------------ between iterations

    def _after_step(self, phase: Phase, task: Task, step: Step, progress: Progress) -> None:
        """The log and the best snapshot, and what the guards make of it."""
        state = self.state
        if not step.made:
            first = not any(earlier.trains == task.name for earlier in self.phases[: state.phase])
            self._carry_out(on_dead_map(phase, state, first=first))
        elif step.measured is not None:
            self.recorder.log(phase, task, step.values)
            progress.note = loss_terms(phase, step.values)
            if state.mean_score() > state.best_score:
                state.best_score = state.mean_score()
                state.keep_best(step.measured, state.total - 1)  # before this step
        self._carry_out(after_iteration(phase, state))
        progress.at(state.iteration, state.planned)
        often = state.total % self.config.train.val_iter == 0
        state.check_due = phase.trains == "unet" and (often or self.recorder.at_the_end())

    def _looks_for_best(self, task: Task) -> bool:
        return self.state.iteration % task.display_iter == 0 or self.state.iteration == self.state.planned

    def _check_if_due(self, phase: Phase) -> None:
        """Validation and previews of this iteration; one that a stop prevented is made up for when the run goes on."""
        if self.state.check_due:
            self.recorder.check(phase)
            self.state.check_due = False

    def _carry_out(self, decision: Decision) -> None:
        """What a guard decided. Only a UNet starts over or goes back."""
        state = self.state
        if decision.why:
            self.recorder.tell(decision.why)
        state.planned += decision.more
        match decision.action:
            case "extend":
                state.extensions += 1
            case "settle":
                state.settled_at = state.iteration
            case "restart":
                state.restarts += 1
                state.start_over(self.unet.fresh(state.restarts).state_dict())
                self.unet.optimizer.state.clear()
            case "go back":
                state.collapses += 1
                state.go_back_to_best()
                state.forget_means()
                self.unet.optimizer.state.clear()

    def _finish_phase(self, phase: Phase, task: Task) -> None:
        """The module in training ends with its best snapshot, and the next phase begins.

        Not so a UNet in the run's last phase: a longer run may go on from its weights (`training.resume.lengthen`).
        """
        state, last = self.state, len(self.phases) - 1
        if phase.trains == "guidance" or state.phase < last:
            state.go_back_to_best()
        task.end(phase, state)
        self.recorder.report(phase)
        state.phase += 1
        if state.phase > last:
            return
        self.start_phase(state.phase)
        if self.phases[state.phase].enhances and not any(earlier.enhances for earlier in self.phases[: state.phase]):
            state.best_val_psnr = float("-inf")  # from here on; what came before was a start, not a result
