"""Everything that a run needs to go on after it was stopped, in one object."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from errors import UserError
from files import write_atomically

RUNNING_MEAN = 30  # steps over which the score of a snapshot is averaged (release)


@dataclass
class TrainState:
    """Weights, optimiser, counters and the best snapshots.

    The order of photos and their augmentation are functions of (seed, total), so no generator or
    loader state exists: N steps equal k steps, a stop, and N − k steps, bit for bit on the CPU.
    """

    unet: nn.Module
    optimizer: torch.optim.Optimizer
    phase: int = 0  # index into the schedule
    iteration: int = 0  # done in this phase
    planned: int = 0  # of this phase, with what restarts and extensions added
    total: int = 0  # done in all phases, restarts included
    restarts: int = 0
    extensions: int = 0
    collapses: int = 0
    scores: list[float] = field(default_factory=list)  # of the last RUNNING_MEAN steps
    losses: list[float] = field(default_factory=list)  # likewise
    best_score: float = float("-inf")
    best_total: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)  # a copy of the weights, never an alias
    best_val_psnr: float = float("-inf")
    best_val_total: int = 0
    best_val: dict[str, Tensor] = field(default_factory=dict)

    _COUNTERS = ("phase", "iteration", "planned", "total", "restarts", "extensions", "collapses", "scores", "losses")
    _BEST = ("best_score", "best_total", "best", "best_val_psnr", "best_val_total", "best_val")

    def start_phase(self, phase: int, planned: int) -> None:
        """Reset what belongs to one phase."""
        self.phase, self.iteration, self.planned, self.extensions = phase, 0, planned, 0
        self.forget_scores()

    def forget_scores(self) -> None:
        """Start the running means and the search for the best snapshot anew, from the present weights."""
        self.scores, self.losses = [], []
        self.best_score, self.best_total, self.best = float("-inf"), self.total, self.snapshot()

    def record(self, score: float, loss: float) -> None:
        self.scores = [*self.scores, score][-RUNNING_MEAN:]
        self.losses = [*self.losses, loss][-RUNNING_MEAN:]

    def mean_score(self) -> float:
        return sum(self.scores) / len(self.scores)

    def mean_loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the weights on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.unet.state_dict().items()}

    def state_dict(self) -> dict:
        plain = {name: getattr(self, name) for name in self._COUNTERS + self._BEST}
        return {"unet": self.snapshot(), "optimizer": self.optimizer.state_dict(), **plain}

    def load_state_dict(self, state: dict) -> None:
        self.unet.load_state_dict(state["unet"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in self._COUNTERS + self._BEST:
            setattr(self, name, state[name])

    def save(self, path: Path) -> None:
        write_atomically(path, lambda temporary: torch.save(self.state_dict(), temporary))

    def load(self, path: Path) -> None:
        """Raises UserError where the state cannot be read."""
        try:
            self.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise UserError(f"--resume: {path}: not a state of this kind of run ({type(error).__name__})") from None
