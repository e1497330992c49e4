"""One attack per seed: a damaged photo, state, cache or weight file, or an odd command line.

Each says how it was survived.
"""

import contextlib
import io
import os
import random
import resource
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

from common.errors import UserError
from lab.chaos.harness import Failure

ROOM = 3_000_000_000  # bytes of address space that a photo may take beyond what the process has
PHOTOS = ("images", "tiff_tags")  # attacks by files that claim to be photos


# ---------------------------------------------------------------------------------------------
# Photos
# ---------------------------------------------------------------------------------------------


def image(seed: int, folder: Path) -> str:
    """A photo with flipped bits, cut off, with a piece doubled, removed or zeroed, or another file's piece inside."""
    chance = random.Random(seed)
    name = chance.choice(sorted(_originals()))
    data = bytearray(_originals()[name])
    for _ in range(chance.choice((1, 1, 2, 8))):
        _damage(data, chance)
    return _read(folder / f"image{Path(name).suffix}", bytes(data))


def tiff(seed: int, folder: Path) -> str:
    """A TIFF one to three of whose tags have another type, count or value."""
    chance = random.Random(seed)
    names = [name for name in sorted(_originals()) if name.endswith(".tif")]
    data = bytearray(_originals()[chance.choice(names)])
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for _ in range(chance.randint(1, 3)):
        at = start + 2 + 12 * chance.randrange(count)
        field, size = chance.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "I")))
        top = 2 ** (8 * struct.calcsize(size)) - 1
        value = chance.choice((0, 1, 2, 3, 255, 256, 65535, len(data), 2**31, top, top - 1, chance.randint(0, top)))
        struct.pack_into(f"{order}{size}", data, at + field, min(value, top))
    return _read(folder / "tags.tif", bytes(data))


def _read(path: Path, data: bytes) -> str:
    from data.images import ImageError, read_photo

    path.write_bytes(data)
    try:
        photo = read_photo(path)
    except ImageError as error:
        if "\n" in str(error):
            raise Failure("crashed", f"more than one line: {error!r}") from None
        return "refused in one line"
    if photo.rgb.ndim != 3 or photo.rgb.shape[2] != 3 or not photo.rgb.size:
        raise Failure("lost", f"an array of shape {photo.rgb.shape}")
    return "read, with a note" if photo.note else "read"


