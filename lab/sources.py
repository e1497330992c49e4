"""Where the figures of the documents lie, and on what they were measured, in words."""

import json
from collections.abc import Iterable

from common.paths import REPO_ROOT

RESULTS = REPO_ROOT / "docs" / "results"
BUSY = 1.5  # load a core, above which other work ran beside a measurement; its times are long, their ratios hold


def load(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def cases(kind: str) -> dict:
    """The cases of `make bench`: "inference", "training", "network" or "growth"."""
    return json.loads((RESULTS / "bench.json").read_text(encoding="utf-8")).get(kind, {})


def measured_on(result: dict, rows: Iterable[str] = ()) -> str:
    """Hardware and commit of a result. rows: only those of these rows, where several runs of the command made them."""
    if "measured" not in result:
        return each_measured_on({"": result})
    measured = result["measured"]
    runs = dict.fromkeys(name if name in measured else "others" for name in rows or measured)
    return each_measured_on({name: measured[name] for name in runs})


def each_measured_on(rows_of: dict) -> str:
    """Of cases that may have been measured one by one: the commit of most rows, then the others with their rows."""
    devices = dict.fromkeys(device_of(case) for case in rows_of.values())
    rows: dict[str, list[str]] = {}
    for name, case in rows_of.items():
        rows.setdefault(commit_of(case), []).append(name)
    most, *others = sorted(rows, key=lambda commit: -len(rows[commit]))
    commits = [most, *(f"{commit} ({'; '.join(rows[commit])})" for commit in others)]
    text = f"{'; '.join(devices)}, commit{'s' if others else ''} {', '.join(commits)}"
    busy = [name for name, case in rows_of.items() if case.get("load", 0) > BUSY * case["hardware"]["cores"]]
    if busy:
        text += ", beside other work" + (f": {'; '.join(busy)}" if len(busy) < len(rows_of) else "")
    return text


def commit_of(result: dict) -> str:
    return result["commit"][:8] + (" with uncommitted changes" if result["uncommitted_changes"] else "")


def device_of(result: dict) -> str:
    hardware = result["hardware"]
    if hardware["gpu"]:
        return hardware["gpu"]
    bf16 = f" with {hardware['bf16']}" if hardware.get("bf16") else ""
    threads = result.get("OMP_NUM_THREADS")
    cores = f"{threads} of {hardware['cores']}" if threads else f"{hardware['cores']}"
    return f"{cores} cores of {hardware['processor']}{bf16}"


def runs_on(rows: dict, name: str = "claims") -> str:
    """Hardware and commits of the runs in a JSON file of `docs/results/`."""
    runs = [row for seeds in rows.values() for row in seeds.values() if "hardware" in row]
    devices = sorted({f"{run['hardware']['cores']} cores of {run['hardware']['processor']}" for run in runs})
    commits = sorted({commit_of(run) for run in runs})
    where = "; ".join(devices)
    return (
        f"{where}, commit {', '.join(commits)}; curves and commands: [docs/results/{name}.json](results/{name}.json)."
    )
