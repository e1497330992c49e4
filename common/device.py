"""The processor that a config asks for."""

from common.errors import UserError


def check_device(device: str, key: str) -> None:
    """Raises UserError where `device` is "cuda" and PyTorch cannot use an NVIDIA GPU here. key: of the config."""
    if device != "cuda":
        return
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # no driver, one that is too old, no GPU, or a build for CPUs
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        found = f"PyTorch {torch.__version__} says: {reason}"
        raise UserError(f"{key}: expected an NVIDIA GPU, found none that can be used ({found}); or set auto") from None
