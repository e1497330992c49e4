"""Rules of the code base: who may import whom, nothing runs at import, nothing is unsafe."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = ("common", "models", "losses", "data", "metrics")
SOURCES = sorted(p for p in ROOT.rglob("*.py") if not {".venv", "tests", "runs"} & set(p.relative_to(ROOT).parts))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


SCRIPTS = ("train", "train_rave", "inference", "compute_metrics", "commands")


@pytest.mark.parametrize("package", LEAVES)
def test_leaf_packages_do_not_know_those_above(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not imports(path) & {"training", "serving", "configs", "tools", "lab", *SCRIPTS}, path


def test_common_knows_no_other_package():
    others = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()} - {"common"}
    for path in (ROOT / "common").rglob("*.py"):
        assert not imports(path) & others, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_modules_only_define_things_at_import(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        is_guard = isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        ok = isinstance(node, allowed) or is_guard or is_docstring
        assert ok, f"{path}:{node.lineno}: {ast.unparse(node)[:80]}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_unsafe_or_silent(path):
    text = path.read_text(encoding="utf-8")
    assert ".cuda(" not in text
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}: bare except"
            assert not all(isinstance(statement, ast.Pass) for statement in node.body), (
                f"{path}:{node.lineno}: swallowed exception"
            )


@pytest.mark.parametrize("script", [f"{script}.py" for script in SCRIPTS[:4]])
def test_help_and_config_errors_come_before_torch(script):
    code = (
        f"import sys; sys.argv = ['{script}', '--set', 'nope=1']; import runpy\ntry: "
        f"runpy.run_path('{script}', run_name='__main__')\n"
    )
    code += "except SystemExit as e: print(e.code, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.stdout.strip().endswith("2 False"), result.stdout + result.stderr
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert shown.returncode == 0
    assert "--cfg" in shown.stdout


@pytest.mark.parametrize(
    "command", ["train.py", "train_rave.py", "inference.py", "compute_metrics.py", "-m tools", "-m serving.app"]
)
def test_help_imports_next_to_nothing(command):
    shown = [sys.executable, "-X", "importtime", *command.split(), "--help"]
    done = subprocess.run(shown, capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in loaded
    assert not loaded & {"torch", "numpy", "PIL", "pydantic", "yaml", "tqdm", "accelerate", "skimage", "openvino"}
