"""What `mini-clip` knows of light and of things, on photos that it was not trained on.

Shape letters: N photos, D embedding size, P side of a photo in pixels.
"""

import torch
from torch import Tensor, nn

from data.backlight import linear_to_srgb, simulate_backlight, srgb_to_linear
from data.samples import sample_picture
from lab.captions import FIRST_THING, GROUPS, WORDS, with_article
from losses.residual import residual_guidance
from metrics.subjects import SUBJECTS
from models.mini_clip import CONTENT, SIDE

CURVE = (-4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # stops, the exposure response that is measured
SURE = 0.5  # probability from which the classifier is taken for right
SAMPLES = ("chelsea.png", "coffee.png", "rocket.jpg")  # of scikit-image; the classifier is sure of each
KINDS = [name for name in GROUPS if name not in {subject.removesuffix("s") for subject in SUBJECTS}]
DARK = 2.0  # stops


@torch.no_grad()
def evaluate(
    encoder, exposure: nn.Module, classifier, training: list[list[Tensor]], held_out: list[list[Tensor]]
) -> dict:
    """Figures of held-out photos (3,P,P), well-lit and backlit; r and τ come from the training ones, as in RAVE."""

    def embed(photos: list[Tensor]) -> Tensor:
        return torch.cat([encoder.embed_images(torch.stack(photos[i : i + 32])) for i in range(0, len(photos), 32)])

    generator = torch.Generator().manual_seed(1)
    photos = [*held_out[0], *map(_sample, SAMPLES)]
    backlit = [simulate_backlight(photo, generator).photo for photo in photos]
    figures = light(encoder, exposure, embed, training, held_out, backlit[: len(held_out[0])])
    probabilities = classifier.look(photos)
    figures |= things(encoder, embed, classifier, photos, probabilities)
    figures["things_in_light"] = things_in_light(encoder, embed(photos), embed(backlit), probabilities)
    return figures


def light(encoder, exposure: nn.Module, embed, training: list, held_out: list, simulated: list) -> dict:
    """What words and the residual say of light; `simulated`: the held-out well-lit photos, backlit."""
    guidance = residual_guidance(*(embed(photos) for photos in training))
    well_lit, backlit = (embed(photos) for photos in held_out)
    simulated = embed(simulated)
    texts = encoder.embed_texts(["a backlit photo", "a well-lit photo"])

    def accuracy(positive: Tensor, negative: Tensor) -> float:
        margins = [embeddings @ (texts[0] - texts[1]) for embeddings in (positive, negative)]
        return ((margins[0] > 0).float().mean() + (margins[1] <= 0).float().mean()).item() / 2

    def auc(high: Tensor, low: Tensor) -> float:
        return ((high @ guidance.vector)[:, None] > (low @ guidance.vector)).float().mean().item()

    curve, errors = {}, []
    for stops in CURVE:
        embeddings = embed([_exposed(photo, stops) for photo in held_out[0][:40]])
        curve[f"{stops:+g}"] = (embeddings @ guidance.vector).mean().item()
        errors.append((exposure(embeddings[:, CONTENT:])[:, 0] * 5 - stops).abs().mean().item())
    dark = torch.stack([_exposed(photo, -DARK) for photo in held_out[0][:40]])
    with torch.enable_grad():
        gain = torch.ones(len(dark), 1, 1, 1, requires_grad=True)
        (encoder.embed_images((dark * gain).clamp(0, 1)) @ guidance.vector).sum().backward()
    return {
        "zero_shot_accuracy_real": accuracy(backlit, well_lit),
        "zero_shot_accuracy_simulated": accuracy(simulated, well_lit),
        "exposure_error_stops": sum(errors) / len(errors),
        "cosine_of_means": float(guidance.well_lit @ guidance.backlit),
        "residual_auc_real": auc(well_lit, backlit),
        "residual_auc_simulated": auc(well_lit, simulated),
        "target": guidance.target,
        "share_of_dark_photos_whose_gradient_brightens": (gain.grad > 0).float().mean().item(),
        "response": curve,
    }


def things(encoder, embed, classifier, photos: list[Tensor], probabilities: Tensor) -> dict:
    """How often the caption of the class that the classifier is sure of is the nearest of 1,000, and among five."""
    captions = encoder.embed_texts([f"a photo of {with_article(names[0])}" for names in WORDS[FIRST_THING:][:1000]])
    sure = probabilities.amax(dim=1) > SURE
    truth = probabilities.argmax(dim=1)[sure]
    shown = [photo for photo, is_sure in zip(photos, sure, strict=True) if is_sure]
    dark = [_exposed(photo, -DARK) for photo in shown]

    def ranks(scores: Tensor) -> dict:
        rank = (scores > scores.gather(1, truth[:, None])).sum(dim=1)
        return {f"first_{n}": (rank < n).float().mean().item() for n in (1, 5)}

    rows = {"by captions": embed(shown) @ captions.T, "by captions, two stops darker": embed(dark) @ captions.T}
    rows["by the classifier at this size"] = classifier.look(shown, SIDE)
    rows["by the classifier, two stops darker"] = classifier.look(dark, SIDE)
    return {"things": {name: ranks(scores) for name, scores in rows.items()} | {"photos": len(shown)}}


def things_in_light(encoder, bright: Tensor, dark: Tensor, probabilities: Tensor) -> dict:
    """Of "a photo of a dog, backlit", for each group: in how many of all comparisons a dark photo of it is nearer than
    a bright one of another group, a dark one of another group, a bright one of the same.

    bright, dark: embeddings (N,D) of the same photos. "well-lit" likewise, for bright photos.
    """
    shown = {name: (probabilities[:, list(GROUPS[name])].sum(dim=1) > SURE).nonzero()[:, 0] for name in KINDS}
    shown = {name: rows for name, rows in shown.items() if len(rows)}
    found: dict = {"photos": {name: len(rows) for name, rows in shown.items()}, "backlit": {}, "well-lit": {}}
    for said, wanted, unwanted in (("backlit", dark, bright), ("well-lit", bright, dark)):
        counts = {"other thing, other light": [], "other thing, same light": [], "same thing, other light": []}
        for name, rows in shown.items():
            others = torch.cat([other for key, other in shown.items() if key != name])
            caption = encoder.embed_texts([f"a photo of {with_article(name)}, {said}"])[0]
            ours = (wanted[rows] @ caption)[:, None]
            for key, rest in zip(counts, (unwanted[others], wanted[others], unwanted[rows]), strict=True):
                holds = ours > rest @ caption
                counts[key].append((name, int(holds.sum()), holds.numel()))
        for key, rows in counts.items():
            found[said][key] = {
                "hold": sum(row[1] for row in rows),
                "of": sum(row[2] for row in rows),
                "by_group": {name: [hold, of] for name, hold, of in rows},
            }
    return found


def _exposed(photo: Tensor, stops: float) -> Tensor:
    return linear_to_srgb((srgb_to_linear(photo) * 2**stops).clamp(0, 1))


def _sample(name: str) -> Tensor:
    photo = torch.from_numpy(sample_picture(name).copy()).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.interpolate(photo, (256, 256), mode="bilinear", antialias=True)[0]
