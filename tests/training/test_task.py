"""What the loop asks of a task, and that it knows no more than that."""

import ast
from dataclasses import replace

import pytest
import torch
from torch import nn

from common.paths import REPO_ROOT
from training.guards import TrainingDiverged, check_finite
from training.guidance_task import GuidanceTask
from training.phases import GUIDANCE_TERMS, UNET_TERMS, Phase, last_phase
from training.state import TrainState
from training.task import Task
from training.unet_task import UNetTask, schedule_progress

START = Phase(name="reconstruction", trains="unet", iterations=10, terms={"identity": 1.0}, best_by="input_psnr")
FIRST_MAP = Phase(name="first map", trains="unet", iterations=10, terms={"map": 1.0})
GUIDED = Phase(name="rave", trains="unet", iterations=40, terms={"identity": 1.0, "residual": 1.0})
LEARNT = Phase(name="refinement 1", trains="guidance", iterations=5, terms={"ranking": 1.0})


def tree(module: str) -> ast.Module:
    return ast.parse((REPO_ROOT / "training" / module).read_text(encoding="utf-8"))


def state(**counters) -> TrainState:
    module = nn.Linear(1, 1)
    made = TrainState({"unet": module}, {"unet": torch.optim.Adam(module.parameters())})
    for name, value in counters.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("module", ["loop.py", "unet_task.py", "guidance_task.py", "plots.py"])
def test_loss_terms_are_named_in_phases_alone(module):
    texts = {node.value for node in ast.walk(tree(module)) if isinstance(node, ast.Constant)}
    panels = {"map"} if module == "plots.py" else set()  # a panel of the map itself has its name
    assert not texts & {*UNET_TERMS, *GUIDANCE_TERMS} - panels


def test_the_loop_knows_no_method():
    imported = {node.module for node in ast.walk(tree("loop.py")) if isinstance(node, ast.ImportFrom)}
    rooms = {name.split(".")[0] for name in imported}
    assert not rooms & {"losses", "models"} and not imported & {"training.unet_task", "training.guidance_task"}
    assert issubclass(UNetTask, Task) and issubclass(GuidanceTask, Task)


@pytest.mark.parametrize(
    ("phases", "counters", "expected"),
    [
        ([START, GUIDED], {"phase": 0, "iteration": 5, "planned": 10}, 0.0),  # a reconstruction has no schedule
        ([FIRST_MAP, GUIDED], {"phase": 0, "iteration": 5, "planned": 10}, 0.5),
        ([START, GUIDED], {"phase": 1, "iteration": 10, "planned": 40}, 0.25),
        ([START, GUIDED], {"phase": 1, "iteration": 10, "planned": 50}, 0.2),  # extended
        ([GUIDED, LEARNT, GUIDED], {"phase": 2, "iteration": 20, "planned": 40}, 0.75),
        ([replace(GUIDED, settle_at=0.5)], {"iteration": 30, "planned": 40}, 0.0),
        ([replace(GUIDED, settle_at=0.5)], {"iteration": 30, "planned": 40, "settled_at": 20}, 0.5),
    ],
)
def test_the_learning_rate_falls_through_what_its_schedule_spans(phases, counters, expected):
    assert schedule_progress(phases, state(**counters)) == expected


def test_the_psnr_is_that_of_the_error_over_all_processes():
    task = UNetTask.__new__(UNetTask)
    means = {"loss": 1.0, "input_error": 0.01, "mean_illumination": 0.5}
    assert task.logged(means) == {"loss": 1.0, "mean_illumination": 0.5, "input_psnr": pytest.approx(20.0)}
    assert START.score(task.logged(means)) == pytest.approx(20.0) and GUIDED.score(means) == -1.0
    assert not task.is_dead(means) and task.is_dead({"mean_illumination": 0.0})


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_what_is_not_finite_is_told_with_the_key_to_lower(loss, norm):
    check_finite(GUIDED, state(), {"loss": 1.0, "gradient_norm": 1.0})
    with pytest.raises(
        TrainingDiverged, match=r"rave, iteration 7: .*lower unet_model\.lr or set unet_model\.grad_clip"
    ):
        check_finite(GUIDED, state(total=7), {"loss": loss, "gradient_norm": norm})
    with pytest.raises(TrainingDiverged, match=r"lower guidance_model\.lr$"):
        check_finite(LEARNT, state(), {"loss": loss, "gradient_norm": norm})


def test_the_last_phase_of_each_module():
    assert last_phase([START, LEARNT, GUIDED, LEARNT], "unet") == 2
    assert last_phase([START, LEARNT, GUIDED, LEARNT], "guidance") == 3


def test_the_best_validation_is_kept_with_its_iteration():
    made = state(total=3)
    first, second = {"a": torch.zeros(1)}, {"a": torch.ones(1)}
    assert made.keep_best_val(20.0, first)
    made.total = 6
    assert not made.keep_best_val(20.0, second)
    assert (made.best_val, made.best_val_total, made.best_val_psnr) == (first, 3, 20.0)
