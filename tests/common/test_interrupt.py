"""Ctrl-C in real processes, at moments that are given by what they import."""

import subprocess
import sys

import pytest

from common.paths import REPO_ROOT

START = """
import runpy, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):  # asked for each module that is not loaded yet
        if "common.interrupt" in sys.modules and name not in sys.modules:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder)
"""
SCRIPTS = {name: f"runpy.run_path({name!r}, run_name='__main__')"
           for name in ("train_rave.py", "train.py", "inference.py", "compute_metrics.py")}  # fmt: skip
SCRIPTS |= {name: f"runpy.run_module({name!r}, run_name='__main__')" for name in ("tools", "serving.app")}
SCRIPTS |= {
    f"backlit-{name}": f"import commands; commands.{name}()" for name in ("enhance", "train", "metrics", "tools")
}
PLACES = {
    "before": ("without_traceback(); press()", "stopped\n"),
    "inside": ("run(main)", "put away\nstopped\n"),
    "an import inside": ("sys.meta_path.insert(0, Finder); run(lambda argv: __import__('colorsys'))", "stopped\n"),
    "after": ("without_traceback(); run(lambda argv: atexit.register(press) and 0)", "stopped\n"),
}
BETWEEN = """
import atexit, signal, sys
from common.cli import run
from common.interrupt import without_traceback
def press(*names):
    signal.raise_signal(signal.SIGINT)
class Finder:
    find_spec = press
def main(argv):
    try:
        press()
    finally:
        print("put away", file=sys.stderr)
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_first_import_of_a_script_may_be_interrupted(script):
    assert outcome(START + SCRIPTS[script]) == (130, "stopped\n")


@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_is_no_traceback(place):
    code, told = PLACES[place]
    assert outcome(BETWEEN + code) == (130, told)


def test_ctrl_c_stays_ignored_where_it_was():
    code = (
        BETWEEN
        + "signal.signal(signal.SIGINT, signal.SIG_IGN); without_traceback(); press(); print('on', file=sys.stderr)"
    )
    assert outcome(code) == (0, "on\n")


def outcome(code: str) -> tuple[int, str]:
    """Exit code and stderr."""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr
