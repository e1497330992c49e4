"""The documents say what is there: tables come from the JSON files, links lead somewhere, commands and keys exist."""

import ast
import importlib
import re
import shlex
import subprocess

import pytest
from PIL import Image, ImageStat

from common.errors import UserError
from common.paths import REPO_ROOT
from lab.bench.table import training_speed
from lab.report import DOCUMENTS as TABLED
from lab.report import filled
from lab.sources import each_measured_on
from tools.__main__ import names

MORE = ("CONTRIBUTING.md", "CHANGELOG.md", "lab/README.md", "docs/photos/README.md", "pretrained_models/README.md")
DOCUMENTS = [*TABLED, *(REPO_ROOT / name for name in MORE)]
EACH = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.relative_to(REPO_ROOT).as_posix())
SCRIPTS = ("train", "train_rave", "inference", "compute_metrics")
LONG = ("quickstart", "compare-methods", "fetch-published", "export")  # they need no input, and start
# what the data of a command that reads photos is missing, in a folder where there is nothing
MISSING = (
    "expected a folder, found nothing there|expected a photo or folder|found nothing there|no such file|"
    "expected a folder that can be reached"
)
SECTIONS = "exp|data|train|unet_model|guidance_model|guidance|clip|loss|model|save|metrics"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    """Command lines of code blocks and of inline code, joined where a backslash continues them."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`((?:python|make|backlit-\w+) [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [*lines, *inline]


def calls(text: str) -> list[tuple[str, list[str]]]:
    """(script, or tool, arguments) of every command of this project."""
    found = []
    for line in commands(text):
        for match in re.finditer(r"(?:\b(\w+)\.py|-m tools ([a-z][\w-]*))([^'#|]*)", line):
            script, tool, rest = match.groups()
            if tool or script in SCRIPTS:
                found.append((tool or script, shlex.split(re.sub(r"\$\w+", "", rest))))
    return found


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_tables_are_those_of_the_json_files():
    for document in TABLED:
        text = document.read_text(encoding="utf-8")
        assert filled(text) == text, "run: python -m lab.report tables"


def test_training_cases_have_tables_once_they_are_measured():
    assert training_speed({}, each_measured_on) == []
    where = {
        "OMP_NUM_THREADS": None,
        "commit": "0123456789",
        "uncommitted_changes": False,
        "hardware": {"gpu": None, "cores": 2, "processor": "X"},
    }
    times = {"median": 2.0, "lowest": 1.0, "highest": 3.0, "peak_mb": 1500.0}
    step = {"side": 256, "batch": 4, "rows": {"baseline": times, "fp32": times | {"ratio": 1.5}}, **where}
    rows = {
        f"{job}, {n} processes": times | {"ratio": 1.9, "equal": "yes"}
        for job in ("inference", "training")
        for n in (1, 2)
    }
    steps, scaling = training_speed(
        {"rave256": step, "scaling": {"photos": 24, "rows": rows, **where}}, each_measured_on
    )
    assert (
        "| RAVE step, 256 px, batch 4 | the authors' | 2.00 |  | 1.5 GB |  |  |\n|  | fp32 | 2.00 | 1.5 | 1.5 GB |"
        in steps
    )
    assert "| RAVE step, quick-start config | 2.00 s | 2.00 s | 1.90 | yes |" in scaling


def test_captions_name_hardware_once_and_the_rows_that_differ():
    def case(commit: str, load: float = 0) -> dict:
        hardware = {"gpu": None, "cores": 2, "processor": "X"}
        return {
            "OMP_NUM_THREADS": None,
            "commit": commit,
            "uncommitted_changes": False,
            "hardware": hardware,
            "load": load,
        }

    rows = {"one": case("a"), "two": case("b", 4), "three": case("b")}
    assert each_measured_on(rows) == "2 cores of X, commits b, a (one), beside other work: two"
    assert each_measured_on({"one": case("a", 4)}) == "2 cores of X, commit a, beside other work"


@EACH
def test_links_and_named_files_exist(document):
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link
    named = set(
        re.findall(
            r"`((?:tools|lab|configs|training|data|models|losses|serving|tests|common)/[\w/]+\.(?:py|yaml|txt|json))`",
            text,
        )
    )
    if document.name not in ("CHANGELOG.md", "experiments.md"):  # which name what is gone
        assert [name for name in sorted(named) if "NAME" not in name and not (REPO_ROOT / name).exists()] == []


@EACH
def test_make_targets_and_tools_exist(document):
    makefile = (REPO_ROOT / "Makefile").read_text(encoding="utf-8")
    for command in commands(document.read_text(encoding="utf-8")):
        for target in re.findall(r"^make ([a-z-]+)", command):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), command
    tools = names()
    for tool in re.findall(r"python -m tools ([a-z][\w-]*)", document.read_text(encoding="utf-8")):
        assert tool in tools


@EACH
def test_paths_of_test_commands_exist(document):
    for command in commands(document.read_text(encoding="utf-8")):
        assert [path for path in re.findall(r"\btests/[\w/.]+", command) if not (REPO_ROOT / path).exists()] == []


def test_pages_that_list_files_list_all_of_them():
    listed = (REPO_ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert [path.name for path in REPO_ROOT.glob("requirements-*.txt") if path.name not in listed] == []
    listed = (REPO_ROOT / "lab/README.md").read_text(encoding="utf-8")
    scripts = [
        path for path in (REPO_ROOT / "lab").iterdir() if path.suffix == ".py" or (path / "__main__.py").exists()
    ]
    run = {path.stem for path in scripts if path.is_dir() or "__main__" in path.read_text(encoding="utf-8")}
    assert [name for name in sorted(run) if f"lab.{name}`" not in listed] == []


@EACH
def test_commands_are_understood(document, tmp_path, monkeypatch):
    """Each gets as far as the photos that are missing here: flags, configs and keys are right."""
    monkeypatch.chdir(tmp_path)
    found = calls(document.read_text(encoding="utf-8"))
    assert found or document.parent != REPO_ROOT or document.name != "README.md"
    for name, arguments in found:
        shown = f"{name} {' '.join(arguments)}"
        module = importlib.import_module(name if name in SCRIPTS else f"tools.{name.replace('-', '_')}")
        if name in LONG or not arguments:
            with pytest.raises(SystemExit) as stop:
                module.main(["--help"])
            assert stop.value.code == 0, shown
            continue
        with pytest.raises(UserError) as error:
            module.main(arguments)
        assert "--help)" not in str(error.value), f"{shown}: {error.value}"
        assert re.search(MISSING, str(error.value)), f"{shown}: {error.value}"


@EACH
def test_config_keys_exist(document):
    reference = (REPO_ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    keys = set(re.findall(rf"`((?:{SECTIONS})\.[a-z0-9_.]+)`", reference))
    known = {key.rsplit(".", depth)[0] for key in keys for depth in range(key.count(".") + 1)}
    if document.name == "experiments.md":
        return  # its table leaves out the first part of a key
    for key in re.findall(rf"`((?:{SECTIONS})\.[a-z0-9_.]+)[:` ]", document.read_text(encoding="utf-8")):
        is_code = (REPO_ROOT / key.split(".")[0] / key.split(".")[1]).exists() or key.endswith((".py", ".jsonl"))
        is_code = is_code or (REPO_ROOT / key.split(".")[0] / f"{key.split('.')[1]}.py").exists()
        assert is_code or key in known, key


@EACH
def test_python_compiles(document):
    for block in blocks(document.read_text(encoding="utf-8"), "python"):
        ast.parse(block)


@pytest.mark.parametrize("name", ["README.md", "docs/enhance.md"])
def test_the_five_lines_of_python_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(REPO_ROOT / "docs")  # photos are those that a clone has; results stay out of it
    (code,) = blocks((REPO_ROOT / name).read_text(encoding="utf-8"), "python")
    defined = {}
    exec(code, defined)
    dark = Image.open(re.search(r"docs/photos/\w+\.jpg", code)[0])
    assert defined["result"].size == dark.size
    assert ImageStat.Stat(defined["result"]).mean[0] > ImageStat.Stat(dark).mean[0]


def test_what_the_first_command_writes_is_no_change_to_the_repository():
    if not (REPO_ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = re.search(r"python inference.py (\S+)", (REPO_ROOT / "README.md").read_text(encoding="utf-8"))
    written = [f"{command[1]}_{what}/room.jpg" for what in ("enhanced", "enhanced_side_by_side")]
    ignored = subprocess.run(
        ["git", "check-ignore", *written], cwd=REPO_ROOT, capture_output=True, text=True, check=False
    )
    assert ignored.stdout.split() == written


@EACH
def test_commands_that_read_the_papers_photos_say_so(document):
    """Of `rave.yaml`, whose folders a user who is only looking does not have."""
    text = document.read_text(encoding="utf-8")
    for found in re.finditer(r"interpret-residual --cfg rave\.yaml(?P<more>[^`\n]*)", text):
        assert "backlit_images_path=" in found["more"] or "BAID" in text[found.start() :][:400], found[0]


def test_the_map_of_the_rooms_names_what_is_there():
    text = (REPO_ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|(.*)$", text, re.MULTILINE)
    assert len(rows) >= 8
    for room, row in rows:
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", row):
            assert (REPO_ROOT / room / name).exists(), f"{room}/{name}"
        there = {path.name for path in (REPO_ROOT / room).glob("*.py")} - {"__init__.py", "__main__.py"}
        missing = [name for name in sorted(there) if f"`{name}`" not in row]
        assert not missing, f"{room}/: {', '.join(missing)}"


def test_the_readme_fits_its_screens():
    assert len((REPO_ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
