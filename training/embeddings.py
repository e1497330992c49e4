"""The encoders of a config, and CLIP embeddings of whole folders and of the vocabulary: batched, and cached on disk.

The cache key is the encoder's fingerprint (weights and preprocessing), the version of our decoding and each file's
content, so moved or renamed photos are found again and changed ones are not.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from common.console import note
from common.errors import UserError
from common.files import DiskFull, writing
from common.paths import REPO_ROOT, is_file
from common.progress import Progress, track
from configs.schema import Clip, Encoder
from data.backlight import Relighting
from data.images import STANDARD, ImageError, Limits, read_rgb8
from data.resized import VERSION, photo_contents
from models.clip_encoder import ClipEncoder, load_clip
from models.clip_networks import is_here
from training.checksum import checksum


def load_encoder(encoder: Encoder, clip: Clip, device: torch.device | str) -> ClipEncoder:
    """An encoder as the config describes it; a weight file may lie in the current folder or in this checkout."""
    pretrained = encoder.pretrained
    if pretrained is not None and not is_file(pretrained) and is_file(REPO_ROOT / pretrained):
        pretrained = str(REPO_ROOT / pretrained)
    return load_clip(
        encoder.model,
        pretrained,
        device=device,
        preprocess=clip.preprocess,
        image_size=clip.image_size,
        seed=clip.seed,
        quick_gelu=encoder.quick_gelu,
    )


def encoder_loader(clip: Clip, device: torch.device | str) -> Callable[[Encoder], ClipEncoder]:
    """`load_encoder`, which gives one network where the config names the same encoder twice."""
    loaded: dict[tuple, ClipEncoder] = {}

    def load(encoder: Encoder) -> ClipEncoder:
        key = (encoder.model, encoder.pretrained, encoder.quick_gelu)
        if key not in loaded:
            loaded[key] = load_encoder(encoder, clip, device)
        return loaded[key]

    return load


def missing_weights(clip: Clip) -> list[str]:
    """The encoders whose weights would be downloaded, "RN101/openai (identity)"; the others are loaded, as a check.

    Raises UserError where `load_clip` would.
    """
    missing, load = [], encoder_loader(clip, "cpu")
    for name, encoder in (("guidance", clip.guidance), ("identity", clip.identity)):
        if not is_here(encoder.model, encoder.pretrained):
            missing.append(f"{encoder.model}/{encoder.pretrained} ({name})")
        else:
            load(encoder)
    return missing


def embed_photos(
    paths: list[Path],
    encoder: ClipEncoder,
    cache_dir: str | Path,
    batch_size: int,
    key: str,
    limits: Limits = STANDARD,
    relighting: Relighting | None = None,
) -> tuple[Tensor, list[str]]:
    """f(Φ(I)) of every photo, (N,D) float32 on the CPU in the order of `paths`, and the reasons of those left out.

    key: the config key of the folder, for errors. limits: which photos are read at all. relighting: done to each photo
    first, at the encoder's input size, its randomness a function of the photo's content.
    Raises UserError where no photo can be read.
    """
    name = hashlib.sha256(f"{VERSION} {encoder.fingerprint()}".encode()).hexdigest()[:32]
    cache_file = Path(cache_dir) / "embeddings" / f"{name}.safetensors"
    cached = _read_cache(cache_file)
    known = dict(zip(cached["photos"], cached["embeddings"], strict=True)) if cached else {}
    contents = photo_contents(paths)
    hashes = [str(path) if isinstance(c, ImageError) else c for path, c in zip(paths, contents, strict=True)]
    skipped = {  # by what stands for the photo in `hashes`
        str(path): str(error).removeprefix(f"{path}: ")
        for path, error in zip(paths, contents, strict=True)
        if isinstance(error, ImageError)
    }
    if relighting:
        relit = {h: hashlib.sha256(f"{h} {relighting.name}".encode()).hexdigest() for h in hashes if h not in skipped}
        hashes = [relit.get(h, h) for h in hashes]
    new = {h: path for h, path in zip(hashes, paths, strict=True) if h not in known and h not in skipped}
    for digest, path, result in _embedded(new, encoder, batch_size, key, limits, relighting):
        if isinstance(result, ImageError):
            skipped[digest] = str(result).removeprefix(f"{path}: ")
        else:
            known[digest] = result
    if new and known:
        _write_cache(cache_file, {"embeddings": torch.stack(list(known.values()))}, photos=list(known))
    found = [known[digest] for digest in hashes if digest in known]
    unread = [f"{path}: {skipped[h]}" for path, h in zip(paths, hashes, strict=True) if h in skipped]
    if not found:
        raise UserError(f"{key}: none of the {len(paths)} photos can be read, the first because: {unread[0]}")
    return torch.stack(found), unread


def _embedded(
    photos: dict[str, Path],
    encoder: ClipEncoder,
    batch_size: int,
    key: str,
    limits: Limits,
    relighting: Relighting | None,
) -> Iterator[tuple[str, Path, Tensor | ImageError]]:
    """Key, path, and embedding (D,) on the CPU or why there is none, of each photo. The next batch is decoded and
    resized, which takes as long as the encoder, while one is in the encoder.
    """
    items = [*photos.items()]
    batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
    with Progress(f"embedding {key}", len(photos)) as progress, ThreadPoolExecutor(torch.get_num_threads()) as pool:

        def begin(batch: list[tuple[str, Path]]) -> list[Future]:
            return [pool.submit(_prepared, path, encoder, limits, relighting, digest) for digest, path in batch]

        coming = begin(batches[0]) if batches else []
        for batch, following in zip_longest(batches, batches[1:], fillvalue=[]):
            results = [future.result() for future in coming]
            coming = begin(following)
            if prepared := [result for result in results if isinstance(result, Tensor)]:
                images = torch.cat(prepared).contiguous(memory_format=torch.channels_last)
                with torch.no_grad():
                    embeddings = iter(encoder.embed_images(images).cpu())
            for (digest, path), result in zip(batch, results, strict=True):
                yield digest, path, result if isinstance(result, ImageError) else next(embeddings)
            progress.add(len(batch))


def _prepared(
    path: Path, encoder: ClipEncoder, limits: Limits, relighting: Relighting | None, key: str
) -> Tensor | ImageError:
    """One photo (1,3,S,S) at the encoder's size, on its device: photos differ in size, squared they fit in one batch.

    key: hexadecimal, the seed of the relighting.
    """
    try:
        pixels = torch.from_numpy(np.array(read_rgb8(path, limits=limits))).permute(2, 0, 1)[None]
    except ImageError as error:
        return error
    with torch.no_grad():
        if not relighting:
            return encoder.to_input_size(pixels.to(encoder.mean.device).float().div_(255))
        photo = encoder.to_input_size(pixels.float().div_(255))[0].clamp(0, 1)
        relit = relighting.apply(photo, torch.Generator().manual_seed(int(key[:15], 16)))
        return relit[None].to(encoder.mean.device)


def embed_vocabulary(encoder: ClipEncoder, cache_dir: str | Path, chunk: int = 8192) -> Tensor:
    """Directions (N,D) of the encoder's vocabulary on the CPU, as `ClipEncoder.vocabulary` gives them;
    tokens are cached.

    Raises UserError for an encoder without a vocabulary.
    """
    if not encoder.has_text:  # classes are at hand
        return encoder.vocabulary()[1].cpu()
    tokens, _ = encoder.words()
    digest = hashlib.sha256("\n".join([encoder.fingerprint(text=True), *tokens]).encode())
    cache_file = Path(cache_dir) / "vocabulary" / f"{digest.hexdigest()[:32]}.safetensors"
    if known := _read_cache(cache_file):
        return known["tokens"]

    @torch.no_grad()  # which each thread has to say
    def embed(start: int) -> Tensor:
        return encoder.embed_texts(tokens[start : start + chunk], 512).cpu()

    starts = range(0, len(tokens), chunk)  # large chunks: texts are sorted by length inside
    with ThreadPoolExecutor(2) as pool:  # tokenising one chunk takes as long as a small text tower takes for another
        chunks = track(pool.map(embed, starts), "embedding the vocabulary", len(starts), unit="chunk")
        embeddings = torch.cat(list(chunks))
    _write_cache(cache_file, {"tokens": embeddings})
    return embeddings


def _read_cache(path: Path) -> dict[str, Any] | None:
    """What `_write_cache` wrote. None, and a note, where it cannot be used: the cache is rebuilt;
    None where there is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            content = {name: file.get_tensor(name) for name in file.keys()} | facts  # noqa: SIM118
            if checksum(content) == file.metadata()["checksum"]:
                return content
            why = "damaged, its checksum does not fit"
    except FileNotFoundError:
        return None
    except Exception as error:  # readers meet damaged files with every kind of exception
        why = " ".join(str(error).split())
    note(f"cache rebuilt: {path}: {why}")
    return None


def _write_cache(path: Path, tensors: dict[str, Tensor], **facts: list[str]) -> None:
    metadata = {"facts": json.dumps(facts), "checksum": checksum({**tensors, **facts})}
    try:
        with writing(path) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata)
    except DiskFull:
        raise
    except UserError as error:  # the next run computes it again
        note(f"not cached: {error}")
