"""Tools for users.

python -m tools                  # this list
python -m tools NAME [...]       # run one; --help tells what it takes
"""

if __name__ == "__main__":  # before other imports: Ctrl-C in the middle of them is no traceback
    from common.interrupt import without_traceback

    without_traceback()

import ast
import importlib
import sys
from pathlib import Path

from common.cli import EXIT_OK, run
from common.errors import UserError


def names() -> dict[str, str]:
    """Name of each tool, as typed -> the first sentence of its docstring. Nothing is imported for it."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("_"))
    docs = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    return {stem.replace("_", "-"): " ".join(doc.split("\n\n")[0].split()) for stem, doc in docs.items() if doc}


def main(argv: list[str]) -> int:
    tools = names()
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "") + "\n" + "\n".join(f"  {name:19} {what}" for name, what in tools.items()))
        return EXIT_OK
    name = argv[0].replace("_", "-")
    if name not in tools:
        raise UserError(f"tools: expected one of {', '.join(tools)}; found {argv[0]}")
    sys.argv = [f"{sys.argv[0]} {name}", *argv[1:]]  # what --help and records of results name
    return importlib.import_module(f"tools.{name.replace('-', '_')}").main(argv[1:])


if __name__ == "__main__":
    run(main)
