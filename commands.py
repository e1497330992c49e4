"""The commands of an installed copy, such as `backlit-enhance`: what each needs is imported once Ctrl-C is seen to."""

from common.interrupt import without_traceback


def enhance() -> None:
    """`backlit-enhance`: inference.py."""
    _run("inference")


def train() -> None:
    """`backlit-train`: any method, as the config's `exp.mode` says."""
    _run("training.command")


def metrics() -> None:
    """`backlit-metrics`: compute_metrics.py."""
    _run("compute_metrics")


def tools() -> None:
    """`backlit-tools`: `python -m tools`."""
    _run("tools.__main__")


def _run(module: str) -> None:
    without_traceback()
    from importlib import import_module

    from common.cli import run

    run(import_module(module).main)
