"""What the web page shows and gives away: previews, maps, files, figures. Knows no web.

A photo's map is computed once for each set of weights and kept as a file; every strength comes from it.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import DiskFull, writing
from common.paths import REPO_ROOT
from data.images import read_photo, read_rgb8
from data.images.photo import to_integers
from models.shipped import SHIPPED, shipped_unets
from serving.enhancer import Enhancer
from serving.finish import PLAIN, Finish
from serving.jobs import plan_outputs
from serving.pipeline import Options, enhance_files
from serving.strength import Strength

SCREEN = 1280  # pixels; longer side of what is shown
KEPT_MAPS = 16  # photos whose maps stay on the disk
COMMON_TOKENS = 6000  # of CLIP's vocabulary, which begins with the most frequent
ENCODERS = {
    "mini-clip (shipped, reads texts)": ("mini-clip", "pretrained_models/mini-clip.safetensors"),
    "efficientnet-lite0 (names of 1,000 classes)": ("efficientnet-lite0", "imagenet"),
}

Progress = Callable[[float], None]


@dataclass(frozen=True)
class View:
    """A photo at screen size: `photo` (h,w,3) uint8 and its map (h,w) float32."""

    photo: np.ndarray
    illumination: np.ndarray


def weight_files() -> list[str]:
    """Names of the files in `pretrained_models` that may be an enhancement network, the default first."""
    return sorted([*shipped_unets(), *(path.name for path in SHIPPED.glob("*.pth"))])  # those show it when loaded


class Studio:
    """Photos of one server. `work`: a folder of its own for maps and results. Threads take turns at the network."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._turn = threading.Lock()
        self._enhancers: dict[str, Enhancer] = {}
        self._views: dict[tuple[str, str], View] = {}

    def enhancer(self, weights: str) -> Enhancer:
        """The network of a file in `pretrained_models`. Raises UserError for other names and unusable files."""
        if weights not in weight_files():
            raise UserError(f"weights: expected one of {', '.join(weight_files())}, found {weights}")
        if weights not in self._enhancers:
            self._enhancers[weights] = Enhancer(SHIPPED / weights)
        return self._enhancers[weights]

    def view(self, photo: str, weights: str, progress: Progress | None = None) -> View:
        """The photo and its map at screen size. Raises ImageError for a file that is not a photo."""
        with self._turn:
            if (photo, weights) not in self._views:
                rgb = read_photo(photo, integers=True).rgb
                illumination = self._map(photo, weights, rgb, progress)
                height, width = rgb.shape[:2]
                scale = min(1.0, SCREEN / max(height, width))
                size = max(1, round(width * scale)), max(1, round(height * scale))
                small = Image.fromarray(to_integers(rgb, np.uint8)).resize(size, Image.Resampling.BOX)
                shown = Image.fromarray(np.asarray(illumination)).resize(size, Image.Resampling.BOX)
                self._views[photo, weights] = View(np.array(small), np.array(shown))
                while len(self._views) > KEPT_MAPS:
                    gone = next(iter(self._views))
                    del self._views[gone]
                    self._map_file(*gone).unlink(missing_ok=True)
            return self._views[photo, weights]

    def result(self, view: View, weights: str, strength: Strength, finish: Finish = PLAIN) -> np.ndarray:
        """The enhanced photo at screen size, (h,w,3) uint8. The network does not run."""
        return self.enhancer(weights).relight(view.photo, view.illumination, strength, finish)

    def write(
        self,
        photos: Sequence[str],
        weights: str,
        strength: Strength,
        progress: Progress | None = None,
        finish: Finish = PLAIN,
    ) -> tuple[list[str], list[str]]:
        """Results at full size, with the bytes that `inference.py` writes: their paths, and a line for each that
        failed.
        """
        written, failed = [], []
        for number, photo in enumerate(photos):
            key = hashlib.sha256(f"{photo}|{weights}|{strength}|{finish}".encode()).hexdigest()[:16]
            (job,) = plan_outputs([photo], self._work / "results" / key)

            def shown(done: float, number: int = number) -> None:
                if progress:
                    progress((number + done) / len(photos))

            try:
                with self._turn:
                    mapped = _Mapped(self, photo, weights, shown)
                    outcome = enhance_files([job], mapped, Options(strength=strength, finish=finish))
            except UserError as error:  # such as a full disk; what was written before is given all the same
                failed.append(told(error, photo, job.target))
                continue
            written += [str(job.target)] if outcome.enhanced else []
            failed += [f"{Path(photo).name}: {reason}" for _, reason in outcome.failures]
        return written, failed

    def _map(self, photo: str, weights: str, rgb: np.ndarray, progress: Progress | None) -> np.ndarray:
        file = self._map_file(photo, weights)
        if not file.exists():
            illumination = self.enhancer(weights).illumination(rgb, progress)
            try:
                with writing(file) as temporary:
                    temporary.write_bytes(illumination.data)  # np.save does not tell that the disk is full
            except DiskFull:
                raise DiskFull(f"{photo}: expected room on the disk for its illumination map, found none") from None
        return np.memmap(file, np.float32, "r", shape=rgb.shape[:2])

    def _map_file(self, photo: str, weights: str) -> Path:
        return self._work / "maps" / f"{hashlib.sha256(f'{photo}|{weights}'.encode()).hexdigest()}.f32"


