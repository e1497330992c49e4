"""Names of weights, and which of the shipped files are the enhancement network."""

import shutil
import subprocess
import sys

import pytest

from common.errors import UserError
from models import shipped
from models.shipped import SHIPPED, find_weights, shipped_unets


def message(value: str) -> str:
    with pytest.raises(UserError) as caught:
        find_weights(value, "--checkpoint")
    return str(caught.value)


def test_a_name_that_no_shipped_weights_have_is_answered_by_theirs():
    names = [path.name for path in SHIPPED.glob("*.safetensors") if "clip" not in path.name]
    said = message("bakclit.safetensors")
    assert said.endswith(f"found nothing there: bakclit.safetensors (shipped: {', '.join(sorted(names))})")
    assert len(names) > 3
    assert message("some/where.pth").endswith("found nothing there: some/where.pth")
    assert all(find_weights(name, "--checkpoint").is_file() for name in names)


def test_a_file_is_known_by_what_it_holds(tmp_path, monkeypatch):
    shutil.copy(SHIPPED / "start.safetensors", tmp_path / "mini-clip.safetensors")
    shutil.copy(SHIPPED / "mini-clip.safetensors", tmp_path / "start.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((SHIPPED / "start.safetensors").read_bytes()[:3000])
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path)
    assert shipped_unets() == ["mini-clip.safetensors"]


def test_pytorch_is_not_imported_for_it():
    code = "import sys; from models.shipped import shipped_unets; print(shipped_unets(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("] False")
