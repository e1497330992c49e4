import json
import os
import platform
import signal
import subprocess
import sys

import pytest

from common.errors import UserError
from common.lock import Lock

HOLD = "import sys, time; from common.lock import Lock; Lock(sys.argv[1], 'run').acquire(); print('held', flush=True); "


def holder(path, then="time.sleep(60)"):
    process = subprocess.Popen([sys.executable, "-c", HOLD + then, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_has_it_and_a_killed_ones_lock_is_taken_over(tmp_path):
    process = holder(tmp_path / "lock")
    with pytest.raises(
        UserError,
        match=rf"^runs/a: expected no other process at it, found process {process.pid} on {platform.node()} since 2",
    ):
        Lock(tmp_path / "lock", "runs/a").acquire()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Lock(tmp_path / "lock", "runs/a") as lock:
        assert f"process {process.pid} on {platform.node()}, which ended without" in lock.note
    assert not (tmp_path / "lock").exists()


def test_children_of_a_killed_process_do_not_keep_its_lock(tmp_path):
    process = holder(
        tmp_path / "lock", "import os; child = os.fork() or time.sleep(60); print(child, flush=True); time.sleep(60)"
    )
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        Lock(tmp_path / "lock", "run").acquire().release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_twice_in_one_process_and_again_after_release(tmp_path):
    first = Lock(tmp_path / "sub" / "lock", "run").acquire()
    assert first.note is None
    with pytest.raises(UserError, match=f"found process {os.getpid()} on"):
        Lock(tmp_path / "sub" / "lock", "run").acquire()
    first.release()
    with Lock(tmp_path / "sub" / "lock", "run") as again:
        assert again.note is None
    again.release()  # without effect


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "elsewhere", "process": 1, "since": "then"}'])
def test_a_file_that_nobody_holds_is_no_lock(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    with Lock(tmp_path / "lock", "run") as lock:
        assert bool(lock.note) == ("elsewhere" in content)
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()


def test_where_it_cannot_be_written_one_line_tells(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        Lock(tmp_path / "file" / "lock", "run").acquire()
