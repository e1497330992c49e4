"""One step of each task, and one tile, on fake CUDA tensors: the cases of `gpu_steps.py`, in a process of their own.

Such a tensor makes PyTorch ask NVIDIA's libraries what they would do. After some other tests in the same process that
aborts the interpreter.
"""

import os
import subprocess
import sys
from pathlib import Path

from common.paths import REPO_ROOT

CASES = Path(__file__).with_name("gpu_steps.py")


def test_steps_and_tiles_walk_on_fake_cuda_tensors():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    result = subprocess.run(command, cwd=REPO_ROOT, env=alone, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "passed" in result.stdout and "failed" not in result.stdout
