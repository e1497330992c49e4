"""The training schedule as data: a list of phases that a reader, or `--dry-run`, can print."""

from dataclasses import dataclass
from math import ceil

from configs.schema import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of UNet training with fixed losses.

    The total is identity · L_id + residual · L_res. The best snapshot has the highest running mean
    of `best_by`: "input_psnr" (luma of the result against the photo, dB) or "negative_loss".
    """

    name: str
    iterations: int  # planned; restarts and extensions add to it
    identity: float  # weight of the identity loss
    identity_layers: tuple[float, ...]  # α of stem, layer1..4
    residual: float = 0.0  # weight of RAVE's residual guidance
    best_by: str = "negative_loss"
    guard_psnr: float | None = None  # dB; under it after `guard_iterations` the UNet starts anew with another seed
    guard_iterations: int = 100
    extend_while_loss_above: float | None = None


def rave_schedule(config: TrainConfig, photos: int) -> list[Phase]:
    """Self-reconstruction, then one RAVE phase (RAVE, section 3; constants of the release)."""
    loss, unet = config.loss, config.unet_model
    reconstruction = Phase(
        name="reconstruction",
        iterations=unet.num_reconstruction_iters,
        identity=loss.identity,
        identity_layers=tuple(loss.identity_layers),
        best_by="input_psnr",
        guard_psnr=8.0,
    )
    rave = Phase(
        name="rave",
        iterations=config.train.num_iters or config.train.num_epochs * ceil(photos / unet.batch_size),
        identity=loss.identity_guided,
        identity_layers=tuple(loss.identity_layers_guided),
        residual=loss.residual,
        extend_while_loss_above=unet.thr_loss,
    )
    return [rave] if unet.load_pretrain or reconstruction.iterations == 0 else [reconstruction, rave]


def describe_schedule(phases: list[Phase], config: TrainConfig) -> str:
    """The schedule as a few lines of text."""
    unet = config.unet_model
    lines = []
    for number, phase in enumerate(phases, 1):
        total = " + ".join(f"{w:g}·{name}" for name, w in (("identity", phase.identity), ("residual", phase.residual)) if w)
        line = f"  {number}. {phase.name}: {phase.iterations} iterations, loss = {total}, identity layers {list(phase.identity_layers)}"
        if phase.guard_psnr is not None:
            line += f"; starts anew if under {phase.guard_psnr:g} dB after {phase.guard_iterations}"
        if phase.extend_while_loss_above is not None:
            line += (
                f"; +{unet.extension_iters} while the loss is above {phase.extend_while_loss_above:g}, at most {unet.max_extensions} times"
            )
        lines.append(line)
    return "\n".join(lines)
