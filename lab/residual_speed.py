"""How long the residual vector and the vocabulary take, batched as trainings do it and one by one as the release does,
in the same run.

python -m lab.residual_speed --cfg clip_lit_quickstart.yaml --set data.backlit_images_path=DIR ... [--json FILE]

Batched: all photos of both folders and the whole vocabulary (CLIP's: 49,408 tokens; mini-clip's: the words that it was
trained on), from files and texts, without caches. One by one: a sample of each, spread evenly, whose time is scaled up.
Photos are decoded and texts tokenised in both. "padded": each text alone, at CLIP's 77 positions, as the release
encodes it; "cut": each text alone, cut to its length as batches are here.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common.cli import EXIT_OK, make_parser, run
from common.errors import UserError
from common.sequences import evenly
from configs.load import load_config
from configs.schema import TrainConfig


def main(argv: list[str]) -> int:
    parser = make_parser(__doc__, default_cfg="clip_lit_quickstart.yaml")
    parser.add_argument(
        "--sample-photos", type=int, default=100, metavar="N", help="photos encoded one by one (default: %(default)s)"
    )
    parser.add_argument(
        "--sample-tokens", type=int, default=500, metavar="N", help="tokens encoded one by one (default: %(default)s)"
    )
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args(argv)
    config = load_config(TrainConfig, args.cfg, args.overrides)
    for name in ("sample_photos", "sample_tokens"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}: expected 1 or more, found {getattr(args, name)}")
    results = measure(config, args.sample_photos, args.sample_tokens)
    for name, seconds in results["seconds"].items():
        print(f"{name:28} {seconds['wall']:8.1f} s, processor {seconds['cpu']:8.1f} s")
    print("\n".join(f"{name:28} {times:8.1f} x" for name, times in results["times_faster"].items()))
    if args.json:
        from common.files import write_text
        from common.provenance import provenance

        results |= provenance()
        write_text(args.json, json.dumps(results, indent=2) + "\n")
    return EXIT_OK


def measure(config: TrainConfig, sample_photos: int, sample_tokens: int) -> dict:
    """Seconds of both ways, and how many times faster the batched one is."""
    import numpy as np
    import torch

    from data.images import read_rgb8
    from losses.residual import residual_guidance
    from training.directions import embed_folders
    from training.embeddings import embed_vocabulary, load_encoder
    from training.photos import training_photos
    from training.runtime import make_accelerator

    backlit, well_lit = training_photos(config.data)
    device = make_accelerator(config.train.device, config.train.precision).device
    encoder = load_encoder(config.clip.guidance, config.clip, device)
    if not encoder.has_text:
        raise UserError(f"clip.guidance.model: expected an encoder with a text tower, found {encoder.name}")
    texts, _ = encoder.words()

    def one_photo(path: Path) -> torch.Tensor:
        photo = torch.from_numpy(np.array(read_rgb8(path))).permute(2, 0, 1)[None].to(device).float() / 255
        return encoder.embed_images(photo).cpu()

    def padded(text: str) -> torch.Tensor:
        return encoder.model.encode_text(encoder._tokenizer([text]).to(device)).cpu()

    with torch.no_grad():
        for path in backlit[:3]:  # the first calls of a process are slow
            one_photo(path)
        encoder.embed_texts(texts[1000:1003])
        count = len(backlit) + len(well_lit)
        photos, rows = evenly([*backlit, *well_lit], sample_photos), evenly(range(len(texts) - 1), sample_tokens)
        alone = {  # before the batches: the tokenizer remembers words
            "photos": _timed(lambda: [one_photo(path) for path in photos], count / len(photos)),
            "tokens, padded": _timed(lambda: [padded(texts[i]) for i in rows], len(texts) / len(rows)),
            "tokens, cut": _timed(lambda: [encoder.embed_texts([texts[i + 1]]) for i in rows], len(texts) / len(rows)),
        }
        with tempfile.TemporaryDirectory() as cache:
            fresh = config.model_copy(update={"exp": config.exp.model_copy(update={"cache_dir": cache})})
            batched = {
                "photos": _timed(lambda: residual_guidance(*embed_folders(fresh, encoder, backlit, well_lit)[:2])),
                "tokens": _timed(lambda: embed_vocabulary(encoder, cache)),
            }
            tokens = embed_vocabulary(encoder, cache)  # from the cache
        same = [float(encoder.embed_texts([texts[i]]).cpu()[0] @ tokens[i]) for i in rows[:20]]

    def times(kind: str, tokens: str) -> float:
        return round(
            (alone["photos"][kind] + alone[tokens][kind]) / (batched["photos"][kind] + batched["tokens"][kind]), 2
        )

    return {
        "encoder": encoder.name,
        "photos": count,
        "tokens": len(texts),
        "threads": torch.get_num_threads(),
        "load_of_the_machine": os.getloadavg()[0],
        "sampled": {"photos": len(photos), "tokens": len(rows), "how": "spread evenly; their time is scaled up to all"},
        "seconds": {f"batched: {name}": both for name, both in batched.items()}
        | {f"one by one: {name}": both for name, both in alone.items()},
        "times_faster": {
            "all": times("wall", "tokens, padded"),
            "all, processor time": times("cpu", "tokens, padded"),
            "all, texts cut": times("wall", "tokens, cut"),
            "photos": round(alone["photos"]["wall"] / batched["photos"]["wall"], 2),
            "tokens": round(alone["tokens, padded"]["wall"] / batched["tokens"]["wall"], 2),
        },
        "lowest_cosine_between_both": round(min(same), 6),
    }


def _timed(work: Callable[[], object], scale: float = 1.0) -> dict[str, float]:
    """Seconds on the clock, and of the processor, all threads together; times `scale`."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "wall": round(scale * (time.perf_counter() - wall), 2),
        "cpu": round(scale * (time.process_time() - cpu), 2),
    }


if __name__ == "__main__":
    run(main)
