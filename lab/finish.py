"""What the choices of `serving.finish` do, in figures and in crops at 100 %.

python -m lab.finish --pairs ../shared/data/pairs [--json docs/results/finish.json] [--pictures docs/results]

On the validation pairs, with the default weights: highlights (score, how far hues turn where the plain clip cuts,
white pixels), noise (simulated sensor noise on darkened ground truths), real (blotches of JPEG and fine luma of the
dark photos), cast (colour of shadows against the ground truth's). On made pictures: dither (a ramp in steps of 8 bits),
halo (a dark and a bright half). Crops: of free photos.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from common.cli import EXIT_OK, ArgumentParser, run
from common.files import write_text
from common.paths import REPO_ROOT
from common.provenance import provenance

HIGHLIGHTS = ("clip", "hue", "shoulder")
DARK_STOPS, SENSOR_NOISE = 3.0, 0.003  # of the simulated noisy photos: light lost; read noise, of full scale
CROP = 200  # pixels
BAND_STOPS = 5.0  # of the photo that shows bands
CLIPPING = "pretrained_models/free.safetensors"  # of the highlights' crops: the default weights hardly clip
SHADE = 0.15  # of full scale: shadows are darker


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True, metavar="DIR", help="folder of backlit and ground_truth")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--pictures", metavar="DIR")
    args = parser.parse_args(argv)
    from serving import Enhancer

    enhancer = Enhancer(device="cpu", backend="torch", precision="fp32")
    found = measure(enhancer, Path(args.pairs))
    print(json.dumps(found, indent=2))
    if args.json:
        write_text(args.json, json.dumps(found | provenance(), indent=2) + "\n")
    if args.pictures:
        pictures(enhancer, Path(args.pictures))
    return EXIT_OK


def measure(enhancer, pairs: Path) -> dict:
    from data.images import read_rgb8
    from metrics.full_reference import psnr_rgb, ssim_rgb
    from metrics.harm import hue_error, newly_clipped
    from metrics.pairing import read_names
    from serving import Finish

    names = sorted(read_names(REPO_ROOT / "configs/splits/pairs_validation.txt", "pairs"))
    scores = {kind: [] for kind in HIGHLIGHTS}
    noise, real, casts = [], [], []
    for name in names:
        photo, truth = (read_rgb8(pairs / folder / name) for folder in ("backlit", "ground_truth"))
        illumination = enhancer.illumination(photo)
        for kind in HIGHLIGHTS:
            result = enhancer.relight(photo, illumination, 1.0, Finish(highlights=kind))
            figures = psnr_rgb(result, truth), ssim_rgb(result, truth)
            if kind == "clip":
                casts.append(_cast(photo, result, truth))
                cut = (result.max(axis=2) == 255) & (photo.max(axis=2) < 255)
            turned = hue_error(result[cut][None], photo[cut][None]) if cut.any() else float("nan")
            scores[kind].append((*figures, turned, newly_clipped(photo, result)))
        noise.append(_noise(enhancer, truth[:256, :256]))
        real.append(_real(enhancer, photo))
    keys = ("psnr", "ssim", "hue_turned", "clipped")
    return {
        "photos": len(names),
        "highlights": {kind: _means(keys, rows) for kind, rows in scores.items()},
        "noise": _means(("psnr_off", "psnr_auto"), noise),
        "real": _means(("blotches_off", "blotches_auto", "fine_kept"), real),
        "cast": _means(("shadows", "elsewhere"), casts),
        "dither": dithered_ramp(),
        "halo": halo(enhancer),
    }


def _means(keys: tuple[str, ...], rows: list[tuple[float, ...]]) -> dict[str, float]:
    return {key: round(float(np.nanmean(column)), 4) for key, column in zip(keys, zip(*rows, strict=True), strict=True)}


def _noisy(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h,w,3) uint8 -> the photo under-exposed, float32 without noise, and uint8 with a sensor's."""
    import torch

    from data.backlight import linear_to_srgb, srgb_to_linear

    light = srgb_to_linear(torch.from_numpy(photo.astype(np.float32) / 255)) * 2.0**-DARK_STOPS
    deviation = (SENSOR_NOISE**2 + SENSOR_NOISE * 0.02 * light).sqrt()  # read noise, and shot noise ~ signal
    noisy = light + deviation * torch.randn(light.shape, generator=torch.Generator().manual_seed(0))
    clean, noisy = (linear_to_srgb(image.clamp(0, 1)).numpy() for image in (light, noisy))
    return clean, np.rint(noisy * 255).astype(np.uint8)


