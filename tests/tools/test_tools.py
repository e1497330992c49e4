"""python -m tools: every tool is listed with one line, runs by its name, and told apart from a misspelt one."""

import subprocess
import sys

import pytest

from common.errors import UserError
from common.paths import REPO_ROOT
from tools.__main__ import main, names


def test_every_tool_has_one_short_line(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for name, what in names().items():
        assert f"  {name}" in shown and len(what) <= 90 and what.endswith("."), name
    assert {"interpret-residual", "make-backlit", "near-duplicates", "fetch-published"} <= names().keys()
    assert {"compare-weights", "compare-methods", "quickstart", "check-dataset"} <= names().keys()


def test_a_misspelt_tool_is_one_line():
    with pytest.raises(UserError, match=r"expected one of check-dataset, .*; found make-backlight"):
        main(["make-backlight"])


@pytest.mark.parametrize("how", [["-m", "tools", "near-duplicates"], ["tools/near_duplicates.py"]])
def test_a_tool_runs_by_name_and_as_a_file(how):
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPO_ROOT)}
    command = [sys.executable, *how, "--help"]
    result = subprocess.run(command, cwd=REPO_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: ") and "near" in result.stdout.splitlines()[0]
