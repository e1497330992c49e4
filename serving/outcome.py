"""What became of the photos of a run."""

from dataclasses import dataclass, field
from pathlib import Path

from serving.jobs import Job


@dataclass
class Outcome:
    """What became of a list of jobs."""

    enhanced: int = 0
    skipped: int = 0
    pixels: int = 0
    """Of the enhanced photos together."""
    failures: list[tuple[Path, str]] = field(default_factory=list)
    """Photo and reason (one line), in the order of the jobs."""
    notes: list[tuple[Path, str]] = field(default_factory=list)
    """Photo and what its owner should know, such as "animated: first of 12 frames"."""
    fault: str | None = None
    """Traceback of the first failure that is no photo's fault but a bug."""
    seconds: dict[Path, float] = field(default_factory=dict)
    """Of each enhanced photo: its reading, computing and writing; together more than the run takes, which overlaps
    those of several photos.
    """


def together(outcomes: list[Outcome], jobs: list[Job]) -> Outcome:
    """One outcome of several that share a list of jobs; failures and notes in the order of the jobs."""
    order = {job.source: number for number, job in enumerate(jobs)}
    result = Outcome(*(sum(getattr(o, name) for o in outcomes) for name in ("enhanced", "skipped", "pixels")))
    for name in ("failures", "notes"):
        getattr(result, name).extend(
            sorted((item for o in outcomes for item in getattr(o, name)), key=lambda item: order[item[0]])
        )
    result.fault = next((o.fault for o in outcomes if o.fault), None)
    result.seconds = {source: taken for o in outcomes for source, taken in o.seconds.items()}
    return result
