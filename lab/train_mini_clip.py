"""Train `mini-clip`, a small CLIP that knows things and how a photo is lit: for use where there is no network.

python -m lab.train_mini_clip --well-lit PHOTOS --backlit PHOTOS --out FILE.safetensors [--json FILE]

The image tower is EfficientNet-Lite0, frozen, and a projection with two parts. The part of content keeps what tells
classes apart for EfficientNet's classifier, and is computed from its rows (`content_of_classes`). The part of light
learns from relit crops, together with a vector for each word of light and looks (`learn_light`). Then the text tower
learns where captions composed of classes and of light belong (`learn_texts`), for which it needs no photos.
Every tenth photo, and all of the groups in `HELD_OUT`, are held back for the figures that are printed and kept in the
file's metadata.

Shape letters: B images, N captions, V values of light and looks, C concepts, D embedding size, K size of the content.
"""

import argparse
import json
import random
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.cli import EXIT_OK, ArgumentParser, run
from lab.captions import FIRST_THING, GROUPS, LIGHT, TRUE, VALUES, WORDS, all_texts, caption_truth, compose, vocabulary
from models.stages import stages_vector

PHOTO = 256  # pixels, photos are squashed to this once
LOOK = 192  # pixels at which the classifier looks at a photo
MOST = 30.0  # by which cosines are multiplied: embeddings that vary smoothly
SHRINK = 0.1  # share of one common variance in that of features: crops are few beside them
HELD_OUT = ("cat", "dog", "bear", "elephant", "snake", "butterfly", "boat", "flower")


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--well-lit", required=True, metavar="DIR", help="folder of well-lit photos")
    parser.add_argument("--backlit", required=True, metavar="DIR", help="folder of backlit photos")
    parser.add_argument("--out", required=True, help="where to write the weights (.safetensors)")
    parser.add_argument("--json", help="where to write the figures")
    parser.add_argument(
        "--crops", type=int, default=4000, help="crops whose features are computed (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=1200, help="of light (default: %(default)s)")
    parser.add_argument("--text-steps", type=int, default=1500, help="of captions (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="crops; twice as many captions (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir", default=".cache")
    args = parser.parse_args(argv)
    figures = train(args)
    print(json.dumps(figures, indent=2))
    if args.json:
        from common.files import write_text
        from common.provenance import provenance

        write_text(args.json, json.dumps({"figures": figures, **provenance()}, indent=1) + "\n")
    return EXIT_OK


@dataclass(frozen=True)
class Features:
    """Of relit crops: vectors (B,1792), see `models.stages.stages_vector`; truth (B,V), stops, known: see
    `lab.relit_crops.RelitCrops`.
    """

    vectors: Tensor
    truth: Tensor
    stops: Tensor
    known: Tensor

    def __getitem__(self, rows: Tensor) -> "Features":
        return Features(**{name: tensor[rows] for name, tensor in vars(self).items()})


def train(args: argparse.Namespace) -> dict:
    """Train and save; returns the figures of `lab.mini_clip_figures.evaluate`, the mean losses of the first and the
    last tenth of the steps of light and of texts, and the seconds.
    """
    import safetensors.torch
    from open_clip import SimpleTokenizer

    from common.files import writing
    from common.provenance import provenance
    from lab.mini_clip_figures import evaluate
    from models import mini_clip
    from models.clip_encoder import ClipEncoder
    from models.clip_networks import Wanted
    from training.runtime import seed_everything

    seed_everything(args.seed)
    classifier = Classifier()
    training, held_out = split(args, classifier)
    started = time.perf_counter()
    generator, words = torch.Generator().manual_seed(args.seed), random.Random(args.seed)
    features = compute_features(classifier, *training, args.crops, generator)
    tokenize, texts = SimpleTokenizer(), all_texts()
    known = torch.cat([tokenize(texts[i : i + 256]) for i in range(0, len(texts), 256)]).unique()
    network = mini_clip.MiniClip(classifier.trunk, known)
    encoder, visual = ClipEncoder(mini_clip.built(network, Wanted(mini_clip.NAME))), network.visual
    deviation, mean = torch.std_mean(features.vectors, dim=0)
    visual.norm.running_mean.copy_(mean)
    visual.norm.running_var.copy_(deviation.square())
    classes = content_of_classes(visual, features, classifier)
    values, exposure, light_losses = learn_light(visual, features, args, generator, words)
    concepts = concept_vectors(classes, values)
    text_losses = learn_texts(encoder, concepts, known, args, words)
    seconds = time.perf_counter() - started
    tensors = {name: _half(tensor) for name, tensor in network.state_dict().items() if ".trunk." not in name}
    tensors |= {f"visual.norm.{name}": buffer for name, buffer in visual.norm.named_buffers()}  # too small for half
    about = {"steps": str(args.steps), "text_steps": str(args.text_steps), "seed": str(args.seed)}
    about |= {"seconds": f"{seconds:.0f}", "photos": str([len(t) for t in training])}
    about |= {"words": json.dumps(vocabulary(), ensure_ascii=False)}
    figures = {}
    for kind, losses in (("light", light_losses), ("text", text_losses)):
        tenth = max(1, len(losses) // 10)
        figures[f"{kind}_loss"] = [sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth]
    with writing(args.out) as temporary:  # what is evaluated is what is written
        safetensors.torch.save_file(tensors, temporary, about)
        encoder = ClipEncoder(mini_clip.from_file(Wanted(mini_clip.NAME, file=str(temporary))))
        figures |= evaluate(encoder, exposure, classifier, training, held_out)
        about |= {"figures": json.dumps(figures), "provenance": json.dumps(provenance())}
        safetensors.torch.save_file(tensors, temporary, about)
    return figures | {"seconds": round(seconds)}


class Classifier:
    """EfficientNet-Lite0 with its classifier: rows (1000,1280), bias (1000,)."""

    def __init__(self) -> None:
        from models import efficientnet, mini_clip
        from models.checkpoints import read_tensors

        self.trunk = mini_clip.pretrained_trunk().requires_grad_(False).eval().to(memory_format=torch.channels_last)
        *_, self.rows, self.bias = read_tensors(efficientnet.package_file()).values()
        config = self.trunk.pretrained_cfg
        self.mean, self.std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))

    @torch.no_grad()
    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B,3,S,S) in [0, 1] -> the stages' vectors (B,1792), as mini-clip takes them, and logits (B,1000)."""
        prepared = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        last, maps = self.trunk.forward_intermediates(prepared)
        last = self.trunk.forward_head(last)
        return stages_vector(maps, last), last @ self.rows.T + self.bias

    def look(self, photos: list[Tensor], side: int = LOOK) -> Tensor:
        """Probabilities (B,1000) of photos (3,P,P), seen at `side` pixels."""
        parts = [torch.stack(photos[i : i + 32]) for i in range(0, len(photos), 32)]
        return torch.cat([self.features(_resize(part, side))[1].softmax(dim=1) for part in parts])


def split(args: argparse.Namespace, classifier: Classifier) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Training photos (3,P,P) of each folder, and those held back: every tenth, and all of a group of `HELD_OUT`."""
    from data.folders import ResizedPhotos
    from data.listing import list_images

    numbers = [number for group in HELD_OUT for number in GROUPS[group]]
    training, held_out = [], []
    for paths in (list_images(args.well_lit, "--well-lit"), list_images(args.backlit, "--backlit")):
        resized = ResizedPhotos(paths, PHOTO, args.cache_dir)
        photos = [resized[i] for i in range(len(paths))]
        shown = classifier.look(photos)[:, numbers].sum(dim=1) > 0.2  # not to be trained on: better too many
        training.append([photo for i, photo in enumerate(photos) if i % 10 and not shown[i]])
        held_out.append([photo for i, photo in enumerate(photos) if not i % 10 or shown[i]])
    return training, held_out


def compute_features(classifier: Classifier, well_lit: list, backlit: list, count: int, generator) -> Features:
    """Of `count` relit crops."""
    from tqdm import tqdm

    from lab.relit_crops import draw_crops, relight
    from models.mini_clip import SIDE

    parts = []
    for start in tqdm(range(0, count, 50), desc="features", mininterval=5):
        crops, kinds = draw_crops(well_lit, backlit, min(50, count - start), generator, SIDE)
        relit = relight(crops, kinds, generator)
        parts.append(Features(classifier.features(relit.images)[0], relit.truth, relit.stops, relit.known))
    return Features(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@torch.no_grad()
def content_of_classes(visual: nn.Module, features: Features, classifier: Classifier) -> Tensor:
    """Set the projection to content, and return where it puts each class, (1000,K) of unit norm.

    For last vectors x about their mean, with covariance Σ, and centred rows W of the classifier, W Σ^½ = U S Vᵀ: the K
    largest of S keep the most of the logits W x = (U S^½)(S^½ Vᵀ Σ^-½ x). The second factor is the projection, the
    first holds the classes.
    """
    rows = classifier.rows - classifier.rows.mean(dim=0)
    size = rows.shape[1]
    lit = features.vectors[features.truth[:, VALUES.index("well lit")] > TRUE, -size:]  # these differ in content alone
    mean = lit.mean(dim=0)
    covariance = (lit - mean).T @ (lit - mean) / len(lit)
    covariance = (1 - SHRINK) * covariance + SHRINK * covariance.trace() / size * torch.eye(size)
    values, vectors = torch.linalg.eigh(covariance)
    left, strengths, right = torch.linalg.svd(rows @ (vectors * values.sqrt()) @ vectors.T, full_matrices=False)
    kept = slice(visual.content.out_features)
    roots = strengths[kept].sqrt()
    projection = roots[:, None] * (right[kept] @ (vectors * values.rsqrt()) @ vectors.T)
    centre, spread = visual.norm.running_mean[-size:], visual.norm.running_var[-size:].sqrt()
    projection /= (projection * spread).norm(dim=1).mean()  # lengths mean nothing; within half precision
    visual.content.weight.copy_(projection * spread)
    visual.content.bias.copy_(projection @ (centre - mean))
    return F.normalize(left[:, kept] * roots, dim=1)


def learn_light(
    visual: nn.Module, features: Features, args: argparse.Namespace, generator: torch.Generator, words: random.Random
) -> tuple[Tensor, nn.Module, list[float]]:
    """Teach the projection to light; returns the vectors (V,LIGHT) of values of light and looks, of unit norm, what
    reads a fifth of the stops off the part of light of an embedding, and the losses.
    """
    size = visual.light[-1].out_features
    values = nn.Parameter(torch.randn(FIRST_THING, size))
    exposure = nn.Linear(size, 2)
    bias, scale = nn.Parameter(torch.zeros(())), nn.Parameter(torch.tensor(2.0))
    visual.light.requires_grad_(True).train()
    inputs = visual.norm(features.vectors)
    optimizer, schedule = _optimizer(
        [*visual.light.parameters(), values, *exposure.parameters(), bias, scale], args.lr, args.steps
    )

    def loss() -> Tensor:
        rows = torch.randint(len(inputs), (args.batch,), generator=generator)
        batch, images = features[rows], F.normalize(visual.light(inputs[rows]), dim=-1)
        claims = [said for truth in batch.truth if (said := compose(truth, words)[1])]
        unit = F.normalize(values, dim=1)
        captions = F.normalize(torch.stack([unit[list(said)].sum(dim=0) for said in claims]), dim=1)
        truth, warmth = caption_truth(batch.truth, claims), scale.exp().clamp(max=MOST)
        contrast = caption_loss(images, captions, truth, warmth)
        # each pair by itself: without it, which of two captions is nearer to an image depends on how common they are
        agreement = F.binary_cross_entropy_with_logits(warmth * images @ captions.T + bias, truth)
        # half of an embedding's square is light, the other half content
        read = exposure(images / 2**0.5)[batch.known] * 5
        return contrast + 2 * agreement + 0.5 * F.smooth_l1_loss(read, batch.stops[batch.known])

    losses = _descend(loss, optimizer, schedule, args.steps, "light")
    visual.light.requires_grad_(False).eval()
    return F.normalize(values.detach(), dim=1), exposure.requires_grad_(False), losses


def concept_vectors(classes: Tensor, values: Tensor) -> Tensor:
    """Where each concept of `lab.captions` belongs in embedding space, (C,D) of unit norm: classes (1000,K), values
    (V,LIGHT). A group is the mean of its classes.
    """
    groups = torch.stack([F.normalize(classes[list(numbers)].mean(dim=0), dim=0) for numbers in GROUPS.values()])
    return torch.block_diag(values, torch.cat([classes, groups])).roll(-values.shape[1], dims=1)


def learn_texts(
    encoder, concepts: Tensor, known: Tensor, args: argparse.Namespace, words: random.Random
) -> list[float]:
    """Teach the text tower where captions belong: of a thing and its light, half way between both. Returns the losses,
    means of 1 − cosine.
    """
    text = encoder.model.text.requires_grad_(True)
    unknown = int((~torch.isin(torch.arange(text.vocab_size), known)).nonzero()[0])
    optimizer, schedule = _optimizer(list(text.parameters()), args.lr, args.text_steps)

    batches: list[list[tuple[Tensor, tuple[int, ...]]]] = []

    def loss() -> Tensor:
        if not batches:  # captions of like length together: most are short
            texts, claims = zip(*_captions(16 * 2 * args.batch, words), strict=True)
            pool = list(zip(with_unknown_words(encoder._tokenizer(list(texts)), unknown, words), claims, strict=True))
            pool.sort(key=lambda caption: int(caption[0].count_nonzero()))
            batches.extend(pool[i : i + 2 * args.batch] for i in range(0, len(pool), 2 * args.batch))
            words.shuffle(batches)
        tokens, claims = zip(*batches.pop(), strict=True)
        found = F.normalize(encoder._text_features(torch.stack(tokens)), dim=-1)
        wanted = torch.stack([caption_vector(concepts, said) for said in claims])
        return 1 - (found * wanted).sum(dim=1).mean()

    losses = _descend(loss, optimizer, schedule, args.text_steps, "texts")
    text.requires_grad_(False)
    return losses


def _captions(count: int, words: random.Random) -> list[tuple[str, tuple[int, ...]]]:
    """Of crops that could be, and what they claim, which is something."""
    captions = []
    while len(captions) < count:
        caption = compose(any_truth(words), words)
        captions += [caption] if caption[1] else []
    return captions


def any_truth(words: random.Random) -> Tensor:
    """Of a crop that could be: one thing, one light, two looks hold, (C,)."""
    truth = torch.zeros(len(WORDS))
    truth[words.randrange(FIRST_THING, len(WORDS))] = 1
    truth[[words.randrange(len(LIGHT)), *words.sample(range(len(LIGHT), FIRST_THING), 2)]] = 1
    return truth


def caption_vector(concepts: Tensor, claims: tuple[int, ...]) -> Tensor:
    """Unit (D,): the thing, if any, and the sum of what is said of its looks, if anything, weigh the same."""
    kinds = ([i for i in claims if i >= FIRST_THING], [i for i in claims if i < FIRST_THING])
    return F.normalize(sum(F.normalize(concepts[kind].sum(dim=0), dim=0) for kind in kinds if kind), dim=0)


def caption_loss(images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor | float) -> Tensor:
    """CLIP's symmetric cross-entropy, the target shared by all captions (images) that are true: unit (B,D), (N,D);
    truth (B,N).
    """
    logits = scale * images @ texts.T
    by_image, by_text = (truth / truth.sum(dim=d, keepdim=True).clamp(min=1e-6) for d in (1, 0))
    image_term = -(by_image * logits.log_softmax(dim=1)).sum(dim=1).mean()
    text_term = -(by_text * logits.log_softmax(dim=0)).sum(dim=0).mean()
    return (image_term + text_term) / 2


def with_unknown_words(tokens: Tensor, unknown: int, words: random.Random) -> Tensor:
    """Put one to three unknown tokens behind the start of one caption in five; tokens (N,L)."""
    rows = []
    for row in tokens:
        number = words.choice((1, 2, 3)) if words.random() < 0.2 else 0
        rows.append(torch.cat([row[:1], row.new_full((number,), unknown), row[1 : len(row) - number]]))
    return torch.stack(rows)


def _optimizer(parameters: list[Tensor], lr: float, steps: int):
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)


def _descend(loss, optimizer, schedule, steps: int, name: str) -> list[float]:
    from tqdm import tqdm

    losses = []
    for _ in tqdm(range(steps), desc=name, mininterval=5):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    return losses


def _resize(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def _half(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().contiguous()
    return tensor.half() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    run(main)
