"""Make the pictures of README.md (before, after) and of the model card (failures): public-domain photos, simulated backlight."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SEED = 4
# sample picture (public domain or CC0): stops lost by the foreground, its share, stops gained by the rest, noise
SHOWN = {
    "astronaut.png": (2.8, 0.92, 0.0, 0.0),
    "chelsea.png": (2.8, 0.92, 0.0, 0.0),
    "rocket.jpg": (2.8, 0.92, 0.0, 0.0),
}
FAILURES = {
    "astronaut.png": (4.5, 0.92, 0.3, 0.0015),
    "chelsea.png": (2.0, 0.5, 0.3, 0.0),
    "coffee.png": (3.5, 1.0, 0.0, 0.001),
}
FILES = {"docs/results/before_after.png": SHOWN, "docs/results/failures.png": FAILURES}


def main() -> None:
    import numpy as np
    import torch

    from common.paths import REPO_ROOT
    from configs.schema import InferenceModel
    from data.backlight import BacklightRanges, simulate_backlight
    from data.samples import sample_picture
    from serving.enhancer import Enhancer
    from training.tracking import photo_grid

    enhancer = Enhancer(REPO_ROOT / InferenceModel().checkpoint)
    for file, pictures in FILES.items():
        columns = []
        for name, (stops, share, gain, noise) in pictures.items():
            ranges = BacklightRanges(
                foreground_stops=(stops, stops),
                foreground_share=(share, share),
                background_stops=(gain, gain),
                noise=(noise, noise),
            )
            photo = torch.from_numpy(sample_picture(name).copy()).permute(2, 0, 1).float() / 255
            backlit = (
                simulate_backlight(photo, torch.Generator().manual_seed(SEED), ranges).photo.permute(1, 2, 0).numpy()
            )
            backlit = np.ascontiguousarray(backlit)
            columns.append(
                [np.rint(picture * 255).astype(np.uint8) for picture in (backlit, enhancer.enhance(backlit)[0])]
            )
        photo_grid(
            [list(row) for row in zip(*columns, strict=True)],
            ["", "backlit above, enhanced below", ""],
            REPO_ROOT / file,
            side=300,
        )


if __name__ == "__main__":
    main()
