"""Everything that a run needs to go on after it was stopped, in one object."""

import shutil
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.files import open_file, writing
from training.checksum import checksum

RUNNING_MEAN = 30  # steps over which the score of a snapshot is averaged (release)


@dataclass
class TrainState:
    """Weights, optimisers, counters, best snapshots, and the UNets behind the enhanced sets.

    The order of photos and their augmentation are functions of (seed, total), so no generator or
    loader state exists: N steps equal k steps, a stop, and N − k steps, bit for bit on the CPU.
    The enhanced sets I_{t−1}, I_t are functions of the UNets in `enhancers`, from which they are made again.
    """

    modules: dict[str, nn.Module]  # what is trained: "unet", and "guidance" where it is learned
    optimizers: dict[str, torch.optim.Optimizer]  # likewise
    phase: int = 0  # index into the schedule
    trains: str = "unet"  # the module that this phase trains
    iteration: int = 0  # done in this phase
    planned: int = 0  # of this phase, with what restarts and extensions added
    total: int = 0  # done in all phases, restarts included
    restarts: int = 0
    extensions: int = 0
    collapses: int = 0
    check_due: bool = False  # the validation of this iteration is still to come
    log_lines: int = 0  # of metrics.jsonl, when the state was saved
    seconds: float = 0.0  # of wall time spent in training, without validation
    scores: list[float] = field(default_factory=list)  # of the last RUNNING_MEAN steps
    losses: list[float] = field(default_factory=list)  # likewise
    ways: list[float] = field(default_factory=list)  # likewise: shares of the way to the set point
    settled_at: int | None = None  # the phase's iteration at which its last ones began
    best_score: float = float("-inf")  # of this phase
    best: dict[str, dict[str, Tensor]] = field(
        default_factory=dict
    )  # of each module: a copy of its weights, never an alias
    best_total: dict[str, int] = field(default_factory=dict)  # the iteration of each
    best_val_psnr: float = float("-inf")
    best_val_total: int = 0
    best_val: dict[str, Tensor] = field(default_factory=dict)  # of the UNet
    average: dict[str, Tensor] = field(
        default_factory=dict
    )  # of the UNet's weights over the last steps, where the config asks for it
    enhancers: list[dict[str, Tensor]] = field(default_factory=list)  # the last two rounds' UNets, the latest last

    _NOT_PLAIN: ClassVar = ("modules", "optimizers")
    _LATER: ClassVar = {"check_due": False, "ways": [], "settled_at": None}  # what states of earlier versions lack

    def __post_init__(self) -> None:
        self._sound = True  # what `save` finds in its place is whole, as far as is known

    def start_phase(self, phase: int, trains: str, planned: int) -> None:
        """Reset what belongs to one phase."""
        self.phase, self.trains, self.iteration, self.planned, self.extensions = phase, trains, 0, planned, 0
        self.forget_scores()

    def forget_scores(self) -> None:
        """Start the running means and the search for the best snapshot over, from the present weights."""
        self.forget_means()
        self.settled_at = None
        self.best_score = float("-inf")
        self.keep_best(self.snapshot())

    def forget_means(self) -> None:
        """Start the running means over."""
        self.scores, self.losses, self.ways = [], [], []

    def start_over(self, weights: dict[str, Tensor]) -> None:
        """The phase begins again, from these weights of the module in training."""
        self.modules[self.trains].load_state_dict(weights)
        self.iteration, self.average = 0, {}
        self.forget_scores()

    def keep_best_val(self, psnr: float, weights: dict[str, Tensor]) -> bool:
        """Keep `weights` of the UNet if their validation PSNR (dB) is the highest so far. Returns whether it is."""
        better = psnr > self.best_val_psnr
        if better:
            self.best_val_psnr, self.best_val_total, self.best_val = psnr, self.total, weights
        return better

    def keep_best(self, weights: dict[str, Tensor], total: int | None = None) -> None:
        """`weights` are the best so far of the module in training, after `total` iterations (None: so many as now)."""
        self.best = {**self.best, self.trains: weights}
        self.best_total = {**self.best_total, self.trains: self.total if total is None else total}

    def record(self, score: float, loss: float, way: float | None = None) -> None:
        """Take a step into the running means. way: its share of the way to the set point, where that is measured."""
        self.scores = [*self.scores, score][-RUNNING_MEAN:]
        self.losses = [*self.losses, loss][-RUNNING_MEAN:]
        if way is not None:
            self.ways = [*self.ways, way][-RUNNING_MEAN:]

    def mean_way(self) -> float | None:
        """None before there are RUNNING_MEAN steps."""
        return sum(self.ways) / RUNNING_MEAN if len(self.ways) == RUNNING_MEAN else None

    def mean_score(self) -> float:
        return sum(self.scores) / len(self.scores)

    def mean_loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    def snapshot(self, module: str | None = None) -> dict[str, Tensor]:
        """A copy of a module's weights (None: of the one in training) on the CPU,
        or of their average where there is one.
        """
        name = module or self.trains
        if name == "unet" and self.average:
            return {key: tensor.cpu().clone() for key, tensor in self.average.items()}
        return self._weights(name)

    def update_average(self, decay: float) -> None:
        """average ← decay · average + (1 − decay) · weights of the UNet, on their device;
        it starts from the weights as they are.
        """
        weights = {name: tensor.detach() for name, tensor in self.modules["unet"].state_dict().items()}
        if not self.average:
            self.average = {name: tensor.clone() for name, tensor in weights.items()}
        for name, tensor in self.average.items():
            tensor.lerp_(weights[name], 1 - decay)

    def go_back_to_best(self) -> None:
        """The module in training gets its best snapshot."""
        self.modules[self.trains].load_state_dict(self.best[self.trains])
        self.average = {}

    def _weights(self, module: str) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.modules[module].state_dict().items()}

    def state_dict(self) -> dict:
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self._NOT_PLAIN}
        weights = {name: self._weights(name) for name in self.modules}
        return {
            "modules": weights,
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            **plain,
        }

    def load_state_dict(self, state: dict) -> None:
        if state["modules"].keys() != self.modules.keys():
            raise ValueError(f"expected {', '.join(self.modules)}, found {', '.join(state['modules'])}")
        weights = self.modules["unet"].state_dict()
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        for f in fields(self):
            if f.name not in self._NOT_PLAIN:
                setattr(self, f.name, {**self._LATER, **state}[f.name])
        self.average = {name: tensor.to(weights[name].device) for name, tensor in self.average.items()}

    def save(self, path: Path) -> None:
        """Write the state with its checksum; the one before it is kept beside it (`previous_state`)."""
        state = self.state_dict()
        with writing(path, durable=True) as temporary:
            with temporary.open("wb") as file:  # a path hides why PyTorch failed
                torch.save({**state, "checksum": checksum(state)}, file)
            if self._sound and path.is_file():
                with writing(previous_state(path)) as link:
                    link.unlink()
                    _link_or_copy(path, link)
        self._sound = True

    def load(self, path: Path) -> str | None:
        """Take over a saved state; where it is damaged the one before it, and the text returned tells so.

        Raises UserError where neither can be used.
        """
        reasons = []
        for file in (path, previous_state(path)):
            try:
                content = _read_state(file)
                self.load_state_dict(content)
            except Exception as error:  # readers meet damaged files with every kind of exception
                reasons += [(file, _why(error))] if file == path or file.exists() else []
                continue
            if reasons:
                self._sound = False  # what is damaged must not take the place of the one before it
                return f"{path}: {reasons[0][1]}; going on from the state before it, {file}"
            return None
        what = "; ".join(f"{file}: not a state of this kind of run ({why})" for file, why in reasons)
        raise UserError(f"--resume: {what}")


def previous_state(path: Path) -> Path:
    """Where the state before the one in `path` is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _read_state(path: Path) -> dict:
    """The content of a state file, whose checksum fits; of an earlier version, which has none, as it is."""
    with open_file(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about pickles that are refused anyway
        state = torch.load(file, map_location="cpu", weights_only=True)
    expected = state.pop("checksum", None)
    if expected is not None and expected != checksum(state):
        raise ValueError("damaged, its checksum does not fit")
    return state


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror
    return str(error) if isinstance(error, ValueError) else f"damaged or of another kind ({type(error).__name__})"


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # of a file system without links
        shutil.copyfile(source, target)
