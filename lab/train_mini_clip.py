"""Train `mini-clip`, a small CLIP (image and text tower) that knows how a photo is lit: for training where there is no
network.

python -m lab.train_mini_clip --well-lit PHOTOS --backlit PHOTOS --out pretrained_models/mini-clip.safetensors

Crops of well-lit photos are relit by a known number of stops (`data.backlight`), backlit ones are taken as they are or
lifted. Captions are composed of what is known of a crop (its light, blur, noise, tint) or measured on it (colours,
texture, contrast). Every tenth photo of each folder is held back for the figures that are printed and kept in the
file's metadata.

Shape letters: B images, N captions, V caption words of `WORDS`, D embedding size, S side in pixels.
"""

import argparse
import json
import random
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.cli import EXIT_OK, ArgumentParser, run
from common.provenance import provenance
from data.backlight import linear_to_srgb, simulate_backlight, smooth_mask, srgb_to_linear

MODEL = "mini-clip"
PHOTO = 176  # pixels, photos are squashed to this once
CURVE = (-4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # stops, the exposure response that is measured
# how a crop of a batch is made, and how often; "real" and "lifted" are crops of the backlit folder
KINDS = {"normal": 0.2, "shifted": 0.26, "against light": 0.17, "flattened": 0.1, "real": 0.15, "lifted": 0.12}

LIGHT = {  # value: the words for it
    "backlit": ("backlit", "against the light", "silhouette", "contre-jour", "backlight", "with a dark foreground"),
    "dark": ("dark", "under-exposed", "underexposed", "dim", "shadowy", "too dark"),
    "very dark": ("very dark", "black", "nearly black", "strongly under-exposed", "night"),
    "well lit": (
        "well-lit",
        "well lit",
        "normally exposed",
        "well exposed",
        "bright, normally exposed",
        "evenly lit",
        "in good light",
    ),
    "badly exposed": ("badly exposed", "badly lit", "in bad light", "wrongly exposed"),
    "over-exposed": ("over-exposed", "overexposed", "too bright", "blown out", "white", "burnt out"),
}
LOOKS = {
    "red": ("red", "reddish"),
    "orange": ("orange", "brown", "brownish"),
    "yellow": ("yellow", "yellowish"),
    "green": ("green", "greenish"),
    "blue": ("blue", "bluish"),
    "purple": ("purple", "pink", "violet"),
    "colourful": ("colourful", "colorful", "vivid", "saturated"),
    "greyish": ("greyish", "grey", "gray", "colourless", "pale"),
    "smooth": ("smooth", "plain", "soft"),
    "textured": ("textured", "detailed", "rough"),
    "low contrast": ("low-contrast", "with low contrast"),
    "high contrast": ("high-contrast", "with high contrast"),
    "flattened": ("flat", "washed-out", "hazy", "faded", "unnatural"),
    "blurry": ("blurry", "blurred", "out of focus"),
    "sharp": ("sharp", "in focus"),
    "warm": ("warm", "warm-tinted"),
    "cold": ("cold", "cool", "cold-tinted"),
    "noisy": ("noisy", "grainy"),
    "clean": ("clean", "noise-free"),
}
HUES = {
    "red": (-15, 15),
    "orange": (15, 45),
    "yellow": (45, 70),
    "green": (70, 165),
    "blue": (165, 260),
    "purple": (260, 345),
}  # degrees
WORDS = {**LIGHT, **LOOKS}
VALUES = tuple(WORDS)
TEMPLATES = (
    "{}",
    "a {} photo",
    "a {} picture",
    "a {} image",
    "{} photo",
    "a photo, {}",
    "a photo that is {}",
    "the photo is {}",
)


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--well-lit", required=True, metavar="DIR", help="folder of well-lit photos")
    parser.add_argument("--backlit", required=True, metavar="DIR", help="folder of backlit photos")
    parser.add_argument("--out", required=True, help="where to write the weights (.safetensors)")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir", default=".cache")
    figures = train(parser.parse_args(argv))
    print(json.dumps(figures, indent=2))
    return EXIT_OK


def train(args: argparse.Namespace) -> dict:
    """Train and save; returns the figures of `evaluate`, and the mean loss of the first and the last tenth of the
    steps.
    """
    import safetensors.torch
    from tqdm import tqdm

    from common.files import writing
    from data.folders import ResizedPhotos
    from data.listing import list_images
    from models.clip_encoder import load_clip
    from training.runtime import seed_everything

    listed = list_images(args.well_lit, "--well-lit"), list_images(args.backlit, "--backlit")
    folders = [ResizedPhotos(paths, PHOTO, args.cache_dir) for paths in listed]
    training = [[photos[i] for i in range(len(photos)) if i % 10] for photos in folders]
    held_out = [[photos[i] for i in range(0, len(photos), 10)] for photos in folders]
    encoder = load_clip(MODEL, None, seed=args.seed)
    seed_everything(args.seed)
    model, tokenize = encoder.model.requires_grad_(True), encoder._tokenizer
    model.visual.to(memory_format=torch.channels_last)  # a third faster
    unseen = unseen_tokens(tokenize, model.vocab_size)
    head, bias = nn.Linear(encoder.embed_dim, 2), nn.Parameter(torch.zeros(()))  # both thrown away
    parameters = [*model.parameters(), *head.parameters(), bias]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps)
    with torch.no_grad():
        model.logit_scale.fill_(2.0)

    started, losses = time.perf_counter(), []
    generator, words = torch.Generator().manual_seed(args.seed), random.Random(args.seed)
    for _ in tqdm(range(args.steps), mininterval=5):
        model.train()
        images, truth, stops, known = relit_batch(*training, args.batch, generator, encoder.image_size)
        texts, values = zip(*(compose(t, words) for t in truth), strict=True)
        tokens = with_unseen_words(tokenize(list(texts)), unseen, words)
        prepared = ((images - encoder.mean) / encoder.std).contiguous(memory_format=torch.channels_last)
        image_embeddings = F.normalize(model.visual(prepared), dim=-1)
        text_embeddings = F.normalize(model.encode_text(tokens), dim=-1)
        scale, truth = model.logit_scale.exp(), caption_truth(truth, values)
        contrast = caption_loss(image_embeddings, text_embeddings, truth, scale)
        # each pair by itself: without it, which of two captions is nearer to an image depends on how common they are
        agreement = F.binary_cross_entropy_with_logits(scale * image_embeddings @ text_embeddings.T + bias, truth)
        exposure = F.smooth_l1_loss(
            head(image_embeddings)[known] * 5, stops[known]
        )  # a unit vector's coordinates are small, stops are not
        loss = contrast + 2 * agreement + 0.5 * exposure
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=3.4)  # e^3.4 = 30: embeddings that vary smoothly
            model.token_embedding.weight[unseen] = 0
        losses.append(loss.item())
    tenth = max(1, len(losses) // 10)
    settle_batch_norm(
        encoder, [relit_batch(*training, args.batch, generator, encoder.image_size)[0] for _ in range(20)]
    )
    tensors = {name: _half(tensor) for name, tensor in model.state_dict().items()}
    seconds = time.perf_counter() - started
    model.load_state_dict(tensors)  # what is evaluated is what is written
    model.requires_grad_(False).eval()
    figures = {"loss_first": sum(losses[:tenth]) / tenth, "loss_last": sum(losses[-tenth:]) / tenth}
    figures |= evaluate(encoder, head.requires_grad_(False), training, held_out)
    about = {
        "steps": str(args.steps),
        "seed": str(args.seed),
        "seconds": f"{seconds:.0f}",
        "photos": str([len(t) for t in training]),
    }
    metadata = {**about, "figures": json.dumps(figures), "provenance": json.dumps(provenance())}
    with writing(args.out) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata)
    return figures


