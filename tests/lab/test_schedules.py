"""When a method has its gain is counted in steps of the UNet and of the guidance, from a run's own log."""

from types import SimpleNamespace

import pytest

from lab import schedules
from tools.compare_methods import METHODS
from training.phases import schedule

ARGS = SimpleNamespace(pairs="pairs", unpaired="unpaired", runs="runs")


def _steps(name: str, method: str) -> dict[str, int]:
    phases = schedule(schedules.configured(name, method, 0, ARGS), photos=286)
    return {module: sum(p.iterations for p in phases if p.trains == module) for module in ("unet", "guidance")}


def test_lengths_are_equal_or_in_the_published_proportions():
    assert len({_steps("ours", method)["unet"] for method in METHODS}) == 1
    assert _steps("published", "RAVE") == {"unet": 5200 // 50, "guidance": 0}
    for method in ("CLIP-LIT", "CLIP-LIT-Latent"):
        assert _steps("published", method) == {"unet": 26200 // 50, "guidance": 20000 // 50}


def test_methods_differ_in_guidance_alone():
    configs = [schedules.configured("ours", method, 1, ARGS) for method in METHODS]
    for section in ("data", "unet_model"):
        assert len({getattr(config, section).model_dump_json() for config in configs}) == 1


def test_steps_of_the_guidance_are_counted_apart():
    phases = {"initialisation": 4, "reconstruction": 6, "enhancement 1": 10, "refinement 1": 13, "enhancement 2": 17}
    lines = [{"phase": phase, "iteration": end, "loss": 1.0} for phase, end in phases.items()]
    psnr = {0: 10.0, 6: 10.5, 10: 14.0, 15: 19.6, 17: 20.0}
    lines += [{"iteration": i, "val_psnr": p, "val_ssim": 0.5, "seconds": float(i)} for i, p in psnr.items()]
    curve = schedules.steps_and_scores(lines)
    assert [(p["unet_steps"], p["guidance_steps"]) for p in curve] == [(0, 0), (2, 4), (6, 4), (8, 7), (10, 7)]
    assert schedules.reached(curve, untouched=10.0)["unet_steps"] == 8  # 19.5 dB and more
    assert schedules.reached(curve, untouched=12.0)["val_psnr"] == pytest.approx(19.6)
