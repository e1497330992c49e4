"""Attacks by states, caches and weight files, one per seed. Each says how it was survived."""

import os
import random
from functools import cache
from pathlib import Path

from common.errors import UserError
from lab.chaos.damaged_photos import damage
from lab.chaos.harness import Failure


def state(seed: int, folder: Path) -> str:
    """A last.pt with a flipped bit, zeroed page, or cut off; every second time the one before it is damaged too."""
    from training.checksum import checksum
    from training.state import previous_state

    chance, file = random.Random(seed), folder / "last.pt"
    first, second = _states()
    for path, good in ((previous_state(file), first), (file, second)):
        data = bytearray(good)
        if path == file or seed % 2:
            damage(data, chance)
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


def prepare_states() -> None:
    """What `state` damages and compares with, made before the first attack."""
    _states()
    _checksums()


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
    damage(data, chance)
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
