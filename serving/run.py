"""An enhancement as inference.py runs it: what goes where, then the work, alone or shared by several processes.

Prints nothing. PyTorch is imported when the work begins, so that mistakes are told at once.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from common.files import make_folder
from data.outputs import record_result
from models.shipped import find_weights
from serving.jobs import Job, kept_others, plan_outputs, replaced
from serving.made_of import file_stamp, made_of
from serving.outcome import Outcome, together
from serving.pipeline import Options, enhance_files, enhancer_of

if TYPE_CHECKING:
    from accelerate import PartialState

    from configs.schema import InferenceConfig
    from serving.backends import Choice


@dataclass(frozen=True)
class Plan:
    """What an enhancement will read and write. Nothing is written yet."""

    config: "InferenceConfig"
    weights: Path
    inputs: list[str]
    """Folders and photos, as the config names them."""
    jobs: list[Job]
    """One or more, each photo once."""
    options: Options
    replaces: set[Path]
    """Photos of which an earlier run's result, or what is written beside it, will be replaced."""
    made_of: dict[Path, str]
    """Of each job's `relative`, what stands for photo, weights and settings."""
    others: int
    """Results of earlier runs that `save.skip_existing` keeps although they were made of something else."""

    @property
    def output(self) -> Path:
        """The folder of the results."""
        return self.jobs[0].output

    def folders(self) -> list[Path]:
        """All folders that are written into, that of the results first."""
        return [self.output, *map(self.jobs[0].folder_beside, self.options.extras)]


@dataclass(frozen=True)
class Device:
    """What runs the network, in how many processes."""

    choice: "Choice"
    processes: int

    def __str__(self) -> str:
        return f"{self.choice}{f', {self.processes} processes' if self.processes > 1 else ''}"


@dataclass(frozen=True)
class Run:
    """What became of a plan."""

    outcome: Outcome
    """Of the photos of all processes, in the order of the jobs."""
    device: Device
    main: bool
    """Whether this process is the one of several that tells the user."""
    seconds: float
    """From the first photo to the last."""


def make_plan(config: "InferenceConfig") -> Plan:
    """Look for photos and weights. Raises UserError where one is missing, and as `serving.jobs.plan_outputs`."""
    save, inputs = config.save, config.data.input
    if inputs is None:
        raise UserError("data.input: expected a folder or photos, found nothing")
    inputs = [inputs] if isinstance(inputs, str) else inputs
    weights = find_weights(config.model.checkpoint, "model.checkpoint").resolve()
    if save.skip_existing and save.overwrite:
        raise UserError("save.skip_existing, save.overwrite: expected at most one of them, found both")
    options = Options.of(config)
    jobs = plan_outputs(
        inputs,
        config.data.output,
        save.format,
        keep=save.skip_existing,
        overwrite=save.overwrite,
        extras=options.extras,
    )
    replaces = set() if save.skip_existing else replaced(jobs, options.extras)
    stands_for = made_of(config, weights)
    made = {job.relative: stands_for(file_stamp(job.source)) for job in jobs}
    others = kept_others(jobs, options.extras, made) if save.skip_existing else 0
    return Plan(config, weights, inputs, jobs, options, replaces, made, others)


def enhance_folder(plan: Plan, begin: Callable[[Device], None] = lambda device: None) -> Run:
    """Enhance all photos of a plan; with torchrun or `accelerate launch`, each process takes its share of them.

    begin: called once, in the main process, when the network is there and no photo is read yet. Raises UserError where
    the output folder cannot be made, for weights and devices that cannot be used, and where the disk is full.
    """
    created = not plan.output.exists()
    make_folder(plan.output, "data.output")
    try:
        return _enhance(plan, begin)
    finally:
        if created:
            with contextlib.suppress(OSError):
                plan.output.rmdir()  # which only takes an empty folder


def _enhance(plan: Plan, begin: Callable[[Device], None]) -> Run:
    """This process's share, and what became of all."""
    processes = _processes(plan.config.model.device)
    rank, world = (processes.process_index, processes.num_processes) if processes else (0, 1)
    enhancer = enhancer_of(plan.config, plan.weights)
    device = Device(enhancer.choice, world)
    if rank == 0:
        begin(device)
    start = time.perf_counter()
    outcome = enhance_files(
        plan.jobs[rank::world],
        enhancer,
        plan.options,
        scenes=plan.jobs,
        record=lambda file, folder, name: record_result(
            file, folder, name, plan.made_of[name], str(rank) if rank else ""
        ),
    )
    if processes:
        outcome = _gathered(outcome, plan.jobs)
        processes.destroy_process_group()
    return Run(outcome, device, rank == 0, time.perf_counter() - start)


def _processes(device: str) -> "PartialState | None":
    """This process among those that torchrun or `accelerate launch` started, or None where it is the only one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    import torch
    from accelerate import PartialState

    # told so, for processes without a GPU to find each other: otherwise each would enhance all photos
    return PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())


def _gathered(outcome: Outcome, jobs: list[Job]) -> Outcome:
    """What became of all processes' photos, in the order of the jobs; every process gets it."""
    from accelerate.utils import gather_object

    return together(gather_object([outcome]), jobs)
