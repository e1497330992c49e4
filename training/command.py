"""The command line of the training scripts: validate, print the resolved config, call the loop."""

import json
from collections.abc import Sequence
from pathlib import Path

from common.cli import EXIT_OK, EXIT_SOME_FAILED, add_output, make_parser
from common.console import quietly, say
from common.errors import UserError

SCRIPTS = {"rave": "train_rave.py", "clip_lit": "train.py", "clip_lit_latent": "train.py"}  # exp.mode -> what trains it


def train_command(argv: Sequence[str], *, script: str | None, description: str, default_cfg: str) -> int:
    """Parse, validate and train. Returns the exit code; raises UserError for a user's mistake.

    script: which one was called; it trains its own modes only. None trains every mode.
    """
    parser = make_parser(description, default_cfg)
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run of this config, from its last saved state"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check config, folders and weights, print what would be done, write nothing",
    )
    parser.add_argument(
        "--full-config", action="store_true", help="print every key of the config, not only what differs from defaults"
    )
    add_output(parser, "run folder, how it ended, scores, seconds")
    args = parser.parse_args(argv)

    from configs.changes import as_yaml, changed  # not for --help, which would take twice as long
    from configs.load import load_config
    from configs.schema import TrainConfig
    from training.paths import check_paths
    from training.tracking import RunFiles

    config = load_config(TrainConfig, args.cfg, args.overrides)
    mode = config.exp.mode
    if script is not None and SCRIPTS[mode] != script:
        mine = " or ".join(f"'{name}'" for name, trainer in SCRIPTS.items() if trainer == script)
        raise UserError(f"{args.cfg}: exp.mode: {script} trains {mine}, found '{mode}', which {SCRIPTS[mode]} trains")
    check_paths(config)
    files = RunFiles(Path(config.exp.save_dir) / config.exp.exp_name)
    if args.resume:
        from training.resume import check_resume

        check_resume(files, config)
    else:
        files.check_free(config.exp.overwrite)
    tree = config.model_dump()
    part = tree if args.full_config else changed(tree, TrainConfig)
    what = "all keys" if args.full_config else "what differs from the defaults; --full-config: all keys"
    left_out: list[str] = []
    with quietly(args.quiet):
        say(f"# {args.cfg}, {what}", *as_yaml(part).splitlines(), "")
        from training.loop import train  # PyTorch takes seconds to import: only once the config is known to be good

        on_end = _print_result if args.json else None
        train(config, resume=args.resume, dry_run=args.dry_run, left_out=left_out, on_end=on_end)
    if args.dry_run and args.json:
        print(json.dumps({"dry_run": True, "run": str(files.path)}))
    return EXIT_SOME_FAILED if left_out else EXIT_OK


def _print_result(folder: Path) -> None:
    from training.runs import read_run

    print(json.dumps(read_run(folder).result()))


def main(argv: list[str]) -> int:
    """The command `backlit-train`: what `exp.mode` of the config says. Returns and raises as `train_command`."""
    description = "Train the enhancement network with RAVE, CLIP-LIT or CLIP-LIT-Latent, as the config's exp.mode says."
    return train_command(argv, script=None, description=description, default_cfg="configs/train/rave.yaml")
