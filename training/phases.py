"""The training schedules as data: lists of phases that a reader, or `--dry-run`, can print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from configs.schema import GuidanceModel, TrainConfig

NAMES = {"unet": "UNet", "guidance": "guidance"}  # what a phase trains, for readers

# Loss terms, by the names that they have in logs, curves and `--dry-run`. Of the UNet:
MAP = "map"  # squared relative distance to a first map (ours)
IDENTITY = "identity"  # L_id
RESIDUAL = "residual"  # L_res, RAVE's guidance
CLIP = "clip"  # L_clip, CLIP-LIT's guidance
PIXEL = "pixel"  # L_pixel, against ground truths (ours)
WHITE = "white"  # W, what becomes white (ours)
# of the guidance:
CROSS_ENTROPY = "cross_entropy"  # its initialisation
RANKING = "ranking"  # its refinement
UNET_TERMS = (MAP, IDENTITY, RESIDUAL, CLIP, PIXEL, WHITE)
GUIDANCE_TERMS = (CROSS_ENTROPY, RANKING)

# Phases with one of which a UNet without pretrained weights begins: what they give is no result.
FIRST_MAP, RECONSTRUCTION = "first map", "reconstruction"
STARTS = (FIRST_MAP, RECONSTRUCTION)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training of one module with fixed losses; the other modules are frozen.

    The best snapshot has the highest running mean of `best_by`: "input_psnr" (luma of the result against the photo, dB)
    or "negative_loss". A phase ends with it, but for a UNet phase that is a run's last: its weights stay as they are,
    so that a longer run can go on from them, and the snapshot is a file of its own.
    """

    name: str
    trains: Literal["unet", "guidance"]
    iterations: int  # planned; restarts and extensions add to it
    terms: dict[str, float]  # name -> weight; the loss is the weighted sum
    round: int = 0  # of CLIP-LIT's rounds, from 1
    identity_layers: tuple[float, ...] = ()  # α of stem, layer1..4
    best_by: Literal["input_psnr", "negative_loss"] = "negative_loss"
    guard_psnr: float | None = None  # dB; under it after `guard_iterations` the UNet starts over with another seed
    guard_iterations: int = 100
    extend_while_loss_above: float | None = None
    extension_iterations: int = 0
    max_extensions: int = 0
    settle_at: float | None = None  # share of the way to the set point from which `settle_iterations` are left
    settle_iterations: int = 0

    @property
    def guided(self) -> bool:
        """UNet training under CLIP guidance."""
        return RESIDUAL in self.terms or CLIP in self.terms

    @property
    def enhances(self) -> bool:
        """UNet training towards light, by guidance or ground truths: what a start prepares for."""
        return self.guided or PIXEL in self.terms

    @property
    def encodes(self) -> bool:
        """Training that needs the encoders."""
        return not set(self.terms) <= {MAP, PIXEL, WHITE}

    def score(self, values: Mapping[str, float]) -> float:
        """What the best snapshot has the most of (`best_by`), of the values of a step."""
        return values["input_psnr"] if self.best_by == "input_psnr" else -values["loss"]


def schedule(config: TrainConfig, photos: int) -> list[Phase]:
    """The phases of `exp.mode` for so many backlit photos."""
    return rave_schedule(config, photos) if config.exp.mode == "rave" else clip_lit_schedule(config, photos)


def rave_schedule(config: TrainConfig, photos: int) -> list[Phase]:
    """Self-reconstruction, then one RAVE phase (RAVE, section 3; constants of the release).

    With `loss.pixel` ground truths join the guidance, or take its place where it has no weight (ours): then no loss
    extends the phase.
    """
    iterations, loss = config.train.num_iters or _iterations_of_epochs(config, photos), config.loss
    phase = _guided(config, "rave", iterations, {RESIDUAL: loss.residual})
    if loss.pixel:
        terms = {name: weight for name, weight in (phase.terms | {PIXEL: loss.pixel}).items() if weight}
        phase = replace(phase, terms=terms)
    if config.method == "supervised":  # thr_loss and set point are guidance's
        phase = replace(phase, name="supervised", extend_while_loss_above=None, settle_at=None)
    return [*_reconstruction(config), phase]


