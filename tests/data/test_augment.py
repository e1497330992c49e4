"""Augmentation: each piece against what it should do, the same on all images of a call, seeded."""

import torch

from data.augment import RandomReflectAffine, RandomTranspose, seeded, training_augmentation


def ramp(height: int = 32, width: int = 32) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, (x + y) / 2])


def warp(image: torch.Tensor, angle: float = 0.0, zoom_x: float = 1.0, zoom_y: float = 1.0) -> torch.Tensor:
    transform = RandomReflectAffine(90.0, (0.7, 1.3), 1.0, 1.0)
    return transform.transform(image, {"angle": angle, "zoom_x": zoom_x, "zoom_y": zoom_y})


def test_quarter_turn_equals_rot90():
    image = torch.rand(3, 16, 16)
    turned = warp(image, angle=torch.pi / 2)
    assert min((turned - torch.rot90(image, k, (1, 2))).abs().max() for k in (1, 3)) < 1e-4


def test_rotation_keeps_the_aspect_of_wide_photos():
    image = torch.zeros(1, 40, 80)
    image[:, 15:25, 35:45] = 1  # a square in the centre
    turned = warp(image, angle=torch.pi / 2)
    middle = slice(20, 60)  # further out the reflected border shows the square again
    assert torch.allclose(turned[..., middle], image[..., middle], atol=1e-4)


def test_zoom_magnifies_the_centre():
    image = ramp()
    doubled = warp(image, zoom_x=2.0, zoom_y=2.0)
    assert torch.allclose(doubled[0, 16, [0, -1]], torch.tensor([0.25, 0.75]), atol=0.02)
    assert torch.allclose(warp(image, zoom_x=2.0)[1], image[1], atol=1e-5)  # one axis alone


def test_borders_are_reflected_not_filled():
    bright = torch.full((3, 24, 24), 0.8)
    assert torch.allclose(warp(bright, angle=0.7, zoom_x=0.5, zoom_y=0.5), bright, atol=1e-5)


def test_transpose():
    image = ramp(8, 12)
    assert torch.equal(RandomTranspose(1.0)(image), image.transpose(1, 2))
    assert torch.equal(RandomTranspose(0.0)(image), image)


def test_images_of_one_call_get_the_same_augmentation():
    image = torch.rand(3, 20, 20)
    for seed in range(20):
        a, b = seeded(training_augmentation(), seed, image, image.clone())
        assert torch.equal(a, b)


def test_seed_decides_alone_and_the_callers_generator_is_left_alone():
    image, augment = torch.rand(3, 20, 20), training_augmentation()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = seeded(augment, 11, image)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(seeded(augment, 11, image), first)
    results = {seeded(augment, seed, image).numpy().tobytes() for seed in range(30)}
    assert len(results) > 10


def test_values_stay_in_range_and_probabilities_are_those_of_the_release():
    image = torch.rand(3, 12, 12)
    transform = RandomReflectAffine(90.0, (0.7, 1.3), 0.3, 0.3)
    torch.manual_seed(0)
    drawn = [transform.make_params([image]) for _ in range(4000)]
    assert abs(sum(d["angle"] != 0 for d in drawn) / 4000 - 0.3) < 0.03
    assert abs(sum(d["zoom_x"] != 1 for d in drawn) / 4000 - 0.3) < 0.03
    assert all(abs(d["angle"]) <= torch.pi / 2 and 0.7 <= d["zoom_y"] <= 1.3 for d in drawn)
    augmented = torch.stack([seeded(training_augmentation(), s, image) for s in range(50)])
    assert augmented.min() >= 0
    assert augmented.max() <= 1 + 1e-6
