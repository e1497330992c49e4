"""What the loop knows of what it trains: the UNet (`training.unet_task`), the guidance (`training.guidance_task`)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from training.phases import Phase
from training.state import TrainState


class Task(ABC):
    """A module in training: its optimiser, its batches, and the losses of a step.

    What a method needs of the loop is a method here, and does nothing for the task that does not need it.
    """

    name: str  # as in `Phase.trains`
    module: nn.Module
    optimizer: Optimizer
    batch_size: int  # of all processes together
    display_iter: int  # iterations between log lines and looks for the best snapshot
    grad_clip: float | None = None  # the largest norm that a gradient may have; None: any
    ema: float | None = None  # decay of the weights' average, of which snapshots then are; None: there is none

    def begin(self, phase: Phase, state: TrainState) -> None:  # noqa: B027
        """Take from the state what earlier phases trained, and this one needs. Called before `batches`."""

    @abstractmethod
    def batches(self, phase: Phase, start: int) -> Iterator[Any]:
        """Batches without end, on the device, from iteration `start` of the run on: functions of (seed, iteration)."""

    @abstractmethod
    def losses(self, phase: Phase, batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weighted terms of the loss, which is their sum, and what else is worth a line in the log, without
        gradient; all of them scalars ().
        """

    def logged(self, means: dict[str, float]) -> dict[str, float]:
        """The values of a step as the log has them. means: of loss, terms and measures, over all processes."""
        return means

    def is_dead(self, values: dict[str, float]) -> bool:
        """Whether the module gives nothing that a gradient could come from: no step is made then."""
        return False

    @abstractmethod
    def learning_rate(self, phases: Sequence[Phase], state: TrainState) -> float:
        """Of this iteration: a function of the state, so there is no scheduler to save."""

    def end(self, phase: Phase, state: TrainState) -> None:  # noqa: B027
        """Leave in the state what later phases need of this one."""
