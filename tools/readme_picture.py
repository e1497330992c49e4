"""Make the before/after picture of README.md: public-domain photos, simulated backlight, the shipped weights."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PICTURES = ("astronaut.png", "chelsea.png", "rocket.jpg")  # public domain and CC0
SEED = 4
OUT = Path("docs/results/before_after.png")


def main() -> None:
    import numpy as np
    import torch

    from configs.load import REPO_ROOT
    from configs.schema import InferenceModel
    from data.backlight import BacklightRanges, simulate_backlight
    from data.samples import sample_picture
    from serving.enhancer import Enhancer
    from training.tracking import photo_grid

    enhancer = Enhancer(REPO_ROOT / InferenceModel().checkpoint)
    ranges = BacklightRanges(foreground_stops=(2.8, 2.8), foreground_share=(0.92, 0.92), background_stops=(0.0, 0.0))
    columns = []
    for name in PICTURES:
        photo = torch.from_numpy(sample_picture(name).copy()).permute(2, 0, 1).float() / 255
        backlit = simulate_backlight(photo, torch.Generator().manual_seed(SEED), ranges).photo.permute(1, 2, 0).numpy()
        backlit = np.ascontiguousarray(backlit)
        columns.append([np.rint(picture * 255).astype(np.uint8) for picture in (backlit, enhancer.enhance(backlit)[0])])
    photo_grid([list(row) for row in zip(*columns, strict=True)], ["", "backlit above, enhanced below", ""], REPO_ROOT / OUT, side=300)


if __name__ == "__main__":
    main()
