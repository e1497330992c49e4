import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from common.errors import UserError
from common.files import (
    PART,
    DiskFull,
    append_line,
    check_file,
    check_folder,
    file_digest,
    make_folder,
    open_file,
    own_folder,
    read_file,
    remove_stale,
    write_text,
    writing,
)
from tests.faults import as_nobody, room_for, special_files


@pytest.mark.parametrize("read", [open_file, read_file, file_digest])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, read):
    for what, path in special_files(tmp_path).items():
        with pytest.raises(UserError, match=f"^{path}: expected a file, found {what}$"):
            read(path)


def test_a_folder_that_may_not_be_entered_is_told_as_that():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may not be entered either
        Path(folder).chmod(0o755)
        (Path(folder) / "shut").mkdir(mode=0o700)
        with as_nobody(), pytest.raises(UserError, match=r"shut: expected a folder that may be entered"):
            open_file(f"{folder}/shut")


def test_files_above_the_limit_are_refused_before_they_are_read(tmp_path):
    with (tmp_path / "sparse.tif").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(
        UserError, match=r"expected a file of at most 2,147,483,648 bytes, found one of 1,099,511,627,776"
    ):
        read_file(tmp_path / "sparse.tif")


def test_the_bytes_of_a_regular_file_are_read_also_behind_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    assert read_file(tmp_path / "b") == b"abc"
    assert file_digest(tmp_path / "b").startswith("ba7816bf")
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "c")


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "sub" / "a.txt"
    with writing(target) as temporary:
        temporary.write_text("one")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), writing(target) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_follow_the_umask_also_where_a_library_does_not(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with writing(tmp_path / "a.safetensors", durable=True) as temporary:
            safetensors.torch.save_file({"a": torch.zeros(1)}, temporary)  # makes files that only their owner may read
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode


def _text(temporary: Path) -> None:
    temporary.write_text("x" * 100_000)


def _weights(temporary: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(100_000)}, temporary)


def _archive(temporary: Path) -> None:
    with temporary.open("wb") as file:
        torch.save({"a": torch.zeros(100_000)}, file)


@pytest.mark.parametrize("write", [_text, _weights, _archive])
def test_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path, write):
    target = tmp_path / "a"
    target.write_text("before")
    with (
        room_for(50_000),
        pytest.raises(DiskFull, match=rf"^{target}: cannot be written: {os.strerror(errno.EFBIG)}; what was there"),
        writing(target) as temporary,
    ):
        write(temporary)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_line_is_added_whole_or_not_at_all(tmp_path):
    file = tmp_path / "lines"
    append_line(file, "one")
    with room_for(50_000), pytest.raises(DiskFull, match="cannot be written"):
        append_line(file, "x" * 100_000)
    append_line(file, "two")
    assert file.read_text() == "one\ntwo\n"


def test_a_line_that_a_stop_cut_off_does_not_take_the_next_one_with_it(tmp_path):
    (tmp_path / "lines").write_text('{"name": "9.png", "by')
    append_line(tmp_path / "lines", "one")
    append_line(tmp_path / "lines", "two")
    assert (tmp_path / "lines").read_text() == '{"name": "9.png", "by\none\ntwo\n'


def test_a_line_is_added_to_regular_files_only_without_waiting(tmp_path):
    for what, path in special_files(tmp_path).items():
        with pytest.raises(UserError, match=f"^{path}: cannot be written: expected a file, found {what}$"):
            append_line(path, "one")


def test_what_cannot_be_written_for_other_reasons_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for target, reason in (
        (tmp_path / "file" / "a", os.strerror(errno.ENOTDIR)),
        (tmp_path / ("n" * 300), os.strerror(errno.ENAMETOOLONG)),
        (tmp_path, "found a folder"),
        (Path("/proc/nothing/a"), os.strerror(errno.ENOENT)),
    ):
        with pytest.raises(UserError, match=reason) as error:
            write_text(target, "")
        assert str(target) in str(error.value)


def test_devices_are_never_replaced_by_files(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(UserError, match="expected a file, found a device"):
        write_text(tmp_path / "null", "")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)


def test_errors_of_the_block_that_are_not_about_the_file_pass(tmp_path):
    with pytest.raises(FileNotFoundError), writing(tmp_path / "a"):
        Path("/nowhere/else").read_text()
    assert not list(tmp_path.iterdir())