def _noise(enhancer, truth: np.ndarray) -> tuple[float, float]:
    """PSNR, without and with denoising, against what the noise-free photo gives with the same map."""
    from serving import Finish
    from serving.finish import PLAIN

    clean, noisy = _noisy(truth)
    illumination = enhancer.illumination(noisy)
    aim = enhancer.relight(clean, illumination, 1.0)
    found = (enhancer.relight(noisy, illumination, 1.0, f) / 255 - aim for f in (PLAIN, Finish(denoise="auto")))
    return tuple(-10 * float(np.log10((error**2).mean())) for error in found)


def _real(enhancer, photo: np.ndarray) -> tuple[float, float, float]:
    """A dark photo as it came from JPEG: blotches of the result without and with denoising, and how much of its fine
    luma, as a deviation, stays in the shadows."""
    from skimage.filters import gaussian

    from serving import Finish
    from serving.denoise import LEAST_GAIN, luma_chroma
    from serving.finish import PLAIN

    illumination = enhancer.illumination(photo)
    shade = 1 / np.maximum(illumination, 1e-6) > LEAST_GAIN
    blotches, fine = [], []
    for finish in (PLAIN, Finish(denoise="auto")):
        luma, chroma = luma_chroma(enhancer.relight(photo, illumination, 1.0, finish).astype(np.float32))
        blotches.append(_blotches(chroma, shade))
        fine.append(float((luma - gaussian(luma, 1))[shade].std()))
    return *blotches, fine[1] / fine[0]


def _blotches(chroma: np.ndarray, shade: np.ndarray) -> float:
    """How much further chroma (h,w,2) jumps at the edges of JPEG's blocks of 16 pixels than in the middle of them."""
    jumps = []
    for turned, dark in ((chroma, shade), (chroma.swapaxes(0, 1), shade.T)):
        jump, inside = np.abs(np.diff(turned, axis=0)).mean(axis=2), dark[1:] & dark[:-1]
        jumps.append(jump[15::16][inside[15::16]].mean() - jump[7::16][inside[7::16]].mean())
    return float(np.mean(jumps))


