"""What cached embeddings change: guidance initialisation with and without them, its time and its accuracy on held-back
photos.

python -m lab.guidance_cache --cfg clip_lit_latent.yaml --set data.backlit_images_path=DIR ... [--augmentations 0 4 16]
"""

import json
import tempfile
import time
from pathlib import Path

from common.cli import EXIT_OK, make_parser, run
from common.errors import UserError
from configs.load import load_config
from configs.schema import TrainConfig


def main(argv: list[str]) -> int:
    parser = make_parser(__doc__, default_cfg="clip_lit_latent.yaml")
    parser.add_argument(
        "--augmentations", type=int, nargs="+", default=[0, 4, 16], metavar="K", help="caches to compare; 0: none"
    )
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args(argv)
    configs = {
        k: load_config(TrainConfig, args.cfg, [*args.overrides, f"guidance_model.cached_augmentations={k}"])
        for k in args.augmentations
    }
    if any(config.exp.mode == "rave" for config in configs.values()):
        raise UserError(f"{args.cfg}: exp.mode: expected one with learned guidance, found 'rave'")
    rows = []
    for k, config in configs.items():
        rows.append({"augmentations": k, **_initialise(config)})
        shown = ", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items() if isinstance(value, float))
        print(f"cached augmentations {k:3}: {shown}", flush=True)
    if args.json:
        from common.files import write_text
        from common.provenance import provenance

        shown = next(iter(configs.values()))
        settings = {
            "mode": shown.exp.mode,
            "clip": shown.clip.guidance.model_dump(),
            **shown.guidance_model.model_dump(),
        }
        results = {"rows": rows, "settings": settings, **provenance()}
        write_text(args.json, json.dumps(results, indent=2) + "\n")
    return EXIT_OK


def _initialise(config: TrainConfig) -> dict[str, float]:
    """Train the guidance for `num_pretrain_iters`; seconds hold the embedding, but neither reading photos nor loading
    the encoder.
    """
    from training.embeddings import load_encoder
    from training.guidance_task import GuidanceTask
    from training.phases import clip_lit_schedule
    from training.runtime import make_accelerator

    accelerator = make_accelerator(config.train.device, config.train.precision)
    encoder = load_encoder(config.clip.guidance, config.clip, accelerator.device)
    with tempfile.TemporaryDirectory() as folder:
        task = GuidanceTask(config, accelerator, encoder, Path(folder))
        phase = clip_lit_schedule(config, len(task.backlit))[0]
        started = time.perf_counter()
        batches = iter(task.batches(phase, 0))
        first = None
        for _ in range(phase.iterations):
            terms, _ = task.losses(phase, next(batches))
            task.optimizer.zero_grad()
            sum(terms.values()).backward()
            task.optimizer.step()
            first = first or time.perf_counter()
        ended = time.perf_counter()
        report = {name: value for name, value in task.report().items() if isinstance(value, float)}
    per_iteration = 1000 * (ended - first) / max(1, phase.iterations - 1)
    return {"seconds": ended - started, "milliseconds_per_iteration": per_iteration, **report}


if __name__ == "__main__":
    run(main)
