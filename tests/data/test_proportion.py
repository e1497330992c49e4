"""Memory and time of decoding stay in proportion to the photo, whatever the kind of file."""

import json
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from common.paths import REPO_ROOT
from tests.data.test_images import display_p3

BYTES_A_PIXEL, SECONDS_A_MEGAPIXEL = 40, 0.3
# reads each file in a process of its own, forked when all is imported, and prints its peak and its time
READER = """
import json, os, sys, time
import imagecodecs, tifffile
from data.images import read_photo
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
for path in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork() == 0:
        before, start = status("VmRSS"), time.process_time()
        photo = read_photo(path, integers=True)
        seconds = time.process_time() - start
        print(json.dumps([path, photo.rgb.shape[:2], status("VmHWM") - before, seconds]), flush=True)
        os._exit(0)
    os.wait()
"""


def make_files(folder: Path, height: int, width: int) -> None:
    """A dozen kinds of one picture (H,W) with some noise, those that took most of all among them."""
    coarse = np.random.default_rng(0).integers(0, 250, (height // 50, width // 50, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    rgb = np.array(picture)
    rgb[::7, ::5] ^= 3
    picture = Image.fromarray(rgb)
    deep = rgb.astype(np.uint16) * 257
    cmyk16 = np.dstack([deep, 65535 - deep[..., :1]])
    profile = display_p3()
    picture.save(folder / "rgb.jpg", quality=92, icc_profile=profile)
    picture.save(folder / "progressive.jpg", quality=92, progressive=True)
    picture.convert("CMYK").save(folder / "cmyk.jpg", quality=92)
    picture.convert("L").save(folder / "grey.jpg")
    picture.save(folder / "rgb.png", compress_level=1)
    picture.quantize(64).save(folder / "palette.png", transparency=bytes([128] * 64), compress_level=1)
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(deep, level=1))
    tiff = {"photometric": "rgb", "rowsperstrip": 64}
    tifffile.imwrite(folder / "profile16.tif", deep, iccprofile=profile, **tiff)
    tifffile.imwrite(folder / "cmyk16.tif", cmyk16, photometric="separated", rowsperstrip=64)
    tifffile.imwrite(folder / "cmyk16_strip.tif", cmyk16, photometric="separated", compression="zlib")
    tifffile.imwrite(folder / "premultiplied.tif", cmyk16, extrasamples=["assocalpha"], **tiff)
    tifffile.imwrite(folder / "bits12.tif", deep >> 4, bitspersample=12, **tiff)
    picture.save(folder / "lzw.tif", compression="tiff_lzw")
    picture.save(folder / "lossless.webp", lossless=True, method=0)
    picture.save(folder / "rgb.avif", speed=10)
    picture.save(folder / "rgb.bmp")
    (folder / "deep.jp2").write_bytes(imagecodecs.jpeg2k_encode(deep[: height // 2], level=50, codecformat="jp2"))


def measured(folder: Path) -> list[tuple[str, float, float, float]]:
    """Name, megapixels, peak bytes a pixel and seconds a megapixel of each file."""
    files = sorted(map(str, folder.iterdir()))
    command = [sys.executable, "-c", READER, *files]
    printed = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in printed.splitlines()]
    assert len(rows) == len(files)
    return [(Path(path).name, h * w / 1e6, peak / (h * w), s / (h * w) * 1e6) for path, (h, w), peak, s in rows]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux")
def test_memory_and_time_of_large_photos(tmp_path):
    make_files(tmp_path, 3000, 4000)
    rows = measured(tmp_path)
    for name, megapixels, peak, seconds in rows:
        print(f"{name:20} {megapixels:5.1f} megapixels {peak:6.1f} bytes a pixel {seconds:6.3f} s a megapixel")
    assert [row for row in rows if row[2] > BYTES_A_PIXEL + 300 / row[1] or row[3] > SECONDS_A_MEGAPIXEL] == []
