"""How the code is divided, at any commit: files, lines, imports against the direction, import circles.

python -m lab.rooms [COMMIT ...] [--json FILE]     # default: the files as they are
"""

import argparse
import ast
import json
import subprocess
from collections.abc import Iterator
from pathlib import PurePosixPath

from common.cli import EXIT_OK, ArgumentParser, run
from common.errors import UserError
from common.files import write_text
from common.paths import REPO_ROOT

# who stands above whom: a room may import those of its own level and below
LEVELS = (
    ("common", "errors", "files"),
    ("configs", "data", "losses", "metrics", "models"),
    ("serving", "training"),
    ("scripts",),
    ("tools",),
    ("examples", "lab"),
)
METHOD = ("common", "configs", "data", "losses", "metrics", "models", "serving", "training", "scripts")
LEFT_OUT = ("tests", "docs")
SCRIPTS = ("commands", "compute_metrics", "inference", "train", "train_rave")


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", metavar="COMMIT")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    found = {_git("rev-parse", commit).strip(): measure(sources(commit)) for commit in args.commits} or {
        "now": measure(sources(None))
    }
    for commit, its in found.items():
        print(f"{commit}: {its['longest_of_the_method']}; circles: {its['circles'] or 'none'}")
        for room, row in its["rooms"].items():
            print(
                f"  {room:10} {row['files']:3} files {row['lines']:6} lines, upward: "
                f"{', '.join(row['upward']) or 'none'}"
            )
    if args.json:
        write_text(args.json, json.dumps(found, indent=2) + "\n")
    return EXIT_OK


def sources(commit: str | None) -> dict[str, str]:
    """Module name -> source text, of a commit, or of the files that git knows as they are (None)."""

    listed = _git("ls-tree", "-r", "--name-only", commit) if commit else _git("ls-files")
    paths = [PurePosixPath(line) for line in listed.splitlines() if line.endswith(".py")]
    texts = {}
    for path in paths:
        if path.parts[0] in LEFT_OUT or not (commit or (REPO_ROOT / path).is_file()):
            continue
        text = _git("show", f"{commit}:{path}") if commit else (REPO_ROOT / path).read_text(encoding="utf-8")
        texts[".".join(path.with_suffix("").parts).removesuffix(".__init__")] = text
    return texts


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(REPO_ROOT), *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"git {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def measure(texts: dict[str, str]) -> dict:
    """Rooms with their figures, the longest file of the method, and circles of modules that import each other."""
    graph = {module: sorted(set(_imports(module, text, texts)) - {module}) for module, text in texts.items()}
    rooms: dict[str, dict] = {}
    for module, text in texts.items():
        row = rooms.setdefault(room(module), {"files": 0, "lines": 0, "longest": 0, "upward": []})
        lines = len(text.splitlines())
        row["files"] += 1
        row["lines"] += lines
        row["longest"] = max(row["longest"], lines)
        row["upward"] += [f"{module} → {other}" for other in graph[module] if level(other) > level(module)]
    order = [name for names in LEVELS for name in names]
    method = {module: len(text.splitlines()) for module, text in texts.items() if room(module) in METHOD}
    longest = max(method, key=method.get)
    return {
        "rooms": {name: rooms[name] for name in order if name in rooms},
        "longest_of_the_method": {longest: method[longest]},
        "circles": circles(graph),
    }


def room(module: str) -> str:
    first = module.split(".")[0]
    return "scripts" if first in SCRIPTS else first


def level(module: str) -> int:
    return next((number for number, names in enumerate(LEVELS) if room(module) in names), len(LEVELS))


def _imports(module: str, text: str, known: dict[str, str]) -> Iterator[str]:
    """Modules of ours that one imports, in functions too; not those for type checkers alone."""
    tree = ast.parse(text)
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def circles(graph: dict[str, list[str]]) -> list[list[str]]:
    """Groups of modules of which each reaches each other by imports (strongly connected, two or more)."""

    def reached(start: str) -> set[str]:
        seen, todo = set(), list(graph.get(start, []))
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += graph.get(module, [])
        return seen

    reach = {module: reached(module) for module in graph}
    groups = {tuple(sorted({module} | {o for o in reach[module] if module in reach[o]})) for module in graph}
    return [list(group) for group in sorted(groups) if len(group) > 1]


if __name__ == "__main__":
    run(main)