def test_unfinished_files_of_killed_processes_are_removed_by_the_next_that_writes_there(tmp_path):
    code = (
        "import os, sys; from common.files import writing\n"
        "with writing(sys.argv[1] + '/a.txt') as file: file.write_text('half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    (left,) = tmp_path.glob(f"{PART}*")
    with writing(tmp_path / "b.txt") as mine:
        assert not left.exists()
        assert remove_stale(tmp_path) == []  # mine is not stale
        assert mine.exists()


FOLDER_UNTIL_STOPPED = """
import sys, time
from common.cli import run
from common.files import own_folder
from common.interrupt import sigterm_too

def main(argv):
    sigterm_too()
    with own_folder("x-") as folder:
        (folder / "photo").write_text("")
        print(folder, flush=True)
        time.sleep(60)

run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_folder_of_ones_own_goes_with_its_process_or_at_the_next_start(tmp_path, monkeypatch, number):
    (tmp_path / "x-00000000-1-ab").mkdir()  # another machine's
    command = [sys.executable, "-c", FOLDER_UNTIL_STOPPED]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        folder = Path(process.stdout.readline().decode().strip())
        assert folder.parent == tmp_path and folder.is_dir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with own_folder("x-") as mine:
            assert mine.is_dir() and folder.is_dir()  # its process runs
        process.send_signal(number)
        process.wait(30)
        assert number == signal.SIGKILL or process.stderr.read() == b"stopped\n"
    assert folder.is_dir() == (number == signal.SIGKILL)
    with own_folder("x-") as mine:
        assert {path.name for path in tmp_path.iterdir()} == {"x-00000000-1-ab", mine.name}


def test_unfinished_files_of_other_machines_are_kept_for_a_day(tmp_path):
    recent, old = tmp_path / f"{PART}00000000-1-ab.npy", tmp_path / f"{PART}0123456789abcdef.npy"
    for file in (recent, old):
        file.write_text("")
    os.utime(old, (0, 0))
    assert remove_stale(tmp_path) == [old]
    assert recent.exists()


@pytest.mark.parametrize("name", [f"{PART}holiday.png", f"{PART}00000000-1-ab.png", f"{PART}0123456789abcdef.a.png"])
def test_a_users_file_that_is_named_like_an_unfinished_one_stays(tmp_path, name):
    (tmp_path / name).write_text("mine")
    os.utime(tmp_path / name, (0, 0))
    assert remove_stale(tmp_path) == [] and (tmp_path / name).read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_a_link_of_the_system_is_not_replaced(tmp_path):
    told = pytest.raises(UserError, match="expected a file, found a link of the system")
    with (tmp_path / "file").open("w") as file, told:  # as /dev/stdout is, where output goes into a file
        write_text(f"/proc/self/fd/{file.fileno()}", "text")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("check", [check_folder, make_folder, lambda path, key: check_file(f"{path}/a.txt", key)])
def test_what_cannot_be_written_is_told_without_writing(tmp_path, check):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").symlink_to("nowhere")
    for path, why in (
        ("/proc/x", "/proc: no file can be made there"),
        (tmp_path / "file", "Not a directory"),
        (tmp_path / "file/a/b", f"{tmp_path}/file: Not a directory"),
        (tmp_path / "broken", "no file can be made there"),
        (tmp_path / ("n" * 256), "File name too long"),
    ):
        with pytest.raises(UserError, match=rf"^--out: .*(found|cannot be written).*{why}$"):
            check(path, "--out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "file"]


def test_a_folder_without_rights_cannot_be_written(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with as_nobody(), pytest.raises(UserError, match=r"--out: expected a folder .*: Permission denied"):
            check_folder(f"{folder}/new/sub", "--out")
    check_folder(tmp_path / "new/sub", "--out")
    check_file(tmp_path / "new/a.txt", "--out")
    assert not [*tmp_path.iterdir()]
    (tmp_path / "pipe").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", "/dev/fd/0" if Path("/dev/fd/0").is_file() else "/dev/null"):
        with pytest.raises(UserError, match=r"^--json: .*cannot be written: expected a file"):
            check_file(path, "--json")
