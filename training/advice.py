"""What to try after a run: patterns that its log shows, each with the figures that show it and a setting to change.

The thresholds are ours, and rough: they say where to look, not what is true.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, linear_regression

from training.phases import STARTS
from training.runs import Run

FALL = 0.5  # dB under the best validation at which a run has drifted
WHITE = 0.75  # mean brightness of results, of full scale, that ground truths hardly have
BRIGHTER = 0.08  # rise in mean brightness since the best validation, of full scale
MET, FLAT = 0.7, 0.05  # share of the way to the set point; what it gains over the last half where it has settled
TELLS_APART = 0.75  # accuracy of a guidance on held-back photos; 0.5 is a guess
STILL_RISING = 0.2  # dB that the last quarter of a run brought
NO_CHANGE = 0.03  # how near to 1 the mean of a map is that changes nothing
SHORTEST = 30  # iterations of enhancement that can be judged: over so many training itself averages its scores


@dataclass(frozen=True)
class Advice:
    """A pattern by its name, the figures that show it, and what to try."""

    title: str
    why: str
    settings: tuple[str, ...] = ()  # KEY=VALUE, for --set
    note: str = ""


def advise(run: Run) -> list[Advice]:
    """The patterns that the run shows, the gravest first; none where nothing is known to be wrong."""
    events = (_collapse, _restarts, _guidance_blind, _away_from_light)
    short = list(_too_short(run))
    trends = () if short else (_nothing_gained, _unchanged, _white, _drift, _set_point)
    found = [advice for pattern in (*events, *trends) for advice in pattern(run)]
    return found or short or list(_still_rising(run))


def _collapse(run: Run) -> Iterator[Advice]:
    how, why = run.ended
    times = run.summary.get("collapses") or run.outcome.get("collapses") or 0
    if not times and "turned white" not in why:
        return
    rate = run.setting("unet_model.lr")
    settings = [f"unet_model.lr={rate / 2:g}"] if _number(rate) else []
    told = f"Results turned white {times} times; training went back to its best snapshot at half the learning rate."
    yield Advice(
        "collapse: results turned white",
        f"{why}." if how == "diverged" else told,
        (*settings, *_weaker_guidance(run)),
        "A map near zero makes white photos, and a dead map has no gradient by which to leave.",
    )


def _restarts(run: Run) -> Iterator[Advice]:
    times = run.summary.get("restarts") or run.outcome.get("restarts") or 0
    if times:
        why = f"Self-reconstruction started over from {times} other seed{'s' if times > 1 else ''}."
        yield Advice("the start was missed", why, ("unet_model.map_bias=1.0",), "It starts close to the identity map.")


def _guidance_blind(run: Run) -> Iterator[Advice]:
    if run.reports and run.reports[-1]["guidance_accuracy"] < TELLS_APART:
        share = 100 * run.reports[-1]["guidance_accuracy"]
        steps = run.setting("guidance_model.num_pretrain_iters")
        yield Advice(
            "the guidance does not tell the folders apart",
            f"It puts {share:.0f} % of the photos held back from it on the right side; 50 % is a guess.",
            (f"guidance_model.num_pretrain_iters={2 * steps}",) if _number(steps) and steps else (),
            "Look at the folders first: python -m tools check-dataset.",
        )


def _away_from_light(run: Run) -> Iterator[Advice]:
    guided = run.guided
    if guided and guided[-1]["set_point"] <= guided[-1]["backlit_projection"]:
        yield Advice(
            "the direction points away from light",
            f"Backlit photos project to {guided[-1]['backlit_projection']:.3f}, the set point is "
            f"{guided[-1]['set_point']:.3f}: training pulls the wrong way.",
            (),
            "Are the two folders exchanged? python -m tools interpret-residual shows their photos along the direction.",
        )


def _nothing_gained(run: Run) -> Iterator[Advice]:
    scores = run.scores
    if "input" in scores and "best" in scores and scores["best"]["psnr"] <= scores["input"]["psnr"]:
        yield Advice(
            "no snapshot beats the untouched input",
            f"Best validation PSNR {scores['best']['psnr']:.2f} dB, untouched input {scores['input']['psnr']:.2f} dB.",
            (),
            "Check pairs and labels (python -m tools check-dataset), and what guides (python -m tools "
            "interpret-residual), before any other setting.",
        )


def _unchanged(run: Run) -> Iterator[Advice]:
    means = [line["mean_illumination"] for line in run.steps if "mean_illumination" in line]
    late = means[-max(1, len(means) // 4) :]
    if late and abs(fmean(late) - 1) <= NO_CHANGE:
        rate = run.setting("unet_model.lr")
        yield Advice(
            "results are the photos themselves",
            f"The illumination map has a mean of {fmean(late):.2f} at the end; 1 changes nothing.",
            (*_longer(run), *((f"unet_model.lr={2 * rate:g}",) if _number(rate) else ())),
            "The UNet has hardly left the map that it starts from.",
        )


def _white(run: Run) -> Iterator[Advice]:
    best, last = run.scores.get("best", {}), run.scores.get("last", {})
    if "brightness" not in last:
        return
    rise = last["brightness"] - best.get("brightness", last["brightness"])
    fallen = best["psnr"] - last["psnr"]
    if last["brightness"] >= WHITE or (rise >= BRIGHTER and fallen >= FALL):
        why = f"Results have a mean brightness of {last['brightness']:.2f} at the end"
        yield Advice(
            "overfitting to white",
            f"{why}, {rise:+.2f} since the best validation, which lies {fallen:.2f} dB higher.",
            (*_weaker_guidance(run), *_stop_at_best(run), *_out_of_white(run)),
            "The guidance goes on rewarding light that the photos do not need.",
        )


def _drift(run: Run) -> Iterator[Advice]:
    best, last = run.scores.get("best"), run.scores.get("last")
    if not best or not last or any(_white(run)):
        return
    if best["psnr"] - last["psnr"] >= FALL and best["iteration"] <= 0.9 * last["iteration"]:
        yield Advice(
            "drift",
            f"Validation was best at iteration {best['iteration']:,} ({best['psnr']:.2f} dB) and fell to "
            f"{last['psnr']:.2f} dB while the loss went on.",
            (*_stop_at_best(run), *_stronger_identity(run)),
            "checkpoints/best_val.safetensors holds the best.",
        )


def _set_point(run: Run) -> Iterator[Advice]:
    guided = run.guided
    if len(guided) < 8 or guided[-1]["set_point"] <= guided[-1]["backlit_projection"]:
        return
    shares = [
        (line["projection"] - line["backlit_projection"]) / (line["set_point"] - line["backlit_projection"])
        for line in guided
        if line["set_point"] != line["backlit_projection"]
    ]
    later = shares[len(shares) // 2 :]
    share = fmean(shares[-max(1, len(shares) // 4) :])
    gain = linear_regression(range(len(later)), later).slope * len(later)  # batches differ: not their ends alone
    if share >= (run.setting("unet_model.settle_at") if _settles(run) else MET):
        return
    why = f"Enhanced photos went {100 * share:.0f} % of the way to the set point"
    if gain > FLAT:
        settings = _longer(run)
        yield Advice("the set point is not met yet", f"{why}, and were still on it.", settings, "Train longer first.")
        return
    weight, factor = run.setting("loss.residual"), run.setting("guidance.set_point_factor")
    settings = [f"loss.residual={2 * weight:g}"] if _number(weight) else []
    settings += [f"guidance.set_point_factor={0.8 * factor:g}"] if _number(factor) else []
    yield Advice(
        "set point out of reach",
        f"{why}, and stopped there: the content loss holds them back, or no division by a map leads there.",
        tuple(settings),
        "Pull harder or, where results look right already, aim lower: one of the two.",
    )


def _too_short(run: Run) -> Iterator[Advice]:
    if 0 < (done := run.iterations - _begun(run)) < SHORTEST:
        yield Advice("too short to judge", f"The photos were enhanced for {done} iterations; {SHORTEST} say something.")


def _still_rising(run: Run) -> Iterator[Advice]:
    checks = [line for line in run.checks if line["iteration"]]
    if len(checks) < 4 or run.ended[0] != "finished":
        return
    quarter = checks[-1 - max(1, len(checks) // 4)]
    gain = checks[-1]["val_psnr"] - quarter["val_psnr"]
    if checks[-1] is max(checks, key=lambda line: line["val_psnr"]) and gain > STILL_RISING:
        yield Advice(
            "validation was still rising",
            f"The last quarter brought {gain:.2f} dB, and the last validation is the best.",
            _longer(run),
            "Its learning rate has fallen: train from the start."
            if _settles(run) or run.setting("unet_model.lr_schedule") == "cosine"
            else "With --resume it goes on from here.",
        )


def _weaker_guidance(run: Run) -> tuple[str, ...]:
    if run.method == "supervised":
        return ()
    key = "loss.residual" if run.method == "rave" else "loss.clip"
    weight = run.setting(key)
    return (f"{key}={weight / 2:g}",) if _number(weight) and weight else ()


def _out_of_white(run: Run) -> tuple[str, ...]:
    weight = run.setting("loss.white")
    return () if not _number(weight) else (f"loss.white={2 * weight:g}" if weight else "loss.white=20",)


def _stronger_identity(run: Run) -> tuple[str, ...]:
    weight = run.setting("loss.identity_guided")
    return (f"loss.identity_guided={2 * weight:g}",) if _number(weight) and weight else ()


def _stop_at_best(run: Run) -> tuple[str, ...]:
    """`train.num_iters` counts from where the enhancement begins."""
    best, begun = run.scores.get("best"), _begun(run)
    if run.method not in ("rave", "supervised") or not best or best["iteration"] <= begun:
        return ()
    return (f"train.num_iters={best['iteration'] - begun}",)


def _begun(run: Run) -> int:
    """The iteration from which photos are enhanced."""
    return max((line["iteration"] for line in run.steps if line.get("phase") in STARTS), default=0)


def _longer(run: Run) -> tuple[str, ...]:
    """Half as long again; with `settle_at`, `train.num_iters` is but the most."""
    more = (f"unet_model.settle_iters={3 * run.setting('unet_model.settle_iters') // 2}",) if _settles(run) else ()
    for key in ("train.num_iters", "train.num_rounds"):
        planned = run.setting(key)
        if _number(planned) and planned:
            return (*more, f"{key}={-(-3 * int(planned) // 2)}")
    return more


def _settles(run: Run) -> bool:
    """Whether a training ends once its results settle, with keys that an earlier version may lack."""
    return all(_number(run.setting(f"unet_model.{key}")) for key in ("settle_at", "settle_iters"))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