def relit_batch(well_lit: list[Tensor], backlit: list[Tensor], size: int, generator: torch.Generator, side: int = 128):
    """Crops (B,3,S,S) in [0, 1] of photos (3,P,P), relit; what is true of each.

    Returns images; truth (B,V) in [0, 1], how far each of `VALUES` holds; stops (B,2), mean exposure shift and distance
    from good light (<= 0); known (B,) bool, whether the stops are known.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator)

    drawn = torch.multinomial(torch.tensor(list(KINDS.values())), size, replacement=True, generator=generator).tolist()
    kinds = [list(KINDS)[k] for k in drawn]
    kind = {name: torch.tensor([k == name for k in kinds]) for name in KINDS}
    blurred = uniform(0, 1) < 0.15
    crops, masks = [], []
    for k, blur in zip(kinds, blurred, strict=True):
        crop = _crop(backlit if k in ("real", "lifted") else well_lit, side, generator)
        if k == "flattened":
            crop = _flatten(crop, generator)
        if blur:
            coarse = int(torch.randint(side // 5, side // 2, (), generator=generator))
            crop = _resize(_resize(crop, coarse), side)
        share = float(0.35 + 0.5 * torch.rand((), generator=generator))
        masks.append(smooth_mask(crop, share, generator) if k == "against light" else torch.zeros(1, side, side))
        crops.append(crop)
    crops, masks = torch.stack(crops), torch.stack(masks)
    linear = srgb_to_linear(crops)

    base = torch.where(
        uniform(0, 1) < 0.45, uniform(0.2, 3.5), uniform(-4.5, 0.0)
    )  # nearly as many too bright as too dark
    base = torch.where(kind["shifted"], base, uniform(-0.2, 0.2))
    base = torch.where(kind["against light"], uniform(-0.5, 0.7), base)
    base = torch.where(
        kind["lifted"], (uniform(-3, -0.3).exp2() / linear.mean(dim=(1, 2, 3)).clamp(min=1e-3)).log2(), base
    )
    base = torch.where(kind["real"], torch.zeros(size), base)
    front = torch.where(kind["against light"], uniform(1.0, 4.0), torch.zeros(size))
    stops = base.view(-1, 1, 1, 1) - front.view(-1, 1, 1, 1) * masks
    tint = torch.where(uniform(0, 1) < 0.25, uniform(-0.6, 0.6), uniform(-0.05, 0.05))
    tint = torch.where(kind["real"], torch.zeros(size), tint)  # as they are
    gains = torch.exp2(torch.stack([tint, torch.zeros(size), -tint], dim=1))[..., None, None]
    noise = torch.where(uniform(0, 1) < 0.25, uniform(0.0, 0.1), torch.zeros(size))
    images = linear_to_srgb((linear * gains * torch.exp2(stops)).clamp(0, 1))
    images = (images + noise.view(-1, 1, 1, 1) * torch.randn(images.shape, generator=generator)).clamp(0, 1)

    mean = stops.mean(dim=(1, 2, 3))
    truth = light_truth(mean, front, kind["flattened"].float())
    real = kind["real"] | kind["lifted"]
    measured = measured_light_truth(images)
    truth = {name: torch.where(real, measured[name], truth[name]) for name in LIGHT}
    truth |= looks_truth(crops)
    truth |= {"flattened": kind["flattened"].float(), "blurry": blurred.float(), "sharp": 1 - blurred.float()}
    truth |= {"warm": _ramp(tint, 0.1, 0.3), "cold": _ramp(-tint, 0.1, 0.3)}
    truth |= {"noisy": _ramp(noise, 0.01, 0.03), "clean": 1 - _ramp(noise, 0.01, 0.03)}
    # linear readouts of a unit vector: over-exposure must lead away from good light as darkness does, so that RAVE's r
    # does not reward it
    distance = -torch.maximum(-mean, 3 * mean) - 0.5 * front - 3 * kind["flattened"]
    return images, torch.stack([truth[name] for name in VALUES], dim=1), torch.stack([mean, distance], dim=1), ~real


def light_truth(stops: Tensor, front: Tensor, flattened: Tensor) -> dict[str, Tensor]:
    """How far each value of `LIGHT` holds, in [0, 1], for a mean shift and a foreground darkening in stops (B,)."""
    dark, over, against = _ramp(-stops, 0.4, 1.2), _ramp(stops, 0.4, 1.0), _ramp(front, 0.5, 1.5)
    well = 1 - torch.stack([dark, over, against, flattened]).amax(dim=0)
    # the photos that the field calls backlit are often dark all over: for such crops neither true nor false
    backlit, very_dark = torch.maximum(against, 0.5 * dark), _ramp(-stops, 1.8, 2.8)
    return dict(zip(LIGHT, (backlit, dark, very_dark, well, 1 - well, over), strict=True))


def measured_light_truth(images: Tensor) -> dict[str, Tensor]:
    """The same for crops (B,3,S,S) of the backlit folder, whose exposure is not known but can be measured."""
    luminance = srgb_to_linear(images).mean(dim=1).flatten(1)
    stops = (luminance.mean(dim=1).clamp(min=1e-4) / 0.18).log2()  # 0.18: what a light meter takes for normal
    clipped, black = (luminance > 0.9).float().mean(dim=1), (luminance < 0.01).float().mean(dim=1)
    over = _ramp(clipped, 0.2, 0.4)
    well = (1 - _ramp(-stops, 0.5, 1.2)) * (1 - _ramp(clipped, 0.05, 0.2)) * (1 - _ramp(black, 0.05, 0.2))
    dark, very_dark = _ramp(-stops, 0.6, 1.4), _ramp(-stops, 2.0, 3.0)
    return dict(zip(LIGHT, (torch.minimum(1 - well, 1 - over), dark, very_dark, well, 1 - well, over), strict=True))


def looks_truth(crops: Tensor) -> dict[str, Tensor]:
    """How far words of colour, texture, contrast hold for crops (B,3,S,S) before they are relit, (B,) in [0, 1]."""
    small = F.interpolate(crops, (32, 32), mode="bilinear", antialias=True)
    high, low = small.amax(dim=1), small.amin(dim=1)
    chroma = high - low
    saturation = chroma / high.clamp(min=0.05)
    red, green, blue = small.unbind(dim=1)
    hue = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue).rad2deg() % 360
    coloured = (saturation > 0.25) & (high > 0.03)
    truth = {}
    for name, (start, end) in HUES.items():
        inside = ((hue - start) % 360 < end - start) & coloured
        truth[name] = _ramp(inside.float().mean(dim=(1, 2)), 0.15, 0.35)
    luminance = crops.mean(dim=1)
    texture = (luminance + 0.02).log().diff(dim=-1).abs().mean(dim=(1, 2))  # of the logarithm: exposure cancels
    contrast = luminance.std(dim=(1, 2))
    truth |= {
        "colourful": _ramp(saturation.mean(dim=(1, 2)), 0.35, 0.5),
        "greyish": 1 - _ramp(saturation.mean(dim=(1, 2)), 0.12, 0.22),
    }
    truth |= {"textured": _ramp(texture, 0.09, 0.13), "smooth": 1 - _ramp(texture, 0.04, 0.06)}
    return truth | {"high contrast": _ramp(contrast, 0.22, 0.26), "low contrast": 1 - _ramp(contrast, 0.11, 0.15)}


def compose(truth: Tensor, words: random.Random) -> tuple[str, tuple[int, ...]]:
    """A caption of true words only, and which of `VALUES` it claims; truth (V,) in [0, 1]. One in 16 claims nothing."""
    true = [i for i, t in enumerate(truth.tolist()) if t > 0.6]
    light, looks = [i for i in true if i < len(LIGHT)], [i for i in true if i >= len(LIGHT)]
    claims = [words.choice(light)] if light and words.random() < 0.65 else []
    number = words.choice((0, 0, 1, 2)) if claims else words.choice((1, 2, 3))
    claims += words.sample(looks, min(number, len(looks)))
    if not claims or words.random() < 1 / 16:
        return words.choice(("", "photo", "a photo", "a picture", "the image")), ()
    words.shuffle(claims)
    said = words.choice((", ", " and ", " ")).join(words.choice(WORDS[VALUES[i]]) for i in claims)
    return words.choice(TEMPLATES).format(said), tuple(claims)


def caption_truth(truth: Tensor, values: list[tuple[int, ...]]) -> Tensor:
    """How far caption n holds for image b, (B,N): the weakest of its claims; 0.5 for no claim. truth (B,V)."""
    return torch.stack(
        [truth[:, list(claims)].amin(dim=1) if claims else torch.full_like(truth[:, 0], 0.5) for claims in values],
        dim=1,
    )


def caption_loss(images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor | float) -> Tensor:
    """CLIP's symmetric cross-entropy, the target shared by all captions (images) that are true: unit (B,D), (N,D);
    truth (B,N).
    """
    logits = scale * images @ texts.T
    by_image, by_text = (truth / truth.sum(dim=d, keepdim=True).clamp(min=1e-6) for d in (1, 0))
    image_term = -(by_image * logits.log_softmax(dim=1)).sum(dim=1).mean()
    text_term = -(by_text * logits.log_softmax(dim=0)).sum(dim=0).mean()
    return (image_term + text_term) / 2


@torch.no_grad()
def settle_batch_norm(encoder, batches: list[Tensor]) -> None:
    """Batch-norm statistics of the final weights, a plain average over batches (B,3,S,S).

    Those gathered on the way are averages over weights long gone, with which "well-lit" was said of 17 % of well-lit
    photos, not 93 %.
    """
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    encoder.model.visual.train()
    for images in batches:
        encoder.model.visual((images - encoder.mean) / encoder.std)
    encoder.model.visual.eval()


def unseen_tokens(tokenize, vocabulary: int) -> Tensor:
    """(vocabulary,) bool: tokens of no caption.

    Their embeddings are kept at zero: all such words mean the same, nothing.
    """
    texts = [
        *(word for words in WORDS.values() for word in words),
        *TEMPLATES,
        "photo",
        "picture",
        "the image",
        ", and",
    ]
    unseen = torch.ones(vocabulary, dtype=torch.bool)
    unseen[tokenize([text.replace("{}", "") for text in texts]).unique()] = False
    return unseen


def with_unseen_words(tokens: Tensor, unseen: Tensor, words: random.Random) -> Tensor:
    """Put one to three unseen tokens behind the start of one caption in five; tokens (N,L)."""
    unknown = int(unseen.nonzero()[0])
    rows = []
    for row in tokens:
        number = words.choice((1, 2, 3)) if words.random() < 0.2 else 0
        rows.append(torch.cat([row[:1], row.new_full((number,), unknown), row[1 : len(row) - number]]))
    return torch.stack(rows)


@torch.no_grad()
def evaluate(encoder, head: nn.Module, training: list[list[Tensor]], held_out: list[list[Tensor]]) -> dict:
    """Figures on held-out photos (well-lit, backlit); r and τ come from the training ones, as in RAVE."""
    from losses.residual import residual_guidance

    def embed(photos: list[Tensor]) -> Tensor:
        return torch.cat([encoder.embed_images(torch.stack(photos[i : i + 64])) for i in range(0, len(photos), 64)])

    def relight(photo: Tensor, stops: float) -> Tensor:
        return linear_to_srgb((srgb_to_linear(photo) * 2**stops).clamp(0, 1))

    guidance = residual_guidance(*(embed(photos) for photos in training))
    well_lit, backlit = (embed(photos) for photos in held_out)
    generator = torch.Generator().manual_seed(1)
    simulated = embed([simulate_backlight(photo, generator).photo for photo in held_out[0]])
    texts = encoder.embed_texts(["a backlit photo", "a well-lit photo"])

    def accuracy(positive: Tensor, negative: Tensor) -> float:
        margins = [embeddings @ (texts[0] - texts[1]) for embeddings in (positive, negative)]
        return ((margins[0] > 0).float().mean() + (margins[1] <= 0).float().mean()).item() / 2

    def auc(high: Tensor, low: Tensor) -> float:
        return ((high @ guidance.vector)[:, None] > (low @ guidance.vector)).float().mean().item()

    curve, errors = {}, []
    for stops in CURVE:
        embeddings = embed([relight(photo, stops) for photo in held_out[0][:40]])
        curve[f"{stops:+g}"] = (embeddings @ guidance.vector).mean().item()
        errors.append((head(embeddings)[:, 0] * 5 - stops).abs().mean().item())
    dark = torch.stack([relight(photo, -2) for photo in held_out[0][:40]])
    with torch.enable_grad():
        gain = torch.ones(len(dark), 1, 1, 1, requires_grad=True)
        (encoder.embed_images((dark * gain).clamp(0, 1)) @ guidance.vector).sum().backward()
    figures = {
        "zero_shot_accuracy_real": accuracy(backlit, well_lit),
        "zero_shot_accuracy_simulated": accuracy(simulated, well_lit),
        "exposure_error_stops": sum(errors) / len(errors),
        "cosine_of_means": float(guidance.well_lit @ guidance.backlit),
        "residual_auc_real": auc(well_lit, backlit),
        "residual_auc_simulated": auc(well_lit, simulated),
        "target": guidance.target,
        "share_of_dark_photos_whose_gradient_brightens": (gain.grad > 0).float().mean().item(),
        "response": {stops: round(projection, 4) for stops, projection in curve.items()},
    }
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}


def _crop(photos: list[Tensor], side: int, generator: torch.Generator) -> Tensor:
    draw = torch.rand(5, generator=generator)
    photo = photos[int(draw[0] * len(photos))]
    longest = photo.shape[-1]
    size = int(longest * (0.6 + 0.5 * draw[1]).clamp(max=1))
    top, left = (int(d * (longest - size + 1)) for d in draw[2:4])
    crop = _resize(photo[:, top : top + size, left : left + size], side)
    return crop.flip(-1) if draw[4] < 0.5 else crop


def _flatten(crop: Tensor, generator: torch.Generator) -> Tensor:
    """Divided by its own smooth brightness: what a Retinex network makes of a photo when it goes too far."""
    cells = int(torch.randint(3, 24, (), generator=generator))
    brightness = _resize(_resize(crop.mean(dim=0, keepdim=True), cells), crop.shape[-1]).clamp(min=0.05)
    strength = 0.6 + 0.4 * torch.rand((), generator=generator)
    return (crop * (brightness.mean() / brightness) ** strength).clamp(0, 1)


def _resize(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]


def _ramp(x: Tensor, start: float, end: float) -> Tensor:
    return ((x - start) / (end - start)).clamp(0, 1)


def _half(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().contiguous()
    return tensor.half() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    run(main)