class _Mapped(Enhancer):
    """An enhancer of one photo whose map may be there already."""

    def __init__(self, studio: Studio, photo: str, weights: str, progress: Progress) -> None:
        self.choice = studio.enhancer(weights).choice
        self._studio, self._photo, self._weights, self._progress = studio, photo, weights, progress

    def enhance(
        self,
        rgb: np.ndarray,
        strength: Strength = 1.0,
        *,
        keep_map: bool = True,
        finish: Finish = PLAIN,
        progress: Progress | None = None,  # the page has its own
    ) -> tuple[np.ndarray, np.ndarray | None]:
        illumination = np.array(self._studio._map(self._photo, self._weights, rgb, self._progress))
        result = self._studio.enhancer(self._weights).relight(rgb, illumination, strength, finish)
        return result, illumination if keep_map else None


def told(error: UserError, *files: str | Path | None) -> str:
    """The error's line, naming the files as the user does and not by where the server keeps them."""
    text = str(error)
    for file in filter(None, files):
        text = text.replace(str(file), Path(file).name)
    return text


def measured(result: str, truth: str) -> tuple[list[list[str]], str]:
    """Rows of protocol, PSNR, SSIM, LPIPS of a result against its ground truth, and why LPIPS is missing, or "".

    Raises UserError where they differ in size.
    """
    from metrics.full_reference import Lpips, measure_paper, measure_rgb

    lpips = Lpips("auto")
    images = read_rgb8(result), read_rgb8(truth)
    rows = []
    for name, measure in (("rgb", measure_rgb), ("paper", measure_paper)):
        values = measure(*images, lpips)
        rows.append([name, *(_figure(values[key], digits) for key, digits in (("psnr", 2), ("ssim", 4), ("lpips", 4)))])
    return rows, f"LPIPS: {lpips.reason}" if lpips.reason else ""


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


@dataclass(frozen=True)
class Reading:
    """Where photos lie along a direction of light, and the words near it. Cosines, in [-1, 1]."""

    projections: list[list[str]]
    words: list[list[str]]


def read_direction(
    photo: np.ndarray, enhanced: np.ndarray, encoder: str, dark: str, bright: str, saved: str | None
) -> Reading:
    """Project a photo and its result, (h,w,3) uint8, onto a direction: a saved one, or from the words `dark` to
    `bright`.

    Raises UserError for words that the encoder does not know or that mean the same, and for files that hold no
    direction of its space.
    """
    import torch

    from losses.residual import between
    from training.directions import load_direction

    texts = [(text or "").strip() for text in (dark, bright)]
    differ = UserError(f"From, To: expected two texts of different meaning, found '{texts[0]}' and '{texts[1]}'")
    if not saved and not all(texts):
        raise differ
    network, vocabulary = _encoder(encoder)
    try:
        direction = load_direction(saved, network) if saved else between(network.embed_words(texts))
    except ValueError:  # of one embedding
        raise differ from None
    with torch.inference_mode():
        places = [
            float(network.embed_images(torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None] / 255)[0] @ direction)
            for rgb in (photo, enhanced)
        ]
    near, far = (vocabulary.nearest(direction, 12, whole_words=True, farthest=farthest) for farthest in (False, True))
    words = [[a.text, f"{a.cosine:+.3f}", b.text, f"{b.cosine:+.3f}"] for a, b in zip(near, far, strict=True)]
    rows = [
        ["photo", f"{places[0]:+.4f}"],
        ["result", f"{places[1]:+.4f}"],
        ["change", f"{places[1] - places[0]:+.4f}"],
    ]
    return Reading(rows, words)


@lru_cache(maxsize=2)
def _encoder(name: str) -> tuple:
    """The encoder, and a vocabulary to read directions of its space by."""
    from metrics.direction import Vocabulary
    from models.clip_encoder import load_clip

    model, pretrained = ENCODERS[name]
    file = REPO_ROOT / pretrained
    network = load_clip(model, str(file) if file.is_file() else pretrained)
    texts, whole = network.words()
    if network.has_text:
        texts, whole = texts[:COMMON_TOKENS], whole[:COMMON_TOKENS]
        return network, Vocabulary(texts, whole, network.embed_texts(texts, 512))
    return network, Vocabulary(texts, whole, network.vocabulary()[1])
