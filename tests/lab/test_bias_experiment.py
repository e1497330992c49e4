"""Whether a direction follows light or content is told on photos that differ in nothing else."""

import pytest
import torch

from lab.bias_experiment import GROUPS, MEAN, _of_mean, _responses
from losses.residual import residual_guidance


def test_photos_are_brought_to_one_light_whatever_they_were_exposed_to():
    photo = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    lit, dark = _of_mean(photo, MEAN), _of_mean(photo / 4, MEAN)
    assert lit.mean() == pytest.approx(MEAN, abs=1e-5)
    torch.testing.assert_close(lit, dark)


def test_a_direction_along_light_answers_to_light_alone():
    light, content = torch.eye(4)[0], torch.eye(4)[1]
    probes = {
        group: {"lit": light + side * content.repeat(3, 1), "dark": side * content.repeat(3, 1)}
        for group, side in zip(GROUPS, (1, -1), strict=True)
    }
    guidance = residual_guidance(torch.eye(4)[:2], torch.eye(4)[2:])
    assert _responses(guidance.with_vector(light), probes)["light_response"] == pytest.approx(1)
    assert _responses(guidance.with_vector(light), probes)["content_response"] == pytest.approx(0)
    assert _responses(guidance.with_vector(content), probes) == {
        "light_response": 0.0,
        "content_response": 2.0,
        "content_error": 0.0,
    }