def limit_memory() -> None:
    """A worker may take so much more than it has: a file that asks for terabytes must not end the machine."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))


@cache
def _originals() -> dict[str, bytes]:
    """Small files of all formats that people have."""
    import numpy as np
    import tifffile
    from PIL import Image

    noise = np.random.default_rng(0)
    smooth = np.clip(np.linspace(0, 200, 64)[None, :, None] + noise.integers(0, 40, (48, 64, 4)), 0, 255).astype(
        np.uint8
    )
    rgb, rgba = Image.fromarray(smooth[..., :3]), Image.fromarray(smooth)
    exif = Image.Exif()
    exif.update({271: "maker", 274: 6, 306: "2020:01:01 00:00:00"})
    saved = {
        "a.jpg": (rgb, {"quality": 90, "exif": exif}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "grey.jpg": (rgb.convert("L"), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "a.png": (rgba, {}),
        "palette.png": (rgb.quantize(), {}),
        "interlaced.png": (rgb, {"interlace": 1}),
        "a.webp": (rgba, {}),
        "lossless.webp": (rgb, {"lossless": True}),
        "a.gif": (rgb.quantize(), {"save_all": True, "append_images": [rgb.quantize()]}),
        "a.bmp": (rgb, {}),
        "a.ppm": (rgb, {}),
        "a.tga": (rgb, {}),
        "a.jp2": (rgb, {}),
        "a.ico": (rgba.resize((32, 32)), {}),
        "a.avif": (rgb, {}),
        "raw.tif": (rgb, {"exif": exif}),
        "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "deflate.tif": (rgba, {"compression": "tiff_deflate"}),
        "jpeg.tif": (rgb, {"compression": "jpeg"}),
        "group4.tif": (rgb.convert("1"), {"compression": "group4"}),
    }
    made = {}
    for name, (picture, options) in saved.items():
        buffer = io.BytesIO()
        with contextlib.suppress(KeyError, OSError):  # a Pillow without this format
            picture.save(buffer, Image.registered_extensions()[Path(name).suffix], **options)
            made[name] = buffer.getvalue()
    deep = smooth[..., :3].astype(np.uint16) * 257
    for name, options in (
        ("deep.tif", {}),
        ("deep_zip.tif", {"compression": "zlib", "predictor": True, "tile": (16, 16)}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, deep, photometric="rgb", **options)
        made[name] = buffer.getvalue()
    return made


def _damage(data: bytearray, chance: random.Random) -> None:
    """One change in place."""
    if not data:
        return
    at, length = chance.randrange(len(data)), chance.choice((1, 4, 16, 200))
    head = chance.randrange(min(len(data), 200))
    what = chance.randrange(7)
    if what == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif what == 1:  # most of what a file claims is in its head
        data[head] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
    elif what == 2:
        del data[at:]
    elif what == 3:
        del data[at : at + length]
    elif what == 4:
        data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
    elif what == 5:
        data[at : at + length] = bytes(len(data[at : at + length]))
    else:
        other = chance.choice(sorted(_originals().values()))
        data[at : at + length] = other[: chance.choice((8, 64, len(other)))]


# ---------------------------------------------------------------------------------------------
# States, caches, weights
# ---------------------------------------------------------------------------------------------


def state(seed: int, folder: Path) -> str:
    """A last.pt with a flipped bit, zeroed page, or cut off; every second time the one before it is damaged too."""
    from training.checksum import checksum
    from training.state import previous_state

    chance, file = random.Random(seed), folder / "last.pt"
    first, second = _states()
    for path, good in ((previous_state(file), first), (file, second)):
        data = bytearray(good)
        if path == file or seed % 2:
            _damage(data, chance)
        path.write_bytes(data)
    loaded = _new_state(0)
    try:
        note = loaded.load(file)
    except UserError:
        if not seed % 2:
            raise Failure("lost", "the state before the damaged one was not taken") from None
        return "refused in one line"
    if checksum(loaded.state_dict()) not in _checksums():
        raise Failure("lost", "went on with another content")
    return "went on from the state before" if note else "the damage touched no value"


def _new_state(steps: int):
    import torch

    from models.unet import IlluminationUNet
    from training.state import TrainState

    torch.manual_seed(0)
    unet = IlluminationUNet()
    optimizer = torch.optim.Adam(unet.parameters())
    made = TrainState({"unet": unet}, {"unet": optimizer})
    made.start_phase(0, "unet", 10)
    for _ in range(steps):
        unet(torch.rand(1, 3, 16, 16)).mean().backward()
        optimizer.step()
        made.total += 1
    return made


@cache
def _states() -> tuple[bytes, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        made = []
        for steps in (1, 2):
            _new_state(steps).save(Path(name) / "state.pt")
            made.append((Path(name) / "state.pt").read_bytes())
    return made[0], made[1]


@cache
def _checksums() -> set[str]:
    from training.checksum import checksum

    return {checksum(_new_state(steps).state_dict()) for steps in (1, 2)}


def cached(seed: int, folder: Path) -> str:
    """A cache of resized photos or embeddings with damage: what is read is what was computed."""
    import numpy as np
    import torch

    from data.resized import store_photos
    from training.embeddings import embed_photos

    photos, encoder, right, embedded = _cache_of(folder)
    chance = random.Random(seed)
    files = sorted(path for path in (folder / "cache").rglob("*") if path.suffix in (".rgb", ".safetensors"))
    file = chance.choice(files)
    data = bytearray(file.read_bytes())
    _damage(data, chance)
    file.write_bytes(data)
    stored, _ = store_photos(photos, 32, folder / "cache")
    found, _ = embed_photos(photos, encoder, folder / "cache", 8, "photos")
    if not all(np.array_equal(stored[i], right[i]) for i in range(len(right))) or not torch.equal(found, embedded):
        raise Failure("lost", f"{file.suffix}: another content")
    return "the right content"


@cache
def _cache_of(folder: Path) -> tuple:
    import numpy as np
    from PIL import Image

    from data.resized import store_photos
    from models.clip_encoder import load_clip
    from training.embeddings import embed_photos

    (folder / "photos").mkdir(parents=True, exist_ok=True)
    photos = [folder / "photos" / f"{number}.png" for number in range(4)]
    for number, path in enumerate(photos):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    stored, _ = store_photos(photos, 32, folder / "cache")
    encoder = load_clip("mini-rn", None)
    embedded, _ = embed_photos(photos, encoder, folder / "cache", 8, "photos")
    return photos, encoder, [np.array(photo) for photo in stored], embedded


def pickled(seed: int, folder: Path) -> str:
    """A weight file or state that runs a command when it is unpickled, in all containers that are read here."""
    import pickle
    import zipfile

    import numpy as np
    import torch

    from models.checkpoints import load_unet

    chance, marker = random.Random(seed), folder / "executed"

    class Bomb:
        def __reduce__(self):
            call = chance.choice((os.system, eval, exec))
            code = f"touch {marker}" if call is os.system else f"__import__('pathlib').Path({str(marker)!r}).touch()"
            return call, (code,)

    content = chance.choice((Bomb(), {"a": Bomb()}, {"modules": {"unet": Bomb()}}, [Bomb()]))
    file = folder / chance.choice(("w.pth", "w.safetensors", "w.npz", "w.pt", "w"))
    kind = chance.randrange(4)
    if kind == 0:
        file.write_bytes(pickle.dumps(content, chance.randrange(6)))
    elif kind == 1:
        torch.save(content, file)
    elif kind == 2:
        with file.open("wb") as output:
            np.savez(output, a=np.array([Bomb()], dtype=object))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
            archive.writestr("archive/version", "3")
    for load in (load_unet, _new_state(0).load):
        refused = False
        try:
            load(file)
        except UserError:
            refused = True
        if not refused:
            raise Failure("lost", "was taken for weights")
        if marker.exists():
            marker.unlink()
            raise Failure("executed", f"{file.name} {load.__name__}")
    return "refused in one line"


# ---------------------------------------------------------------------------------------------
# Command lines
# ---------------------------------------------------------------------------------------------

VALUES = (
    *(
        "photos",
        "photos/a.png",
        "nothing",
        "out",
        "",
        " ",
        ".",
        "..",
        "~",
        "$HOME",
        "-",
        "--",
        "*",
        "photos/",
        "/dev/null",
        "/dev/zero",
    ),
    *(
        "0",
        "-1",
        "1e999",
        "nan",
        "inf",
        "true",
        "null",
        "2024-31-12",
        "010",
        "1:30",
        "9" * 4300,
        "0.5",
        "1",
        "16",
        "64",
    ),
    *(
        "[",
        "]",
        "{",
        "{a}",
        "[1]",
        "[" * 1000,
        "!!int x",
        "!!python/object/apply:os.system [true]",
        "&a *a",
        "a: b",
        "a #1",
    ),
    *(
        "\0",
        "\x1b[2J",
        "a\nb",
        "\u202egpj.exe",
        "\ud800",
        "x" * 300,
        "y" * 5000,
        "é",
        "e\u0301",
        "%s%n",
        "\\",
        "'",
        '"',
    ),
    *(
        "rave.yaml",
        "clip_lit.yaml",
        "inference.yaml",
        "metrics.yaml",
        "bad.yaml",
        "weights.safetensors",
        "link",
        "locked/a",
    ),
)


def command_line(seed: int, folder: Path) -> str:
    """A script or tool with odd flags and values. It ends with 0, 2 or 3, and one line where it is 2."""
    from common.cli import exit_code

    chance = random.Random(seed)
    sandbox = _sandbox(folder)
    name, main, flags, always = chance.choice(_commands())
    argv = []
    for _ in range(chance.randint(0, 6)):
        argv.append(chance.choice(flags))
        if argv[-1] == "--set":
            key = chance.choice(
                ("exp.exp_name", "data.input", "exp.seed", "data", "", "=", "a.b.c", "exp", "model.checkpoint")
            )
            argv.append(f"{key}{chance.choice(('=', '', '=='))}{chance.choice(VALUES)}")
        elif chance.random() < 0.8:
            argv.append(chance.choice(VALUES))
    printed, errors = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.environ["HOME"] = str(sandbox)
    os.chdir(sandbox)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            code = exit_code(main, [*argv, *always])
    except SystemExit as end:
        code = end.code or 0
    except Exception as error:
        raise Failure(
            "crashed", f"{name} {argv!r}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from None
    finally:
        os.chdir(before)
    lines = [
        line for line in errors.getvalue().splitlines() if line and not line.startswith("note: ") and "%|" not in line
    ]
    if code not in (0, 2, 3) or (code == 2 and len(lines) != 1):
        raise Failure("crashed", f"{name} {argv!r}: code {code}, {len(lines)} lines")
    if "\x1b" in errors.getvalue() or "\u202e" in errors.getvalue():
        raise Failure("lost", f"{name} {argv!r}: acts on the terminal")
    return f"exit code {code}"


def _commands() -> list[tuple[str, Callable, list[str], list[str]]]:
    import compute_metrics
    import inference
    import train
    import train_rave
    from tools import check_dataset, clean_cache, make_backlit, near_duplicates

    shared = ["--cfg", "--set", "--set", "--help", "-x", "--unknown", "photos"]
    training = [*shared, "--resume"]
    photos = [
        "--input",
        "-i",
        "--output",
        "-o",
        "--checkpoint",
        "-c",
        "--strength",
        "--format",
        "--skip-existing",
        "--overwrite",
    ]
    return [
        ("train_rave.py", train_rave.main, training, ["--dry-run"]),
        ("train.py", train.main, training, ["--dry-run"]),
        ("inference.py", inference.main, [*shared, *photos], ["--dry-run"]),
        (
            "compute_metrics.py",
            compute_metrics.main,
            [*shared, "--gt", "--enhanced", "--json", "--csv", "--lpips"],
            ["--lpips", "off"],
        ),
        (
            "make_backlit",
            make_backlit.main,
            ["photos", "--size", "--per-photo", "--seed", "--masks", "--noise"],
            ["--size", "16"],
        ),
        ("near_duplicates", near_duplicates.main, ["photos", "--unseen", "-x"], []),
        ("check_dataset", check_dataset.main, ["--backlit", "--well-lit", "--gt", "--test", "--image-size"], []),
        ("clean_cache", clean_cache.main, ["--cache-dir", "--keep-gb", "--dry-run"], []),
    ]


@cache
def _sandbox(folder: Path) -> Path:
    """A folder with some photos, configs and odd files, in which the commands run."""
    from PIL import Image

    sandbox = folder / "sandbox"
    (sandbox / "photos" / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        Image.new("RGB", (24, 16), (90, 60, 30)).save(sandbox / "photos" / name)
    (sandbox / "bad.yaml").write_bytes(b"\xff\xfe{[")
    (sandbox / "weights.safetensors").write_bytes(b"rubbish")
    (sandbox / "link").symlink_to("/dev/zero")
    return sandbox


# name -> the attack, and what it needs before the first one
ATTACKS: dict[str, tuple[Callable[[int, Path], str], Callable[[Path], object]]] = {
    "images": (image, lambda folder: _originals()),
    "tiff_tags": (tiff, lambda folder: _originals()),
    "states": (state, lambda folder: (_states(), _checksums())),
    "caches": (cached, lambda folder: cached(0, folder)),
    "pickles": (pickled, lambda folder: pickled(0, folder)),
    "command_lines": (command_line, lambda folder: _commands()),
}
