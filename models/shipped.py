"""Which file a name of weights means, and which of the shipped ones are the enhancement network. Without PyTorch."""

from pathlib import Path

from common.errors import UserError
from common.files import open_file
from common.paths import REPO_ROOT, find_file

SHIPPED = REPO_ROOT / "pretrained_models"
OF_THE_NETWORK = "cond_add1.weight"  # a tensor that no other network of ours has


def shipped_unets() -> list[str]:
    """Names of the `.safetensors` files in `pretrained_models` that hold the enhancement network, by their headers."""
    return sorted(path.name for path in SHIPPED.glob("*.safetensors") if _holds_network(path))


def find_weights(value: str, key: str) -> Path:
    """A weight file named in a config, as `find_file`; a name alone may be that of a shipped one. Raises UserError."""

    def hint() -> str:
        return f" (shipped: {', '.join(names)})" if Path(value).name == value and (names := shipped_unets()) else ""

    return find_file(value, key, SHIPPED / value, hint=hint)


def _holds_network(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        open_file(path).close()  # refuses a pipe, which would be waited for
        with safe_open(path, framework="np") as file:
            return any(name.rpartition("module.")[2] == OF_THE_NETWORK for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError, UserError):  # who loads it is told why
        return False
