"""When a training starts anew, goes back, goes on or gives up: decisions on counters alone."""

import re
from dataclasses import replace

import pytest

from training.guards import (
    GO_ON,
    MAX_COLLAPSES,
    MAX_RESTARTS,
    RESTART_ITERATIONS,
    TrainingDiverged,
    after_iteration,
    on_dead_map,
)
from training.phases import Phase
from training.state import TrainState

START = Phase(name="reconstruction", trains="unet", iterations=1000, terms={"identity": 25.0}, guard_psnr=8.0)
GUIDED = Phase(
    name="rave",
    trains="unet",
    iterations=10,
    terms={"identity": 22.5, "residual": 1920.0},
    extend_while_loss_above=90.0,
    extension_iterations=60,
    max_extensions=2,
)


def state(**counters) -> TrainState:
    return TrainState({}, {}, best_total={"unet": 40}, **{"planned": 10, **counters})


def test_a_dead_start_begins_anew():
    decision = on_dead_map(START, state(total=1, iteration=1), first=True)
    assert (decision.action, decision.more) == ("restart", 0)
    assert decision.why == "reconstruction: the map is zero everywhere; starting over with another seed"
    with pytest.raises(TrainingDiverged, match=r"zero everywhere, as from 10 other seeds; .*unet_model\.map_bias"):
        on_dead_map(START, state(restarts=MAX_RESTARTS), first=True)


@pytest.mark.parametrize("first", [True, False])
def test_a_map_that_died_later_goes_back(first):
    learned = {"scores": [20.0], "total": 50}
    decision = on_dead_map(START, state(**learned), first=first)
    assert decision.action == "go back" and decision.more == 0
    assert decision.why == "reconstruction: results turned white, back to iteration 40 at half the learning rate"
    for phase, key in ((START, r"unet_model\.reconstruction_lr"), (GUIDED, r"unet_model\.lr or loss\.residual")):
        with pytest.raises(TrainingDiverged, match=rf"turned white 6 times, the last at iteration 50; lower {key}"):
            on_dead_map(phase, state(collapses=MAX_COLLAPSES, **learned), first=first)


def test_a_guided_phase_without_scores_goes_back_where_a_start_was_learned():
    assert on_dead_map(GUIDED, state(), first=False).action == "go back"


@pytest.mark.parametrize(
    ("iteration", "scores", "missed"),
    [(99, [7.0], False), (100, [7.0, 7.9], True), (100, [8.0, 8.1], False), (100, [], False), (101, [7.0], False)],
)
def test_a_missed_start_begins_anew_once_at_the_guard(iteration, scores, missed):
    decision = after_iteration(START, state(iteration=iteration, planned=1000, scores=scores))
    assert (decision.action, decision.more) == (("restart", RESTART_ITERATIONS) if missed else ("go on", 0))
    if missed:
        assert "7.5 dB after 100 iterations" in decision.why
        with pytest.raises(TrainingDiverged, match=r"7\.5 dB after 100 iterations, as from 10 other seeds"):
            after_iteration(START, state(iteration=100, planned=1000, scores=scores, restarts=MAX_RESTARTS))


@pytest.mark.parametrize(
    ("iteration", "losses", "extensions", "extended"),
    [
        (9, [100], 0, False),
        (10, [100, 81], 0, True),
        (10, [100], 1, True),
        (10, [100], 2, False),
        (10, [90], 0, False),
        (10, [], 0, False),
    ],
)
def test_a_loss_above_the_threshold_extends_the_phase(iteration, losses, extensions, extended):
    found = after_iteration(GUIDED, state(iteration=iteration, losses=losses, extensions=extensions))
    assert (found.action, found.more) == (("extend", 60) if extended else ("go on", 0))
    told = {(0, True): "rave: loss 90.50 above thr_loss 90: +60 iterations, at most 2 times"}
    told[2, False] = "rave: loss 100.00, still above thr_loss 90 after 2 extensions"  # the others are no news
    assert found.why == told.get((extensions, extended), "")


def test_a_phase_shorter_than_its_last_iterations_is_told_at_once():
    found = after_iteration(replace(SETTLING, iterations=10), state(iteration=1, losses=[1.0]))
    assert (found.action, found.more) == ("settle", 0)
    assert found.why == "rave: not longer than unet_model.settle_iters (40), so its learning rate falls from the start"


SETTLING = replace(GUIDED, iterations=200, settle_at=0.6, settle_iterations=40)


@pytest.mark.parametrize(
    ("iteration", "ways", "decided"),
    [
        (99, [0.6] * 29, ("go on", 0)),  # too few to tell
        (100, [0.5] * 15 + [0.68] * 15, ("go on", 0)),
        (100, [0.5] * 15 + [0.72] * 15, ("settle", -60)),
        (180, [0.9] * 30, ("settle", 0)),  # never longer than planned
        (160, [0.1] * 30, ("settle", 0)),  # the last ones, whether or not results are there
    ],
)
def test_last_iterations_begin_where_results_are_near_the_set_point(iteration, ways, decided):
    counters = {"iteration": iteration, "planned": 200, "losses": [1.0]}
    found = after_iteration(SETTLING, state(ways=ways, **counters))
    assert (found.action, found.more) == decided
    assert decided[0] == "go on" or "of the way to well-lit" in found.why
    assert after_iteration(SETTLING, state(ways=ways, settled_at=90, **counters)) == GO_ON


def test_a_phase_without_guards_goes_on():
    bare = Phase(name="first map", trains="unet", iterations=10, terms={"map": 1.0})
    assert after_iteration(bare, state(iteration=10, scores=[1.0], losses=[1e9])) == GO_ON


@pytest.mark.parametrize(
    ("phase", "key"),
    [
        (replace(GUIDED, name="reconstruction", terms={"identity": 1.0}), "unet_model.reconstruction_lr"),
        (replace(GUIDED, terms={"pixel": 1.0}), "unet_model.lr"),
        (GUIDED, "unet_model.lr or loss.residual"),
    ],
)
def test_an_end_in_white_names_the_rate_that_the_phase_has(phase, key):
    with pytest.raises(TrainingDiverged, match=f"lower {re.escape(key)}"):
        on_dead_map(phase, state(collapses=MAX_COLLAPSES, scores=[1.0]), first=False)
