"""Losses: equality with the authors' code (values and gradients), properties, argument checks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losses.guidance import clip_guidance_loss, initialisation_loss, negative_similarity
from losses.identity import identity_loss
from losses.ranking import refinement_loss
from losses.residual import (
    ResidualGuidance,
    between,
    in_space,
    photo_set_points,
    remove,
    residual_guidance,
    residual_loss,
    shift,
    weighted_sum,
)

RELEASE_MARGINS = {"m0": 0.9, "m1": 0.1, "m2": 0.1}


def relative(a, b) -> float:
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return float((a - b).norm() / b.norm())


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


# --- golden -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "weights"), [("recon", [1, 1, 1, 1, 1]), ("enh", [1, 1, 1, 1, 0.5])])
def test_identity_loss_and_gradient_equal_the_authors(resnet, tiny_clip, name, weights):
    result = tiny_clip["inputs"]["pred"].clone().requires_grad_()
    loss = identity_loss(resnet.feature_maps(result), resnet.feature_maps(tiny_clip["inputs"]["inp"]), weights)
    assert relative(loss.detach(), tiny_clip["expected"][f"l_identity_sum_{name}"]) < 1e-3
    loss.backward()
    assert relative(result.grad, tiny_clip["expected"][f"l_identity_grad_{name}"]) < 1e-3


def test_clip_guidance_and_gradient_equal_the_authors(vit, tiny_clip):
    result = tiny_clip["inputs"]["pred"].clone().requires_grad_()
    loss = clip_guidance_loss(vit.embed_images(result), tiny_clip["inputs"]["guidance"])
    assert relative(loss.detach(), tiny_clip["expected"]["l_clip"]) < 1e-3
    loss.backward()
    assert relative(result.grad, tiny_clip["expected"]["l_clip_grad"]) < 1e-3


def test_residual_and_rave_loss_and_gradient_equal_the_authors(vit, tiny_clip):
    inputs, expected = tiny_clip["inputs"], tiny_clip["expected"]
    guidance = residual_guidance(vit.embed_images(inputs["welllit"]), vit.embed_images(inputs["backlit"]))
    for found, name in (
        (guidance.vector, "v_residual"),
        (guidance.well_lit, "v_well_lit"),
        (guidance.backlit, "v_backlit"),
    ):
        assert relative(found, expected[name]) < 1e-3
    assert guidance.target == pytest.approx(float(expected["residual_target"]), rel=1e-3)
    result = inputs["pred"].clone().requires_grad_()
    loss = residual_loss(vit.embed_images(result), guidance)
    assert relative(loss.detach(), expected["l_rave"]) < 1e-3
    loss.backward()
    assert relative(result.grad, expected["l_rave_grad"]) < 1e-3


@pytest.mark.parametrize("n", [1, 4, 8])
def test_shift_equals_the_formula_on_the_authors_embeddings(tiny_clip, n):
    """The formula step by step, in numpy, from their residual and text embeddings."""
    expected = {
        name: tiny_clip["expected"][name].double().numpy()
        for name in ("v_residual", "v_well_lit", "v_backlit", "word_text_features")
    }
    r, words = expected["v_residual"], expected["word_text_features"]
    words = words / np.linalg.norm(words, axis=1, keepdims=True)
    ranked = sorted(((float(word @ r), tuple(word)) for word in words), reverse=True)
    means = []
    for end in (ranked[:n], ranked[-n:]):
        mean = np.mean([cosine * np.array(word) for cosine, word in end], axis=0)
        means.append(mean / np.linalg.norm(mean))
    u = (means[0] + means[1]) / np.linalg.norm(means[0] + means[1])
    shifted = r - (u @ r) * u
    shifted /= np.linalg.norm(shifted)

    well_lit, backlit = (tiny_clip["expected"][name] for name in ("v_well_lit", "v_backlit"))
    found = shift(residual_guidance(well_lit[None], backlit[None]), tiny_clip["expected"]["word_text_features"], n)
    assert relative(found.vector, torch.from_numpy(shifted)) < 1e-4
    assert found.target == pytest.approx(float(expected["v_well_lit"] @ shifted), rel=1e-4, abs=1e-5)


def test_ranking_equals_the_authors(tiny_clip):
    backlit, previous, current, well_lit = tiny_clip["expected"]["scores_b_t1_t_w"]
    for name, scores in (
        ("l_margin_2", [backlit, well_lit]),
        ("l_margin_3", [backlit, current, well_lit]),
        ("l_margin_4", [backlit, previous, current, well_lit]),
    ):
        assert relative(refinement_loss(scores, RELEASE_MARGINS), tiny_clip["expected"][name]) < 1e-3


def test_initialisation_equals_the_authors(vit, tiny_clip):
    inputs, expected = tiny_clip["inputs"], tiny_clip["expected"]
    loss = initialisation_loss(
        vit.embed_images(inputs["pred"]), expected["prompt_text_features"], torch.tensor([0, 1, 0])
    )
    assert relative(loss, expected["l_ce_init"]) < 1e-3


# --- properties ---------------------------------------------------------------------------------


def test_identity_loss_reductions_and_zero():
    maps = [torch.rand(4, 2, 3, 3) for _ in range(5)]
    other = [m + 0.5 for m in maps]
    weights = [1, 2, 0, 0, 0.5]
    assert identity_loss(maps, maps, weights) == 0
    assert identity_loss(other, maps, weights, "mean") == pytest.approx(0.25 * 3.5, rel=1e-5)
    assert identity_loss(other, maps, weights, "sum") == pytest.approx(4 * 0.25 * 3.5, rel=1e-5)


def test_identity_loss_checks_its_arguments():
    maps = [torch.rand(1, 2, 3, 3)]
    with pytest.raises(ValueError, match="as many maps as weights"):
        identity_loss(maps, maps, [1, 1])
    with pytest.raises(ValueError, match="reduction"):
        identity_loss(maps, maps, [1], "median")
    with pytest.raises(ValueError, match="one shape"):
        identity_loss(maps, [torch.rand(1, 2, 2, 2)], [1])


def test_residual_properties():
    well_lit, backlit = unit(7, 16), unit(5, 16, seed=1)
    guidance = residual_guidance(well_lit, backlit)
    assert guidance.vector.norm() == pytest.approx(1)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(
        residual_guidance(well_lit[order] * 3, backlit).vector, guidance.vector
    )  # neither order nor norm of photos counts
    assert torch.allclose(residual_guidance(backlit, well_lit).vector, -guidance.vector)
    assert residual_loss(guidance.well_lit[None], guidance) < 1e-12  # the well-lit mean sits at the set point


def test_residual_loss_pulls_to_the_set_point_and_gradchecks():
    guidance = residual_guidance(unit(7, 6), unit(5, 6, seed=1))
    embeddings = unit(3, 6, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: residual_loss(e, guidance), embeddings)
    assert residual_loss(guidance.vector[None], guidance) == pytest.approx(
        (1 - guidance.target) ** 2
    )  # beyond the set point costs too


def test_set_points_of_photos_let_their_content_cancel():
    """What is added to a photo and its target alike, in any part that r does not explain, changes nothing."""
    generator = torch.Generator().manual_seed(3)
    well_lit, backlit = (F.normalize(torch.randn(7, 9, generator=generator) + level, dim=1) for level in (1.0, -1.0))
    guidance = residual_guidance(well_lit, backlit)
    assert guidance.step == pytest.approx(
        float((well_lit @ guidance.vector).mean() - (backlit @ guidance.vector).mean())
    )
    points = photo_set_points(backlit, guidance)
    assert torch.allclose(points, backlit @ guidance.vector + guidance.step, atol=1e-6)
    assert torch.allclose(photo_set_points(backlit, guidance, 0.5), points - 0.5 * guidance.step, atol=1e-6)
    results = F.normalize(torch.randn(7, 9, generator=generator), dim=1).double().requires_grad_()
    double = ResidualGuidance(**{k: v.double() if torch.is_tensor(v) else v for k, v in vars(guidance).items()})
    errors = F.normalize(results, dim=1) @ double.vector - points.double()
    expected = errors.square().mean().item()
    assert residual_loss(results, double, points.double()).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda x: residual_loss(x, double, points.double()), results)
    turned = guidance.with_vector(-guidance.vector)
    assert turned.step == pytest.approx(-guidance.step)


def test_tokens_of_the_last_layer_leave_what_stands_before_them():
    guidance = residual_guidance(*(torch.randn(5, 12, generator=torch.Generator().manual_seed(s)) for s in (1, 2)))
    tokens = torch.randn(40, 8, generator=torch.Generator().manual_seed(4))
    assert in_space(tokens, 12)[:, :4].abs().max() == 0
    padded = F.pad(tokens, (4, 0))
    for change in (lambda t: shift(guidance, t, 6), lambda t: remove(guidance, t[:3])):
        assert torch.allclose(change(tokens).vector, change(padded).vector, atol=1e-6)


def test_residual_refuses_what_has_no_direction():
    same = unit(4, 8)
    with pytest.raises(ValueError, match="no residual"):
        residual_guidance(same, same)
    with pytest.raises(ValueError, match="at least one photo"):
        residual_guidance(same[:0], same)


@pytest.mark.parametrize("n", [1, 3, 10])
def test_shift_removes_what_the_tokens_share(n):
    guidance, tokens = residual_guidance(unit(7, 16), unit(5, 16, seed=1)), unit(40, 16, seed=2)
    shifted = shift(guidance, tokens, n)
    assert shifted.vector.norm() == pytest.approx(1)
    cosines = tokens @ guidance.vector
    order = cosines.argsort()
    high = F.normalize((cosines[order[-n:], None] * tokens[order[-n:]]).sum(0), dim=0)
    low = F.normalize((cosines[order[:n], None] * tokens[order[:n]]).sum(0), dim=0)
    assert abs(float(shifted.vector @ F.normalize(high + low, dim=0))) < 1e-9
    assert shifted.target == pytest.approx(float(guidance.well_lit @ shifted.vector))


def test_shift_by_nothing_changes_nothing_and_too_much_is_refused():
    guidance, tokens = residual_guidance(unit(7, 16), unit(5, 16, seed=1)), unit(10, 16, seed=2)
    assert shift(guidance, tokens, 0) is guidance
    with pytest.raises(ValueError, match="expected 0 to half"):
        shift(guidance, tokens, 6)


def test_removed_words_are_orthogonal_and_order_or_repetition_does_not_count():
    guidance, words = residual_guidance(unit(7, 16), unit(5, 16, seed=1)), unit(4, 16, seed=2)
    without = remove(guidance, words)
    assert without.vector.norm() == pytest.approx(1)
    assert (words @ without.vector).abs().max() < 1e-9
    assert without.target == pytest.approx(float(guidance.well_lit @ without.vector))
    again = remove(guidance, torch.cat([words.flip(0) * 3, words[:2]]))  # synonyms: more words than they span
    assert torch.allclose(again.vector, without.vector, atol=1e-9)
    assert remove(guidance, words[:0]) is guidance
    with pytest.raises(ValueError, match="no direction is left"):
        remove(guidance, torch.eye(16, dtype=torch.float64))


def test_directions_of_pairs_and_sums():
    a, b = unit(2, 8)
    direction = between(torch.stack([a * 2, b * 5]))  # norms do not count
    assert torch.allclose(direction, F.normalize(b - a, dim=0))
    assert torch.allclose(between(torch.stack([b, a])), -direction)
    assert torch.allclose(weighted_sum([a * 3, b], [2, -1]), F.normalize(2 * a - b, dim=0))
    for call, message in (
        (lambda: between(torch.stack([a, a])), "same embedding"),
        (lambda: between(unit(3, 8)), "pair"),
        (lambda: weighted_sum([a, a], [1, -1]), "cancel"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_another_direction_keeps_the_folders_and_gets_its_own_set_point():
    guidance = residual_guidance(unit(7, 8), unit(5, 8, seed=1))
    other = guidance.with_vector(unit(1, 8, seed=3)[0] * 4)
    assert other.vector.norm() == pytest.approx(1)
    assert other.target == pytest.approx(float(guidance.well_lit @ other.vector))
    assert other.start == pytest.approx(float(guidance.backlit @ other.vector))
    assert torch.equal(other.well_lit, guidance.well_lit)
    assert guidance.with_vector(guidance.vector).target == pytest.approx(guidance.target)
    for vector in (torch.zeros(8), torch.full((8,), float("nan")), torch.ones(7)):
        with pytest.raises(ValueError, match="direction"):
            guidance.with_vector(vector)


def test_negative_similarity_tells_backlit_from_well_lit():
    guidance = unit(2, 8)
    scores = negative_similarity(guidance * 5, guidance)
    assert scores[0] > 0.99
    assert scores[1] < 0.01
    assert torch.autograd.gradcheck(lambda e: clip_guidance_loss(e, guidance), unit(3, 8, seed=1).requires_grad_())
    with pytest.raises(ValueError, match="guidance"):
        negative_similarity(unit(3, 8), unit(3, 8))


def test_ranking_is_zero_once_the_order_holds_and_refuses_other_counts():
    scores = [torch.full((4,), s) for s in (1.0, 0.1, 0.0)]
    assert refinement_loss([scores[0], scores[2]], RELEASE_MARGINS) == 0
    assert refinement_loss([torch.zeros(4), torch.ones(4)], RELEASE_MARGINS) == 2.0
    stages = [torch.tensor([value]) for value in (0.9, 0.8, 0.75, 0.7)]  # every pair is within its margin
    margins = {"m0": 0.9, "m1": 0.1, "m2": 0.3}
    expected = (0.7 - 0.9 + 0.9) + (0.8 - 0.9 + 0.9) + (0.75 - 0.8 + 0.3) + (0.7 - 0.75 + 0.1)
    assert refinement_loss(stages, margins).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="two to four"):
        refinement_loss([scores[0]] * 5, RELEASE_MARGINS)
    with pytest.raises(ValueError, match="two to four"):
        refinement_loss([scores[0]], RELEASE_MARGINS)
    assert refinement_loss(stages, SimpleNamespace(**margins)).item() == pytest.approx(expected)