def _cast(photo: np.ndarray, result: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Distance of the mean chroma from the ground truth's, of full scale: in the photo's shadows, and elsewhere."""
    from serving.denoise import luma_chroma

    shade = photo.max(axis=2) < 255 * SHADE
    chroma = [luma_chroma(image.astype(np.float32) / 255)[1] for image in (result, truth)]
    found = []
    for part in (shade, ~shade):
        enough = part.mean() > 0.01
        gap = chroma[0][part].mean(axis=0) - chroma[1][part].mean(axis=0) if enough else np.array([np.nan] * 2)
        found.append(float(np.linalg.norm(gap)))
    return tuple(found)


def dithered_ramp(gain: float = 6.0) -> dict[str, float]:
    """A ramp of 9 steps of 8 bits, brightened: the longest run of equal values in a row, in pixels, and the mean in
    steps of 8 bits, without and with dither."""
    from serving import Finish
    from serving.finish import planes

    photo = np.repeat(np.rint(np.tile(np.linspace(3, 12, 576), (64, 1))).astype(np.uint8)[..., None], 3, axis=2)
    gain_map = np.full((1, 1, *photo.shape[:2]), 1 / gain, np.float32)
    found = {}
    for name, dither in (("off", False), ("on", True)):
        result = Finish(dither=dither).divided(planes(photo), gain_map, 1.0, photo.dtype)[..., 0]
        edges = np.diff(result.astype(int), axis=1) != 0
        runs = [np.diff(np.flatnonzero(np.r_[True, row, True])).max() for row in edges]
        found |= {f"run_{name}": int(max(runs)), f"mean_{name}": round(float(result.mean()), 3)}
    return found


def halo(enhancer) -> dict[str, float]:
    """A dark half beside a bright one: how far the result beside the edge, up to 48 pixels, leaves its level farther
    away, of that level; the largest deviation on each side."""
    photo = np.full((192, 384, 3), 0.08, np.float32)
    photo[:, 192:] = 0.85
    profile = enhancer.enhance(photo)[0][64:128].mean(axis=(0, 2))
    dark, bright = profile[64:128].mean(), profile[256:320].mean()
    return {
        "dark_side": round(float(np.abs(profile[144:190] / dark - 1).max()), 4),
        "bright_side": round(float(np.abs(profile[194:240] / bright - 1).max()), 4),
    }


def pictures(enhancer, folder: Path) -> None:
    """Crops at 100 %, before and after: finish_highlights, _denoise, _dither (where these differ most), _edges and
    _shadows.png (where the photo was changed most; of shadows the truth too)."""
    from data.images import read_rgb8
    from data.samples import sample_picture
    from metrics.harm import exposed
    from serving import Enhancer, Finish
    from serving.finish import PLAIN

    def darker(photo: np.ndarray, stops: float) -> np.ndarray:
        return np.rint(exposed(photo.astype(np.float32) / 255, -stops) * 255).astype(np.uint8)

    seeding, room = (read_rgb8(REPO_ROOT / "docs" / "photos" / f"{name}.jpg") for name in ("seeding", "room"))
    astronaut = sample_picture("astronaut.png")
    clipping = Enhancer(REPO_ROOT / CLIPPING, device="cpu", backend="torch", precision="fp32")
    shown = {
        "highlights": (clipping, seeding, {kind: Finish(highlights=kind) for kind in HIGHLIGHTS}),
        "denoise": (enhancer, _noisy(astronaut)[1], {"without": PLAIN, "--denoise auto": Finish(denoise="auto")}),
        "dither": (enhancer, darker(room, BAND_STOPS), {"without": PLAIN, "--dither": Finish(dither=True)}),
    }
    for name, (network, photo, finishes) in shown.items():
        illumination = network.illumination(photo)
        results = [network.relight(photo, illumination, 1.0, finish) for finish in finishes.values()]
        titled = {"before": photo, **dict(zip(finishes, results, strict=True))}
        _save(folder / f"finish_{name}.png", titled, _most_changed(results[0], results[1]))
    place = _most_changed(room, result := enhancer.enhance(room)[0], edges=True)
    _save(folder / "finish_edges.png", {"before": room, "after": result}, place)
    dark = darker(astronaut, DARK_STOPS)
    result = enhancer.enhance(dark)[0]
    titled = {"before": dark, "after": result, "as it was lit": astronaut}
    _save(folder / "finish_shadows.png", titled, _most_changed(dark, result))


def _save(file: Path, images: dict[str, np.ndarray], place: tuple[int, int]) -> None:
    """One crop of each image, side by side, under its title."""
    from data.images.grid import photo_grid

    top, left = place
    crops = [image[top : top + CROP, left : left + CROP] for image in images.values()]
    photo_grid([crops], list(images), file, side=CROP)


def _most_changed(before: np.ndarray, after: np.ndarray, *, edges: bool = False) -> tuple[int, int]:
    """Row and column of the crop with the largest change, or, at edges of light, with the most different changes."""
    changed = np.abs(before.astype(float) - after).mean(axis=2)
    places = [
        ((np.std if edges else np.mean)(changed[y : y + CROP, x : x + CROP]), y, x)
        for y in range(0, before.shape[0] - CROP + 1, 40)
        for x in range(0, before.shape[1] - CROP + 1, 40)
    ]
    return max(places)[1:]


if __name__ == "__main__":
    run(main)
