"""Nothing from outside acts on a terminal or ends a line; the process survives readers that go away."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.console import one_line, print_json, visible
from common.paths import REPO_ROOT

HOSTILE = {
    "\x1b[2J": r"\x1b[2J",
    "a\nb": r"a\nb",
    "a\rb": r"a\rb",
    "a\u2028b\x85": r"a\u2028b\x85",
    "gpj.\u202egnp": r"gpj.\u202egnp",
    "\u2066\u200f\u061c": r"\u2066\u200f\u061c",
    "a\u200bb\ufeff": r"a\u200bb\ufeff",
    "caf\udce9": r"caf\udce9",
    "\x9b31m": r"\x9b31m",
    "\U000e0041": r"\U000e0041",
}
HARMLESS = ["a b", "ünï 写真 فارسی", "می\u200cخواهم", "👩\u200d🚀", "e\u0301", "100 %"]


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_what_acts_on_a_terminal_is_spelt_out(text, shown):
    assert one_line(text) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_people_s_names_stay_as_they_are(text):
    assert one_line(text) == text
    assert visible(f"{text}\n", keep="\n") == f"{text}\n"


def test_a_list_of_json_is_written_as_its_items_come(capsys):
    seen = []

    def items():
        for number in range(3):
            seen.append(capsys.readouterr().out)
            yield {"n": number, "name": "\udce9\n"}

    print_json({"photos": 3}, "results", items())
    whole = "".join(seen) + capsys.readouterr().out
    assert all(seen) and whole.endswith("]}\n") and whole.count("\n") == 1  # each was out before the next was made
    assert json.loads(whole) == {"photos": 3, "results": [{"n": n, "name": "\udce9\n"} for n in range(3)]}
    print_json({}, "none", [])
    assert json.loads(capsys.readouterr().out) == {"none": []}


PROGRAM = r"""
import sys, warnings
from tqdm import tqdm
from common.cli import run
from common.errors import UserError

def main(argv):
    name = "\x1b[2J\u202ex\r\udce9"
    print(name, end="\n")
    tqdm.write(name)
    for _ in tqdm(range(2), desc=name):
        pass
    warnings.warn(name)
    print("table\n  of lines")
    if argv == ["bug"]:
        raise ValueError(name)
    raise UserError(f"{name}\nsecond line")

run(main)
"""


@pytest.mark.parametrize("end", ["bug", "mistake"])
def test_every_way_to_the_terminal_goes_through_one_function(end):
    command = [sys.executable, "-c", PROGRAM, end]
    done = subprocess.run(command, capture_output=True, cwd=REPO_ROOT, check=False)
    both = done.stdout + done.stderr
    assert b"\x1b" not in both and "\u202e".encode() not in both and b"x\r" not in both
    assert done.stdout.decode().splitlines() == [r"\x1b[2J\u202ex\r\udce9"] * 2 + ["table", "  of lines"]
    assert b"\r\\x1b[2J" in done.stderr  # what moves the progress bar stays
    if end == "bug":
        assert done.returncode == 1 and rb"ValueError: \x1b[2J" in done.stderr
    else:
        assert done.returncode == 2
        assert done.stderr.decode().splitlines()[-1] == r"error: \x1b[2J\u202ex\r\udce9\nsecond line"


@pytest.mark.parametrize("end", ["table", "--help", "bug"])
def test_a_table_that_found_no_room_is_no_success(end):
    """As `ls > /dev/full`: one line and a code that is not 0; an error of another kind keeps its own."""
    program = """
from common.cli import ArgumentParser, run

def main(argv):
    if argv == ["--help"]:
        ArgumentParser().parse_args(argv)
    print("table")
    return 1 / 0 if argv == ["bug"] else 0

run(main)
"""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", program, end]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=REPO_ROOT, check=False)
    told = "error: standard output: cannot be written: No space left on device"
    assert done.returncode == (1 if end == "bug" else 2)
    assert done.stderr.splitlines().count(told) == (end != "bug")
