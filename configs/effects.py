"""Which keys have an effect only beside others: what a user writes in vain is named, not swallowed."""

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel

from configs.schema import TrainConfig

Condition = Callable[[TrainConfig], bool]


def _rave(config: TrainConfig) -> bool:
    return config.exp.mode == "rave"


def _learned(config: TrainConfig) -> bool:
    return config.exp.mode != "rave"


def _direction(name: str) -> Condition:
    """Whether a source takes part in RAVE's direction."""
    return lambda c: (
        c.guidance.direction == name or (c.guidance.direction == "sum" and getattr(c.guidance.weights, name) != 0)
    )


# key or section -> (when it has an effect, that condition in words); of several that fit a key, all must hold
NEEDS: dict[str, tuple[Condition, str]] = {
    "train.num_iters": (_rave, "exp.mode: rave"),
    "train.num_rounds": (_learned, "exp.mode: clip_lit or clip_lit_latent"),
    "train.num_epochs": (
        lambda c: (c.train.num_iters if _rave(c) else c.train.num_rounds) is None,
        "neither train.num_iters (RAVE) nor train.num_rounds (CLIP-LIT)",
    ),
    "unet_model.num_round_iters": (_learned, "exp.mode: clip_lit or clip_lit_latent"),
    **{
        f"unet_model.{name}": (lambda c: c.method != "supervised", "guidance: loss.residual above 0, or loss.pixel: 0")
        for name in ("thr_loss", "extension_iters", "max_extensions", "settle_at", "settle_iters")
    },
    "unet_model.pretrain_dir": (lambda c: c.unet_model.load_pretrain, "unet_model.load_pretrain: true"),
    "guidance_model": (_learned, "exp.mode: clip_lit or clip_lit_latent"),
    "guidance_model.length_prompt": (
        lambda c: c.exp.mode == "clip_lit" and c.guidance_model.init_texts is None,
        "exp.mode: clip_lit, and no guidance_model.init_texts",
    ),
    "guidance_model.init_texts": (lambda c: c.exp.mode == "clip_lit", "exp.mode: clip_lit"),
    "guidance_model.pretrain_dir": (lambda c: c.guidance_model.load_pretrain, "guidance_model.load_pretrain: true"),
    "guidance.direction": (_rave, "exp.mode: rave"),
    "guidance.remove": (_rave, "exp.mode: rave"),
    "guidance.remove_first_n_tokens": (_rave, "exp.mode: rave"),
    "guidance.layers": (lambda c: c.exp.mode != "clip_lit", "exp.mode: rave or clip_lit_latent"),
    "guidance.set_point": (_rave, "exp.mode: rave"),
    "guidance.set_point_factor": (
        lambda c: _rave(c) and c.guidance.set_point == "photo",
        "guidance.set_point: photo",
    ),
    "guidance.relit": (
        lambda c: _rave(c) and _direction("relit")(c),
        "guidance.direction: relit, or sum with its weight",
    ),
    "guidance.relit.gamma": (lambda c: c.guidance.relit.photos != "welllit", "guidance.relit.photos: backlit or both"),
    **{
        f"guidance.relit.{name}": (
            lambda c: c.guidance.relit.photos != "backlit",
            "guidance.relit.photos: welllit or both",
        )
        for name in ("foreground_stops", "background_stops", "foreground_share")
    },
    "guidance.texts": (
        lambda c: _rave(c) and _direction("texts")(c),
        "guidance.direction: texts, or sum with their weight",
    ),
    "guidance.saved": (
        lambda c: _rave(c) and _direction("saved")(c),
        "guidance.direction: saved, or sum with its weight",
    ),
    "guidance.weights": (lambda c: _rave(c) and c.guidance.direction == "sum", "guidance.direction: sum"),
    "data.simulated_backlight": (
        lambda c: c.data.simulated_backlight.shares > 0,
        "data.simulated_backlight.share, dim or low_key above 0",
    ),
    "data.pairs": (lambda c: _rave(c) and c.loss.pixel > 0, "exp.mode: rave, and loss.pixel above 0"),
    "loss.pixel": (
        lambda c: _rave(c) and (c.data.pairs is not None or c.data.simulated_backlight.shares > 0),
        "exp.mode: rave, and data.pairs or data.simulated_backlight.share, dim or low_key above 0",
    ),
    **{
        f"loss.{name}": (lambda c: _rave(c) and c.loss.pixel > 0, "exp.mode: rave, and loss.pixel above 0")
        for name in ("pixel_error", "structure")
    },
    "data.val_list": (lambda c: c.data.val_backlit_path is not None, "data.val_backlit_path"),
    "loss.residual": (_rave, "exp.mode: rave"),
    "loss.clip": (_learned, "exp.mode: clip_lit or clip_lit_latent"),
    "loss.refinement": (_learned, "exp.mode: clip_lit or clip_lit_latent"),
    "loss.margins": (_learned, "exp.mode: clip_lit or clip_lit_latent"),
}


def without_effect(config: BaseModel, written: Iterable[str], *, typed: bool = False) -> list[str]:
    """Notes on keys that were written without an effect, one for each condition that does not hold.

    written: dotted keys of a file; those that only repeat their default, as in the resolved config of an earlier run,
    are passed over. typed: they are those of the command line, where none is.
    """
    if not isinstance(config, TrainConfig):
        return []
    idle: dict[str | None, list[str]] = {}
    for key in written:
        if typed or not _is_default(config, key):
            idle.setdefault(_missing(config, key), []).append(key)
    return [f"{', '.join(keys)}: without effect (needs {words})" for words, keys in idle.items() if words]


def has_effect(config: TrainConfig, key: str) -> bool:
    """Whether a run by this config depends on a dotted key."""
    return _missing(config, key) is None


def _missing(config: TrainConfig, key: str) -> str | None:
    """The condition, in words, under which a key has an effect; None where it has one."""
    return next((words for name, (holds, words) in NEEDS.items() if _is_in(key, name) and not holds(config)), None)


def _is_in(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")


def _is_default(config: BaseModel, key: str) -> bool:
    value: Any = config
    default: Any = None
    for name in key.split("."):
        default = type(value).model_fields[name].default if isinstance(value, BaseModel) else default
        value = getattr(value, name)
    return value == default
