"""When a training may not go on as it is: a loss that is not finite, a map of zeros, a start that is not learned, a
loss above its threshold.

Decisions only, as functions of the phase and of the state's counters; `training.loop` carries them out.
"""

import math
from dataclasses import dataclass
from typing import Literal

from common.errors import UserError
from training.phases import Phase
from training.state import TrainState

MAX_COLLAPSES = 5  # of a training into white results; each halves the learning rate from there on
MAX_RESTARTS = 10  # of a training that does not start; each has another seed
RESTART_ITERATIONS = 100  # that a restart adds after a missed start (release)


class TrainingDiverged(UserError):
    """The loss or a gradient became infinite or NaN, results stay white, or self-reconstruction never started."""


@dataclass(frozen=True)
class Decision:
    """What happens next, and why, in words for the console.

    "restart": the phase starts over with another seed. "go back": to the best snapshot, at half the learning rate.
    "extend": the phase gets longer. "settle": it is on its last iterations. more: iterations that the decision adds
    to the phase; below 0: takes from it. why: "" where there is nothing new to tell.
    """

    action: Literal["go on", "restart", "go back", "extend", "settle"]
    why: str = ""
    more: int = 0


GO_ON = Decision("go on")


def check_finite(phase: Phase, state: TrainState, values: dict[str, float]) -> None:
    """Raises TrainingDiverged where the loss or the norm of its gradient is infinite or NaN; called before the weights
    change.
    """
    loss, norm = values["loss"], values["gradient_norm"]
    if not math.isfinite(loss + norm):
        raise TrainingDiverged(
            f"{phase.name}, iteration {state.total}: loss {loss:.3g}, gradient norm {norm:.3g}; nothing was updated "
            f"and earlier checkpoints are intact; lower {rate_key(phase)}"
            + (" or set unet_model.grad_clip" if phase.trains == "unet" else "")
        )


def on_dead_map(phase: Phase, state: TrainState, *, first: bool) -> Decision:
    """The map is zero everywhere: results are white, and a dead ReLU at the output has no gradient by which to leave.

    Before anything was learned only other weights help. Later, Retinex having divided by an ever smaller map, training
    goes back to the best snapshot. first: no phase before this one trained the UNet.
    Raises TrainingDiverged after MAX_RESTARTS or MAX_COLLAPSES of these.
    """
    if first and not state.scores:
        return _restart(phase, state, "the map is zero everywhere")
    if state.collapses >= MAX_COLLAPSES:
        keys = rate_key(phase)
        if phase.guided:
            keys += " or loss.residual (CLIP-LIT: loss.clip), or raise loss.identity_guided"
        times = state.collapses + 1
        raise TrainingDiverged(
            f"{phase.name}: results turned white {times} times, the last at iteration {state.total}; lower {keys}"
        )
    best = state.best_total["unet"]
    return Decision(
        "go back", f"{phase.name}: results turned white, back to iteration {best} at half the learning rate"
    )


def after_iteration(phase: Phase, state: TrainState) -> Decision:
    """Whether the start was missed (`guard_psnr`), results came to the set point (`settle_at`), or the last planned
    iteration leaves the loss above `thr_loss`.

    Raises TrainingDiverged where the start was missed MAX_RESTARTS times before.
    """
    at_guard = phase.guard_psnr is not None and state.iteration == phase.guard_iterations
    if at_guard and state.scores and state.mean_score() < phase.guard_psnr:
        why = f"{state.mean_score():.1f} dB after {state.iteration} iterations"
        return _restart(phase, state, why, RESTART_ITERATIONS)
    if phase.settle_at is not None and state.settled_at is None:
        return _settle(phase, state)
    above = phase.extend_while_loss_above
    if above is None or state.iteration < state.planned or not state.losses:
        return GO_ON
    if state.mean_loss() <= above or not phase.max_extensions:
        return GO_ON
    told = f"{phase.name}: loss {state.mean_loss():.2f}"
    if state.extensions >= phase.max_extensions:
        return Decision("go on", f"{told}, still above thr_loss {above:g} after {state.extensions} extensions")
    more = phase.extension_iterations
    why = f"{told} above thr_loss {above:g}: +{more} iterations, at most {phase.max_extensions} times"
    return Decision("extend", "" if state.extensions else why, more)


def _settle(phase: Phase, state: TrainState) -> Decision:
    """The last iterations begin where results are near enough to the set point, or only so many are left."""
    left, last = state.planned - state.iteration, phase.settle_iterations
    if state.planned <= last:
        why = f"not longer than unet_model.settle_iters ({last}), so its learning rate falls from the start"
        return Decision("settle", f"{phase.name}: {why}")
    way, wanted = state.mean_way(), f"{100 * phase.settle_at:.0f} %, unet_model.settle_at"
    if way is None:
        here = f"too early to tell whether results are near enough to well-lit ({wanted})"
    else:
        here = f"results are {100 * way:.0f} % of the way to well-lit"
        if way >= phase.settle_at:
            why = f"{phase.name}: {here}, which is enough ({wanted}); {min(left, last)} iterations to the end"
            return Decision("settle", why, min(last - left, 0))
        here += f", not yet {wanted}"
    return Decision("settle", f"{phase.name}: the last {left} iterations; {here}") if left <= last else GO_ON


def rate_key(phase: Phase) -> str:
    """The key of the learning rate that a phase has."""
    if phase.trains == "unet" and not phase.enhances:
        return "unet_model.reconstruction_lr (null: unet_model.lr)"
    return f"{phase.trains}_model.lr"


def _restart(phase: Phase, state: TrainState, why: str, more: int = 0) -> Decision:
    if state.restarts >= MAX_RESTARTS:
        raise TrainingDiverged(
            f"{phase.name}: {why}, as from {MAX_RESTARTS} other seeds; "
            f"lower {rate_key(phase)}, or set unet_model.map_bias to 1.0 to start close to the identity map"
        )
    return Decision("restart", f"{phase.name}: {why}; starting over with another seed", more)
