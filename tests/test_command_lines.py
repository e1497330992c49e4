"""Whatever stands on a command line or in a config: an exit code that says what came of it, one line, no traceback."""

import contextlib
import importlib
import io
import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.cli import exit_code
from common.console import visible
from configs.load import all_keys
from configs.schema import InferenceConfig, MetricsConfig, TrainConfig

FLAGS = {
    "train": ["--resume"],
    "train_rave": ["--resume"],
    "inference": [
        "--input",
        "-o",
        "-c",
        "--strength",
        "--format",
        "--side-by-side",
        "--illumination",
        "--skip-existing",
    ],
    "compute_metrics": ["--gt", "--enhanced", "--json", "--csv", "--report", "--protocol", "--lpips"],
}
SCHEMAS = {"inference": InferenceConfig, "compute_metrics": MetricsConfig}
CHOSEN = [
    *(
        "",
        " ",
        ".",
        "null",
        "~",
        "true",
        "-1",
        "0",
        "1",
        "2024-31-12",
        "!!int x",
        "9" * 5000,
        "[" * 1000,
        "{a: [b",
        "*a",
        "&a x",
    ),
    *(
        "a: b",
        "[1, 2]",
        "[x, y]",
        "{a: 1}",
        "a/b",
        "photos",
        "photos/a.png",
        "n" * 256,
        "n/" * 3000,
        "\x1b[2J",
        "a\nb",
        "\u202egnp",
    ),
    *(
        "a.png",
        ".inf",
        "1e999",
        "é" * 150,
        "-",
        "--",
        "x=y",
        "$HOME",
        "photos\n",
        "fifo",
        "loop",
        "fifo/x",
        "a.json/x",
        "%s{}$x",
    ),
]
CONTENTS = [
    "",
    "exp:",
    "exp: {seed: 1}",
    "- a",
    "data: &d {input: a}\nmodel: *d",
    "save: {format: jpg}",
    "\ufeffexp: {}",
]


def _contained(value: str) -> str:
    """The value, but that it names nothing outside the current folder."""
    return value.lstrip("/~$").replace("..", "__") if set(value[:1]) & set("/~$") or ".." in value else value


values = st.one_of(
    st.sampled_from(CHOSEN),
    st.text(max_size=12),
    st.binary(max_size=8).map(lambda raw: os.fsdecode(raw.replace(b"\0", b""))),
    st.floats().map(str),
).map(_contained)


