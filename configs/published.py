"""What the authors' config files write otherwise than ours; read for what it means."""

from typing import Any

from pydantic import BaseModel

from common.errors import UserError
from configs.fitting import plain

MISPLACED = "remove_first_n_tokens"


def adapt(tree: dict[str, Any], schema: type[BaseModel]) -> list[str]:
    """Bring a tree as read from a file, or given on the command line, into our form, in place. Returns notes.

    - `remove_first_n_tokens` at the top level, beside an empty `guidance:`, belongs into that section;
    - `unet_model.load_pretrain` and `pretrain_dir` of an inference config are `model.checkpoint`.
    Raises UserError where that leaves two values for one key, or no weights.
    """
    notes = []
    if "guidance" in schema.model_fields and MISPLACED in tree and not plain(tree.get("guidance")):
        tree["guidance"] = {MISPLACED: tree.pop(MISPLACED)}
        notes.append(f"{MISPLACED} at the top level is taken for guidance.{MISPLACED}")
    if "model" in schema.model_fields and "checkpoint" in schema.model_fields["model"].annotation.model_fields:
        _weights(tree)
    return notes


def _weights(tree: dict[str, Any]) -> None:
    """unet_model: {load_pretrain: true, pretrain_dir: FILE} -> model: {checkpoint: FILE}"""
    unet = tree.get("unet_model")
    if not isinstance(unet, dict) or not set(unet) <= {"load_pretrain", "pretrain_dir"}:
        return  # refused as any unknown key
    del tree["unet_model"]
    loaded = unet.get("load_pretrain")
    if loaded is not None and plain(loaded) is not True:
        raise UserError(f"unet_model.load_pretrain: expected true, the network needs weights, found {plain(loaded)}")
    if "pretrain_dir" in unet:
        model = tree.get("model")
        model = model if isinstance(model, dict) else {}
        if "checkpoint" in model:
            raise UserError("unet_model.pretrain_dir and model.checkpoint: expected one of them, found both")
        tree["model"] = {**model, "checkpoint": unet["pretrain_dir"]}
