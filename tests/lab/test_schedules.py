"""When a method has its gain is counted in steps of the UNet and of the guidance, from a run's own log."""

import pytest

from lab import schedules


def test_steps_of_the_guidance_are_counted_apart():
    phases = {"initialisation": 4, "reconstruction": 6, "enhancement 1": 10, "refinement 1": 13, "enhancement 2": 17}
    lines = [{"phase": phase, "iteration": end, "loss": 1.0} for phase, end in phases.items()]
    psnr = {0: 10.0, 6: 10.5, 10: 14.0, 15: 19.6, 17: 20.0}
    lines += [{"iteration": i, "val_psnr": p, "val_ssim": 0.5, "seconds": float(i)} for i, p in psnr.items()]
    curve = schedules.steps_and_scores(lines)
    assert [(p["unet_steps"], p["guidance_steps"]) for p in curve] == [(0, 0), (2, 4), (6, 4), (8, 7), (10, 7)]
    assert schedules.reached(curve, untouched=10.0)["unet_steps"] == 8  # 19.5 dB and more
    assert schedules.reached(curve, untouched=12.0)["val_psnr"] == pytest.approx(19.6)