def command_lines(script: str) -> st.SearchStrategy[tuple[list[str], bytes]]:
    """(arguments, content of the file `c.yaml`)"""
    keys = st.one_of(st.sampled_from(all_keys(SCHEMAS.get(script, TrainConfig))), st.text(max_size=5))
    setting = st.tuples(keys, values).map(lambda pair: ["--set", f"{pair[0]}={pair[1]}"])
    flag = st.tuples(st.sampled_from(FLAGS[script]), values).map(list)
    config = st.one_of(values, st.just("c.yaml")).map(lambda name: ["--cfg", name])
    arguments = st.lists(st.one_of(setting, setting, setting, flag, config, values.map(lambda v: [v])), max_size=3)
    lines = st.lists(st.tuples(keys, values).map(lambda pair: "{}: {}".format(*pair)), max_size=2).map("\n".join)
    content = st.one_of(
        st.sampled_from(CONTENTS).map(str.encode),
        lines.map(lambda text: text.encode(errors="surrogateescape")),
        st.binary(max_size=40),
    )
    return st.tuples(arguments.map(lambda parts: [argument for part in parts for argument in part]), content)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for name in ("photos/a.png", "well_lit/b.png", "gt/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(folder / name)
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    return folder


BASE = {
    "train": ["--set", "data.backlit_images_path=photos", "--set", "data.welllit_images_path=well_lit"],
    "inference": ["photos"],
    "compute_metrics": ["--gt", "gt", "--enhanced", "photos", "--lpips", "off"],
}


def outcome(script: str, arguments: list[str], content: bytes, place: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a dry run, or of the measuring."""
    base = BASE.get(script, BASE["train"])
    main = importlib.import_module(script).main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        Path("c.yaml").write_bytes(content)
        dry = [] if script == "compute_metrics" else ["--dry-run"]
        try:
            code = exit_code(main, [*base, *arguments, *dry])
        except SystemExit as stop:  # --help
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def check(script: str, arguments: list[str], content: bytes, place: Path) -> None:
    code, _, err = outcome(script, arguments, content, place)
    lines = err.splitlines()
    assert code in (0, 2, 3), (code, err)
    assert [line.partition(":")[0] for line in lines].count("error") == (code == 2), err
    assert {line.partition(":")[0] for line in lines} <= {"error", "note", "failed"}, err
    assert [visible(line) for line in lines] == lines, err


@pytest.mark.parametrize("script", FLAGS)
@pytest.mark.parametrize("examples", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_any_command_line(script, examples, place):
    @settings(max_examples=examples, deadline=None, derandomize=examples == 60, database=None, print_blob=True)
    @given(command_lines(script))
    def each(line):
        check(script, *line, place)

    each()


@pytest.mark.parametrize("script", FLAGS)
@pytest.mark.parametrize("value", CHOSEN)
def test_chosen_values_in_every_flag(script, value, place):
    for flag in ("--cfg", *FLAGS[script]):
        check(script, [flag, _contained(value)], b"", place)


TOOLS = """
check_dataset --backlit V
check_dataset --backlit photos --gt V
check_dataset --backlit photos --image-size V
clean_cache V
clean_cache --cache-dir V
compare_runs V photos
compare_runs V V --report V
compare_weights --backlit V --gt gt --weights V
compare_weights --backlit photos --gt gt --weights V
compare_weights --backlit photos --gt gt --weights photos --list V
compare_weights --backlit photos --gt gt --weights photos --kinds V
compare_weights --backlit photos --gt gt --weights photos --json V
export --format V --output x.onnx
export --format onnx --output x.onnx --checkpoint V
interpret_residual --cfg V
make_backlit V out
run_report V
run_report photos --out V
make_backlit photos out --size V
make_backlit photos out --per-photo V
make_backlit photos out --masks V
make_backlit photos out --noise V V
near_duplicates V photos
near_duplicates photos V
"""


@pytest.mark.parametrize("line", TOOLS.strip().splitlines())
def test_chosen_values_in_the_flags_of_tools(line, place):
    tool, *arguments = line.split()
    main, err = importlib.import_module(f"tools.{tool}").main, io.StringIO()
    for value in map(_contained, CHOSEN):
        given_line = [value if argument == "V" else argument for argument in arguments]
        with contextlib.chdir(place), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            try:
                code = exit_code(main, given_line)
            except SystemExit as stop:  # --help
                code = stop.code
        lines = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
        assert code in (0, 2, 3) and len(lines) == (code == 2), (given_line, err.getvalue())
        shutil.rmtree(place / "out", ignore_errors=True)
        err.seek(err.truncate(0))


UNWRITABLE = """
inference photos -o file/x
inference photos -o out --side-by-side
inference photos -o out --illumination --dry-run
compute_metrics --gt gt --enhanced photos --lpips off --json file/x
compute_metrics --gt gt --enhanced photos --lpips off --csv file/x
compute_metrics --gt gt --enhanced photos --lpips off --report file/x
train_rave TRAIN --dry-run --set exp.save_dir=file
train_rave TRAIN --dry-run --set exp.save_dir=. --set exp.exp_name=file
train_rave TRAIN --dry-run --set exp.cache_dir=file/x
tools.compare_methods --out file
tools.compare_runs photos gt --report file/x
tools.compare_weights --backlit photos --gt gt --json file/x
tools.compare_weights --backlit photos --gt gt --sheet file/x
tools.enhance_ray --input photos --output file/x
tools.enhance_ray --input photos --output out --set save.side_by_side=true
tools.export --format torchscript --output file/x.pt
tools.fetch_published --out file --source photos
tools.interpret_residual TRAIN --out file/x
tools.make_backlit photos file
tools.near_duplicates photos gt --unseen file/x
tools.quickstart --set exp.save_dir=file
tools.run_report photos --out file/x
"""


@pytest.mark.parametrize("line", UNWRITABLE.strip().splitlines())
def test_what_cannot_be_written_is_told_before_any_work(line, place, tmp_path, monkeypatch, capsys):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True, ignore=lambda folder, names: {"fifo", "loop"} & {*names})
    monkeypatch.chdir(tmp_path)
    for name in ("file", "out_side_by_side", "out_illumination", "photos/config.yaml", "gt/config.yaml"):
        Path(name).write_text("exp: {exp_name: a}\n")
    script, *arguments = line.split()
    arguments = [part for argument in arguments for part in (BASE["train"] if argument == "TRAIN" else [argument])]
    before = sorted(tmp_path.rglob("*"))
    assert exit_code(importlib.import_module(script).main, arguments) == 2
    out, err = capsys.readouterr()
    assert (out, sorted(tmp_path.rglob("*"))) == ("", before)
    assert re.fullmatch(r"error: .*: expected a folder that can be written, found .*: Not a directory\n", err), err


EMPTY = [line for line in TOOLS.strip().splitlines() if "V" in line.split()] + ["interpret_residual --out V"]


@pytest.mark.parametrize("line", EMPTY)
def test_an_empty_value_is_no_value(line, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    tool, *arguments = ("" if part == "V" else part for part in line.split())
    assert exit_code(importlib.import_module(f"tools.{tool}").main, arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.search(r"expected a value, found an empty name|invalid \w+ value: ''|unrecognized", err), (
        err
    )


@pytest.mark.parametrize("script", FLAGS)
def test_an_empty_path_in_a_flag_or_a_config_is_told(script, place):
    keys = {"inference": "data.output", "compute_metrics": "metrics.json_file"}
    section, key = keys.get(script, "exp.cache_dir").split(".")
    code, out, err = outcome(script, ["--cfg", "c.yaml"], f'{section}: {{{key}: ""}}'.encode(), place)
    assert (code, out) == (2, "") and f"{section}.{key}: expected a path, found an empty name" in err
    for flag in {"--input", "-o", "-c", "--gt", "--enhanced", "--json", "--csv", "--report"} & {*FLAGS[script]}:
        code, out, err = outcome(script, [flag, ""], b"", place)
        assert (code, out) == (2, "") and "expected a value, found an empty name" in err
