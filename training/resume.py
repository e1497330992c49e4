"""Going on with an earlier run: what may differ from its config, and whether its photos are the same."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from common.errors import UserError
from common.parse import parse_json, parse_yaml
from configs.changes import differing
from configs.schema import TrainConfig
from data.resized import photo_contents
from training.build import Plan
from training.phases import Phase, schedule
from training.photos import training_photos
from training.state import TrainState, previous_state
from training.tracking import RunFiles

# keys that do not change what is learned
MAY_CHANGE = (
    *("exp.save_dir", "exp.overwrite", "exp.cache_dir", "exp.cache_gb"),
    *("train.num_workers", "train.device", "train.process_timeout", "train.preview_photos"),
    *("train.val_iter", "train.save_iter"),
)
# keys that say where photos are: what lies there is compared by content
PLACES = (
    *("data.backlit_images_path", "data.welllit_images_path", "data.val_backlit_path", "data.val_gt_path"),
    *("data.leave_out", "data.val_list", "data.pairs"),
)
LENGTHS = ("train.num_iters", "train.num_rounds", "train.num_epochs")  # may grow

PhotoRecord = dict[str, dict[str, str | None]]


def photo_record(config: TrainConfig, planned: Plan) -> PhotoRecord:
    """Of each folder: path in it -> SHA-256 of the photo, or None where it cannot be read."""
    data = config.data
    record = {
        "backlit": _contents(planned.backlit, data.backlit_images_path),
        "welllit": _contents(planned.well_lit, data.welllit_images_path),
    }
    if planned.truths:
        record["pairs"] = _contents([pair.truth for pair in planned.truths], data.pairs)
    if planned.validation:
        record["val_backlit"] = _contents([pair.enhanced for pair in planned.validation], data.val_backlit_path)
        record["val_gt"] = _contents([pair.truth for pair in planned.validation], data.val_gt_path)
    return record


def check_resume(files: RunFiles, config: TrainConfig) -> list[Phase]:
    """The schedule that the run was begun with.

    Raises UserError where there is no state, where the config is not that of the run, and where it would become
    shorter: the direction and the order of photos depend on all of these. So they do on the photos (`check_photos`).
    """
    if not files.state_file.is_file() and not previous_state(files.state_file).is_file():
        raise UserError(f"--resume: expected a saved state, found nothing there: {files.state_file}")
    earlier = _earlier_config(files.config_file)
    keys = differing([earlier.model_dump(), config.model_dump()])
    if different := [key for key in keys if key not in (*MAY_CHANGE, *PLACES, *LENGTHS)]:
        raise UserError(f"--resume: {different[0]} differs from {files.config_file}; resume with the config of the run")
    photos = len(training_photos(config.data)[0])
    phases = schedule(earlier, photos)
    _check_longer(phases, schedule(config, photos), [key for key in keys if key in LENGTHS])
    return phases


def length_key(config: TrainConfig) -> str:
    """The config key that says how long the guided training of a run is."""
    key = "train.num_iters" if config.exp.mode == "rave" else "train.num_rounds"
    return key if getattr(config.train, key.removeprefix("train.")) is not None else "train.num_epochs"


def lengthen(state: TrainState, earlier: Sequence[Phase], phases: Sequence[Phase]) -> bool:
    """A state of the schedule `earlier` becomes one of `phases`, whose last phase may be longer,
    or be followed by others. Returns whether the schedule is longer.
    """
    last = len(earlier) - 1
    more = phases[last].iterations - earlier[last].iterations
    if more and state.phase >= last:
        state.phase = last  # again, where the run was finished
        state.planned += more
    elif state.phase == len(earlier) < len(phases):
        state.go_back_to_best()
        state.start_phase(state.phase, phases[state.phase].trains, phases[state.phase].iterations)
    return more > 0 or len(phases) > len(earlier)


def _earlier_config(file: Path) -> TrainConfig:
    try:
        return TrainConfig.model_validate(parse_yaml(file.read_text(encoding="utf-8-sig")))
    except ValidationError:
        raise UserError(f"--resume: {file}: expected the config of the run, found keys of another version") from None
    except (OSError, ValueError) as error:
        raise UserError(f"--resume: {file}: expected the config of the run ({type(error).__name__})") from None


def check_photos(file: Path, photos: PhotoRecord) -> None:
    """Raises UserError where the photos are not those that a run recorded in `file`."""
    if not file.is_file():  # of an earlier version
        return
    try:
        earlier = parse_json(file.read_text(encoding="utf-8"))
        if any(isinstance(content, int) for folder in earlier.values() for content in folder.values()):
            return  # sizes, of an earlier version
        changed = {
            f"{name}: {path}"
            for name in {**earlier, **photos}
            for path, _ in earlier.get(name, {}).items() ^ photos.get(name, {}).items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"--resume: {file}: expected the photos of the run ({type(error).__name__})") from None
    if changed:
        raise UserError(
            f"--resume: expected the photos that the run began with, found {len(changed)} added, gone or changed, "
            f"such as {min(changed)}"
        )


def _check_longer(earlier: list[Phase], phases: list[Phase], keys: list[str]) -> None:
    last = len(earlier) - 1
    alike = len(phases) > last and earlier[:last] == phases[:last]
    if not alike or replace(phases[last], iterations=earlier[last].iterations) != earlier[last]:
        raise UserError(
            f"--resume: {', '.join(keys)}: expected at least the {len(earlier)} phases of the run, found fewer"
        )
    if phases[last].iterations < earlier[last].iterations or (
        len(phases) > len(earlier) and phases[last] != earlier[last]
    ):
        raise UserError(
            f"--resume: {', '.join(keys)}: expected at least the {earlier[last].iterations} iterations of the run, "
            f"found {phases[last].iterations}"
        )


def _contents(paths: Sequence[Path], folder: str) -> dict[str, str | None]:
    contents = photo_contents(paths)
    return {
        Path(path).relative_to(folder).as_posix(): content if isinstance(content, str) else None
        for path, content in zip(paths, contents, strict=True)
    }
