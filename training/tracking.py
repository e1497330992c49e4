"""What a run leaves behind: its folder, JSON lines, TensorBoard events and previews."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.console import note
from common.errors import UserError
from common.files import append_line, check_folder, read_file, telling_errors, write_text
from common.lock import Lock
from common.parse import parse_json
from common.paths import is_file
from common.provenance import provenance
from configs.load import dump_config
from configs.schema import TrainConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LARGEST_LOG = 2**28  # bytes of a metrics.jsonl; a million lines


class RunFiles:
    """What is where in a run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.state_file = self.path / "checkpoints" / "last.pt"
        self.best_file = self.path / "checkpoints" / "best.safetensors"
        self.best_val_file = self.path / "checkpoints" / "best_val.safetensors"
        self.guidance_file = self.path / "checkpoints" / "guidance.safetensors"
        self.direction_file = self.path / "checkpoints" / "direction.safetensors"
        self.provenance_file = self.path / "provenance.json"
        self.photos_file = self.path / "photos.json"
        self.previews = self.path / "previews"
        self.summary_file = self.path / "summary.json"  # written last: where it is, the run is finished
        self.outcome_file = self.path / "outcome.json"  # how the run ended, also where it did not finish
        self.report_file = self.path / "report.html"

    def check_free(self, overwrite: bool) -> None:
        """Raises UserError where no run can begin here. overwrite: an earlier one would be deleted, other files not."""
        check_folder(self.path, "exp.save_dir, exp.exp_name")
        if overwrite and self.path.is_dir() and any(self.path.iterdir()) and not self.config_file.is_file():
            raise UserError(
                f"exp.overwrite: expected an earlier run in {self.path}, found other files, which are not deleted"
            )


class RunFolder(RunFiles):
    """`save_dir/exp_name`: config.yaml, provenance.json, metrics.jsonl, tensorboard/, checkpoints/, previews/,
    curves.png, report.html.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(Path(config.exp.save_dir) / config.exp.exp_name)
        self.commit = str(provenance()["commit"])  # of the code that writes
        self.lines = 0  # of metrics.jsonl
        self._events: SummaryWriter | None = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The right to write this run, which one process at a time has. Raises UserError where another has it.

        Its file is beside the folder, which may be moved or deleted meanwhile.
        """
        with Lock(self.path.with_name(f".{self.path.name}.lock"), f"exp.exp_name: {self.path}") as lock:
            if lock.note:
                note(lock.note)
            yield

    def create(self, config: TrainConfig, photos: dict[str, dict[str, str | None]]) -> str | None:
        """Make the folder; an earlier run of this name is moved aside, or deleted with `exp.overwrite`.

        Returns what was done to it.

        photos: of each folder, path -> content (`training.resume.photo_record`).
        """
        done = None
        self.check_free(config.exp.overwrite)
        if self.path.is_dir() and any(self.path.iterdir()):
            if not config.exp.overwrite:
                number = 1
                while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
                    number += 1
                self.path.rename(aside)
                done = f"an earlier run was moved to {aside}"
            else:
                shutil.rmtree(self.path)
                done = f"an earlier run in {self.path} was deleted (exp.overwrite)"
        write_text(self.config_file, dump_config(config))
        write_text(self.provenance_file, _json(provenance()))
        write_text(self.photos_file, _json(photos))
        return done

    def reopen(self, config: TrainConfig, total: int, lines: int) -> None:
        """Go on with an earlier run from iteration `total`; of its log the first `lines` are kept.

        Where it goes on, and with which code, is added to its provenance. The config may have changed in where photos
        lie and in length; the run is not finished any more.
        """
        self.summary_file.unlink(missing_ok=True)
        self.outcome_file.unlink(missing_ok=True)
        write_text(self.config_file, dump_config(config))
        if self.metrics_file.is_file():
            kept = _log_lines(self.metrics_file)[:lines]  # what follows is done again
            write_text(self.metrics_file, "".join(f"{line}\n" for line in kept))
        try:
            record = parse_json(self.provenance_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = {}
        record = record if isinstance(record, dict) else {}
        before = record.get("resumed")
        record["resumed"] = [*(before if isinstance(before, list) else []), {"iteration": total, **provenance()}]
        write_text(self.provenance_file, _json(record))
        self.lines = lines
        with self._tensorboard(purge_step=total + 1):
            pass

    def log(self, iteration: int, values: dict[str, Any], tag: str = "train") -> None:
        """One line of metrics.jsonl, and the numbers among `values` as TensorBoard scalars."""
        append_line(self.metrics_file, json.dumps({"iteration": iteration, **values}))
        self.lines += 1
        with self._tensorboard() as events:
            for name, value in values.items():
                if isinstance(value, float):
                    events.add_scalar(f"{tag}/{name}", value, iteration)

    def show(self, iteration: int, picture: np.ndarray) -> None:
        """A preview (H,W,3) uint8 for TensorBoard."""
        with self._tensorboard() as events:
            events.add_image("preview", picture, iteration, dataformats="HWC")

    @contextmanager
    def _tensorboard(self, purge_step: int | None = None) -> "Iterator[SummaryWriter]":
        from torch.utils.tensorboard import SummaryWriter  # takes seconds, and reading a run needs none

        with telling_errors(self.path / "tensorboard" / "events"):
            if self._events is None:
                self._events = SummaryWriter(self.path / "tensorboard", purge_step=purge_step)
            yield self._events

    def finish(self, summary: dict) -> None:
        """Write the summary, by which a run counts as finished."""
        write_text(self.summary_file, _json(summary))

    def close(self, outcome: dict) -> None:
        """Close the log, and write how the run ended."""
        with self._tensorboard() as events:
            events.close()
        write_text(self.outcome_file, _json(outcome))


def _json(content: dict) -> str:
    return json.dumps(content, indent=2) + "\n"


def _log_lines(file: Path) -> list[str]:
    """The lines of a log; bytes that are no text spoil their own line, not the run."""
    return read_file(file, limit=LARGEST_LOG).decode("utf-8-sig", errors="replace").splitlines()


def read_metrics(file: Path) -> list[dict]:
    """The lines of a metrics.jsonl; none where it does not exist yet. Damaged lines are left out with a note."""
    lines, damaged = parse_metrics(file)
    for number in damaged:
        note(f"{file}: line {number} is left out, expected the JSON of an iteration")
    return lines


def parse_metrics(file: Path) -> tuple[list[dict], list[int]]:
    """The lines of a metrics.jsonl, and the numbers of those that are damaged."""
    lines, damaged = [], []
    for number, line in enumerate(_log_lines(file) if is_file(file) else [], 1):
        try:
            content = parse_json(line)
        except ValueError:
            content = None
        if isinstance(content, dict) and "iteration" in content:
            lines.append(content)
        else:
            damaged.append(number)
    return lines, damaged