def clip_lit_schedule(config: TrainConfig, photos: int) -> list[Phase]:
    """Guidance initialisation, self-reconstruction, then rounds of UNet training and guidance refinement.

    CLIP-LIT, section 3 and algorithm 1; constants of the release. The same for prompts and latent vectors.
    """
    loss, unet, guidance = config.loss, config.unet_model, config.guidance_model
    phases = []
    if not guidance.load_pretrain and guidance.num_pretrain_iters:
        phases.append(_guidance_training(guidance, "initialisation", guidance.num_pretrain_iters, {CROSS_ENTROPY: 1.0}))
    phases += _reconstruction(config)
    rounds = config.train.num_rounds or ceil(_iterations_of_epochs(config, photos) / unet.num_round_iters)
    for number in range(1, rounds + 1):
        phases.append(_guided(config, f"enhancement {number}", unet.num_round_iters, {CLIP: loss.clip}, number))
        if guidance.num_refine_iters:
            name = f"refinement {number}"
            phases.append(
                _guidance_training(guidance, name, guidance.num_refine_iters, {RANKING: loss.refinement}, number)
            )
    return phases


def last_phase(phases: Sequence[Phase], module: str) -> int:
    """The number of the last phase that trains a module."""
    return max(number for number, phase in enumerate(phases) if phase.trains == module)


def describe_schedule(phases: list[Phase]) -> str:
    """The schedule as text, a line for each phase; equal rounds are listed once."""
    lines = []
    rounds = max((phase.round for phase in phases), default=0)
    for number, phase in enumerate(phases, 1):
        if phase.round > 1:
            continue
        total = " + ".join(f"{weight:g}·{name}" for name, weight in phase.terms.items())
        line = f"  {number}. {phase.name}: {phase.iterations} iterations of the {NAMES[phase.trains]}, loss = {total}"
        if phase.identity_layers and IDENTITY in phase.terms:
            line += f", identity layers {list(phase.identity_layers)}"
        if phase.guard_psnr is not None and phase.guard_iterations <= phase.iterations:
            line += f"; starts over if under {phase.guard_psnr:g} dB after {phase.guard_iterations}"
        if phase.extend_while_loss_above is not None and phase.max_extensions:
            limit = phase.extend_while_loss_above
            line += f"; +{phase.extension_iterations} while the loss is above {limit:g}, "
            line += f"at most {phase.max_extensions} times"
        if phase.settle_at is not None and phase.iterations > phase.settle_iterations:
            line += f"; ends {phase.settle_iterations} iterations after results are "
            line += f"{100 * phase.settle_at:.0f} % of the way to well-lit"
        lines.append(line)
    if rounds > 1:
        lines.append(f"  ... and so on, to {' and '.join(phase.name for phase in phases if phase.round == rounds)}")
    counts = {
        name: sum(phase.iterations for phase in phases if phase.trains == module) for module, name in NAMES.items()
    }
    together = ", ".join(f"{count} iterations of the {name}" for name, count in counts.items() if count)
    return "\n".join([*lines, f"  {len(phases)} phase{'s' if len(phases) > 1 else ''}, together {together}"])


def _iterations_of_epochs(config: TrainConfig, photos: int) -> int:
    return config.train.num_epochs * ceil(photos / config.unet_model.batch_size)


def _reconstruction(config: TrainConfig) -> list[Phase]:
    unet = config.unet_model
    if unet.load_pretrain or unet.num_reconstruction_iters == 0:
        return []
    if unet.first_map == "retinex":
        return [Phase(name=FIRST_MAP, trains="unet", iterations=unet.num_reconstruction_iters, terms={MAP: 1.0})]
    return [
        Phase(
            name=RECONSTRUCTION,
            trains="unet",
            iterations=unet.num_reconstruction_iters,
            terms={IDENTITY: config.loss.identity},
            identity_layers=tuple(config.loss.identity_layers),
            best_by="input_psnr",
            guard_psnr=8.0,
        )
    ]


def _guided(config: TrainConfig, name: str, iterations: int, guidance: dict[str, float], number: int = 0) -> Phase:
    unet, loss = config.unet_model, config.loss
    return Phase(
        name=name,
        trains="unet",
        round=number,
        settle_at=unet.settle_at if RESIDUAL in guidance else None,
        settle_iterations=unet.settle_iters,
        iterations=iterations,
        terms={IDENTITY: loss.identity_guided, **guidance, **({WHITE: loss.white} if loss.white else {})},
        identity_layers=tuple(loss.identity_layers_guided),
        extend_while_loss_above=unet.thr_loss,
        extension_iterations=unet.extension_iters,
        max_extensions=unet.max_extensions,
    )


def _guidance_training(
    options: GuidanceModel, name: str, iterations: int, terms: dict[str, float], number: int = 0
) -> Phase:
    return Phase(
        name=name,
        trains="guidance",
        round=number,
        iterations=iterations,
        terms=terms,
        extend_while_loss_above=options.thr_loss,
        extension_iterations=options.extension_iters,
        max_extensions=options.max_extensions,
    )
