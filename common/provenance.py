"""What is needed to repeat a result: command, commit, versions, hardware."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from common import __version__
from common.paths import REPO_ROOT

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "accelerate",
    "numpy",
    "pillow",
    "scikit-image",
    "lpips",
    "safetensors",
)


def provenance() -> dict:
    """What is needed to repeat a result: versions, commit, command, hardware.

    Changed figures in docs/results are no uncommitted changes: one command may write several of them.
    """
    status = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/results")
    return {
        "command": f"{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}".strip(),
        "version": __version__,
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(status),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "hardware": hardware(),
    }


def hardware() -> dict:
    """Processor, its bf16 arithmetic, cores, GPU (null where PyTorch was not needed, or has none)."""
    torch = sys.modules.get("torch")  # not imported for this alone: it takes seconds
    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "bf16": _bf16(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None,
    }


def _bf16() -> str | None:
    """The processor's instructions for bf16, in words; None where they cannot be known."""
    flags = _cpuinfo("flags")
    if flags is None:
        return None
    names = {"AMX": "amx_bf16", "AVX512-BF16": "avx512_bf16"}
    has = [name for name, flag in names.items() if flag in flags.split()]
    missing = [name for name in names if name not in has]
    return ", ".join([*has, *(f"no {name}" for name in missing)])


def _cpuinfo(key: str) -> str | None:
    """A line of /proc/cpuinfo about the first core; None where there is none."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.partition(":")[0].strip() == key), None)


def _git(*arguments: str) -> str | None:
    if not (REPO_ROOT / ".git").exists():
        return None  # installed, maybe into an environment inside somebody else's checkout
    try:
        return subprocess.run(
            ["git", "-C", str(REPO_ROOT), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # not a checkout, or no git
