"""Progress: a bar on a terminal, lines in a log, nothing where quiet was asked for; colours on a terminal alone."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from common.console import quietly, say
from common.paths import REPO_ROOT
from common.progress import Progress, duration, track


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (48.2, "48 s"),
        (59.7, "1 min 0 s"),
        (725, "12 min 5 s"),
        (12000, "3 h 20 min"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_a_log_has_a_line_now_and_then(capsys):
    with Progress("rave", 20, "it", every=0) as progress:
        progress.note = "loss 1.5"
        progress.add(5)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("rave: 5 of 20 iterations (25 %), loss 1.5, ") and "it/s" in line and line.endswith("s left")
    assert progress.ended().startswith("rave: 5 iterations in 0.0 s, loss 1.5, ")
    with Progress("photos", 20, every=60) as progress:
        progress.add(19)
    assert capsys.readouterr().out == ""  # not every photo is news
    assert list(track([1, 2], "looking")) == [1, 2] and capsys.readouterr() == ("", "")


def test_the_time_left_is_guessed_by_bytes(monkeypatch):
    clock = iter([0.0, 10.0, 10.0, 30.0, 30.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress("enhancing", 3, sizes=[100, 100, 800])
    progress.done = 1
    assert progress.line() == "enhancing: 1 of 3 photos (10 % of their bytes), 10.0 s/photo, 1 min 30 s left"
    progress.done, progress.part = 2, 0.5
    assert progress.line() == "enhancing: 2 of 3 photos (60 % of their bytes), 12.0 s/photo, 20 s left"


def test_work_that_begins_anew_is_measured_anew():
    progress = Progress("start", 10, "it", done=6)
    assert progress.rate() == ""
    progress.at(8)
    assert progress.ended().startswith("start: 8 iterations, the last 2 in")
    progress.at(0, total=14)
    assert (progress.done, progress.total, progress.rate()) == (0, 14, "")


def test_quiet_leaves_notes_and_failures(capsys):
    with quietly(True), Progress("rave", 20, every=0) as progress:
        progress.add()
        say("told")
        say("failed: a", file=sys.stderr)
        with quietly(False):
            say("nor here")
    say("after")
    assert capsys.readouterr() == ("after\n", "failed: a\n")


PROGRAM = r"""
from common.cli import run
from common.console import note, say
from common.errors import UserError
from common.progress import track

def main(argv):
    for _ in track(range(3), "photos\x1b[2J"):
        say("told")
    note("of \x1b[31mred")
    raise UserError("wrong")

run(main)
"""


def on_a_terminal(**environment: str) -> bytes:
    """What the program writes to a terminal, on which stdout and stderr are one."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    known = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | environment
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=side, stderr=side, stdin=side, cwd=REPO_ROOT, env=known
    )
    os.close(side)
    text = b""
    while True:
        try:
            block = os.read(main, 65536)
        except OSError:  # how Linux tells the end
            break
        if not block:
            break
        text += block
    os.close(main)
    assert process.wait(30) == 2
    return text


def test_colours_and_bars_on_a_terminal_alone():
    shown = on_a_terminal()
    assert b"\x1b[31merror\x1b[0m: wrong" in shown and b"\x1b[33mnote\x1b[0m: of \\x1b[31mred" in shown
    assert b"3/3" in shown or b"0/3" in shown
    assert b"\x1b[2J" not in shown and shown.count(b"told") == 3
    plain = on_a_terminal(NO_COLOR="1")
    assert b"error: wrong" in plain and b"\x1b[3" not in plain
