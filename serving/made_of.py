"""What a result was made of: a text that stands for the photo, the weights and the settings."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from common import __version__
from common.files import file_digest, version_of
from configs.schema import InferenceConfig


def made_of(config: InferenceConfig, weights: Path, extras: Sequence[str] = ()) -> Callable[[str], str]:
    """The text (32 hexadecimal digits) by a photo's stamp, of results by these settings and weights.

    It does not depend on the processor or on tiles. extras: what the text says of pictures beside the result too, where
    these have no record of their own.
    """
    settings = json.dumps(
        [
            __version__,
            file_digest(weights),
            config.model.model_dump(exclude={"checkpoint", "device", "tile_size"}),
            config.save.model_dump(exclude={"skip_existing", "overwrite", "side_by_side", "illumination"}),
            config.data.model_dump(exclude={"input", "output"}),
            *extras,
        ]
    )
    return lambda stamp: hashlib.sha256(f"{settings} {stamp}".encode()).hexdigest()[:32]


def file_stamp(path: Path) -> str:
    """Stands for the content of a photo on a disk; "" where it is out of reach: whoever reads it will say so."""
    version = version_of(path)
    return f"{version[0]} {version[1]}" if version else ""
