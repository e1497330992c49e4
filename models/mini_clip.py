"""mini-clip: a small CLIP for use without a network. Its image tower is EfficientNet-Lite0 with a projection.

The file of its weights holds what was trained here: the projection and the text tower. The ImageNet weights below them
come out of their own package (`models.efficientnet`).

Shape letters: B images, N texts, L context length, W text width, D embedding size, K tokens that texts were trained on.
"""

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from common.errors import UserError
from common.parse import parse_json
from models import efficientnet
from models.checkpoints import load_matching
from models.clip_networks import Built, Wanted
from models.stages import stages_vector
from models.weight_files import read_metadata

NAME = "mini-clip"
SIDE = 128  # pixels of the square input; at EfficientNet-Lite0's own 224 a photo takes more than twice the time
CONTENT, LIGHT, HIDDEN = 224, 32, 256
EMBED_DIM = CONTENT + LIGHT
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 1}
KNOWN = "text.token_embedding.weight"


class ImageTower(nn.Module):
    """Prepared images (B,3,S,S) -> (B,D): what a photo shows, from the last vector of a trunk, and how it is lit, from
    all of its stages, side by side. Both are of one norm, so that a dark photo says as much of its content as another.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        size = sum(info["num_chs"] for info in trunk.feature_info) + trunk.num_features
        self.norm = nn.BatchNorm1d(size, eps=1e-10, affine=False)  # each feature's mean and spread between photos
        self.content = nn.Linear(trunk.num_features, CONTENT)
        self.light = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(size, HIDDEN), nn.GELU(), nn.Dropout(0.2), nn.Linear(HIDDEN, LIGHT)
        )

    def project(self, stages: Tensor) -> Tensor:
        """What `models.stages.stages_vector` gives of the trunk -> (B,D), not normalised."""
        features = self.norm(stages)
        content = self.content(features[:, -self.content.in_features :])
        return torch.cat([F.normalize(content, dim=-1), F.normalize(self.light(features), dim=-1)], dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_intermediates(images)["image_features"]

    def forward_intermediates(self, images: Tensor, *, intermediates_only: bool = False, **options) -> dict | list:
        """The embedding and the trunk's maps as open_clip's image towers give them, or the maps alone as timm's do."""
        found = self.trunk.forward_intermediates(images, intermediates_only=intermediates_only, **options)
        if intermediates_only:
            return found
        stages = stages_vector(found[1], self.trunk.forward_head(found[0]))
        return {"image_features": self.project(stages.to(images.dtype)), "image_intermediates": found[1]}


class KnownTokens(nn.Module):
    """Embeddings (K+1,W) of the tokens that the captions of a training hold; the first row stands for all others.

    known: their numbers (K,).
    """

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        rows = torch.zeros(TEXT["vocab_size"], dtype=torch.int32)
        rows[known] = torch.arange(1, len(known) + 1, dtype=torch.int32)
        self.register_buffer("rows", rows)
        self.weight = nn.Parameter(0.02 * torch.randn(len(known) + 1, TEXT["width"]))
        self.weight.data[0] = 0

    def forward(self, tokens: Tensor) -> Tensor:
        """(N,L) -> (N,L,W). The first row gets no gradient and stays zero: unknown words mean nothing."""
        return F.embedding(self.rows[tokens].long(), self.weight, padding_idx=0)


class MiniClip(nn.Module):
    """Both towers. known: the tokens (K,) that the text tower tells apart."""

    def __init__(self, trunk: nn.Module, known: Tensor) -> None:
        super().__init__()
        self.visual = ImageTower(trunk)
        self.text = TextTransformer(**TEXT, output_dim=EMBED_DIM)
        self.text.token_embedding = KnownTokens(known)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N,L) -> (N,D), not normalised."""
        return self.text(tokens)


def from_file(wanted: Wanted) -> Built:
    """The network with the weights of a file, or random ones, those of the trunk included.

    Raises UserError for a tag, for a file of another network, and where the trunk's package is missing.
    """
    if wanted.tag:
        raise UserError(
            f"clip model '{NAME}': unknown pretrained tag '{wanted.tag}', and no file of this name; "
            "expected a weight file, or null for random weights"
        )
    if wanted.file is None:
        trunk = efficientnet.from_package(Wanted(NAME)).network
        return built(MiniClip(trunk, torch.arange(TEXT["vocab_size"])), wanted)
    tensors = wanted.tensors()
    trunk = pretrained_trunk()
    known = tensors[KNOWN].numel() // TEXT["width"] - 1 if KNOWN in tensors else 0
    network = MiniClip(trunk, torch.arange(min(max(known, 0), TEXT["vocab_size"])))
    kept = {f"visual.trunk.{name}": tensor for name, tensor in trunk.state_dict().items()}
    load_matching(network, kept | tensors, wanted.file, NAME)
    rows = network.text.token_embedding.rows
    if rows.min() < 0 or rows.max() > known:
        found = f"{int(rows.min())} to {int(rows.max())}"
        raise UserError(f"{wanted.file}: expected tokens in rows 0 to {known}, found {found}")
    return built(network, wanted, _words(wanted.file))


def _words(file: str) -> list[str] | None:
    """Words to read the space by, of a file's metadata; None where there are none."""
    try:
        words = parse_json(read_metadata(file).get("words", "null"))
    except ValueError:
        words = ()
    if words is not None and not (isinstance(words, list) and words and all(isinstance(word, str) for word in words)):
        raise UserError(f"{file}: expected a list of words in its metadata, found another text")
    return words


def pretrained_trunk() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, without its classifier. Raises UserError without its package."""
    return efficientnet.from_package(Wanted(NAME, tag=efficientnet.TAG)).network


def built(network: MiniClip, wanted: Wanted, words: list[str] | None = None) -> Built:
    """What an encoder has to know of the network; words: see `Built`."""
    config = network.visual.trunk.pretrained_cfg
    return Built(
        network=network,
        name=wanted.name,
        image_size=SIDE,
        mean=config["mean"],
        std=config["std"],
        tokenizer=open_clip.SimpleTokenizer(context_length=TEXT["context_length"]),
        words=words,
    )
