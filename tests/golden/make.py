"""Golden values that need nothing outside this repository: a small CLIP and the enhancement network, written out.

python -m tests.golden.make    rewrites tiny_clip.npz and illumination.npz beside this file

Weights and inputs are pseudo-random numbers of integer arithmetic, the same on every machine; the values are computed
here from the formulas of the papers, without the packages under test and without open_clip.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).resolve().parent
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WORDS = [
    "sky",
    "dark",
    "light",
    "sun",
    "tree",
    "face",
    "night",
    "bright",
    "shadow",
    "window",
    "sea",
    "snow",
    "cat",
    "street",
    "lamp",
    "room",
]
PROMPT_END = 17  # position of the end token behind the start token and 16 words
VIT_SIDE, RESNET_SIDE = 32, 64
PATCH = 8
WIDTH, TEXT_WIDTH, DIM = 64, 64, 16  # of the ViT, of the text tower, of the embeddings
STEM = 4  # channels of the ResNet


def numbers(name: str, *shape: int) -> Tensor:
    """Uniform in [-1, 1), drawn by splitmix64 from the name: float32, exactly the same everywhere."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    z = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return torch.from_numpy((z >> np.uint64(40)).astype(np.float32) / 2**23 - 1).reshape(shape)


def weight(name: str, *shape: int) -> Tensor:
    """A weight that keeps the size of activations: uniform, variance 1 / inputs."""
    return numbers(name, *shape) * math.sqrt(3 / math.prod(shape[1:]))


# ---------------------------------------------------------------------------------------------
# Weights, in OpenAI's naming
# ---------------------------------------------------------------------------------------------


def norm_weights(name: str, size: int, *, batch: bool = False) -> dict[str, Tensor]:
    weights = {
        f"{name}.weight": 1 + 0.2 * numbers(f"{name}.weight", size),
        f"{name}.bias": 0.2 * numbers(f"{name}.bias", size),
    }
    if batch:
        weights[f"{name}.running_mean"] = 0.2 * numbers(f"{name}.running_mean", size)
        weights[f"{name}.running_var"] = 1 + 0.5 * numbers(f"{name}.running_var", size)
        weights[f"{name}.num_batches_tracked"] = torch.tensor(1)
    return weights


def linear_weights(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": weight(f"{name}.weight", outputs, inputs),
        f"{name}.bias": 0.2 * numbers(f"{name}.bias", outputs),
    }


def block_weights(name: str, width: int) -> dict[str, Tensor]:
    attention = linear_weights(f"{name}.attn.in_proj", width, 3 * width)
    return {
        **{key.replace("in_proj.", "in_proj_"): tensor for key, tensor in attention.items()},
        **linear_weights(f"{name}.attn.out_proj", width, width),
        **norm_weights(f"{name}.ln_1", width),
        **linear_weights(f"{name}.mlp.c_fc", width, 4 * width),
        **linear_weights(f"{name}.mlp.c_proj", 4 * width, width),
        **norm_weights(f"{name}.ln_2", width),
    }


def text_weights() -> dict[str, Tensor]:
    return {
        "token_embedding.weight": numbers("token_embedding", 49408, TEXT_WIDTH),
        "positional_embedding": 0.3 * numbers("positional_embedding", 77, TEXT_WIDTH),
        **block_weights("transformer.resblocks.0", TEXT_WIDTH),
        **norm_weights("ln_final", TEXT_WIDTH),
        "text_projection": weight("text_projection", DIM, TEXT_WIDTH).T.contiguous(),
        "logit_scale": torch.tensor(math.log(100)),
    }


def vit_weights() -> dict[str, Tensor]:
    tokens = (VIT_SIDE // PATCH) ** 2 + 1
    return {
        "visual.conv1.weight": weight("visual.conv1.weight", WIDTH, 3, PATCH, PATCH),
        "visual.class_embedding": numbers("visual.class_embedding", WIDTH),
        "visual.positional_embedding": 0.5 * numbers("visual.positional_embedding", tokens, WIDTH),
        **norm_weights("visual.ln_pre", WIDTH),
        **block_weights("visual.transformer.resblocks.0", WIDTH),
        **norm_weights("visual.ln_post", WIDTH),
        "visual.proj": weight("visual.proj", DIM, WIDTH).T.contiguous(),
        **text_weights(),
    }


def conv_weights(conv: str, norm: str, inputs: int, outputs: int, kernel: int) -> dict[str, Tensor]:
    name = f"{conv}.weight"
    convolution = {name: weight(name, outputs, inputs, kernel, kernel) * 1.4}
    return {**convolution, **norm_weights(norm, outputs, batch=True)}


def resnet_weights() -> dict[str, Tensor]:
    weights = {}
    for number, (inputs, outputs) in enumerate(((3, STEM // 2), (STEM // 2, STEM // 2), (STEM // 2, STEM)), start=1):
        weights |= conv_weights(f"visual.conv{number}", f"visual.bn{number}", inputs, outputs, 3)
    inputs = STEM
    for layer in range(4):
        name, planes = f"visual.layer{layer + 1}.0", STEM * 2**layer
        weights |= conv_weights(f"{name}.conv1", f"{name}.bn1", inputs, planes, 1)
        weights |= conv_weights(f"{name}.conv2", f"{name}.bn2", planes, planes, 3)
        weights |= conv_weights(f"{name}.conv3", f"{name}.bn3", planes, 4 * planes, 1)
        weights |= conv_weights(f"{name}.downsample.0", f"{name}.downsample.1", inputs, 4 * planes, 1)
        inputs = 4 * planes
    places = (RESNET_SIDE // 32) ** 2 + 1
    weights["visual.attnpool.positional_embedding"] = numbers("visual.attnpool.positional_embedding", places, inputs)
    for part, outputs in (("k_proj", inputs), ("q_proj", inputs), ("v_proj", inputs), ("c_proj", DIM)):
        weights |= linear_weights(f"visual.attnpool.{part}", inputs, outputs)
    return {**weights, **text_weights()}


# ---------------------------------------------------------------------------------------------
# The networks
# ---------------------------------------------------------------------------------------------


def resizing(inputs: int, outputs: int) -> Tensor:
    """Bilinear with antialiasing as a matrix (outputs, inputs): a triangle around each place, each row of sum 1."""
    scale = inputs / outputs
    centres = (torch.arange(outputs) + 0.5) * scale
    distance = (torch.arange(inputs) + 0.5 - centres[:, None]).abs() / max(scale, 1)
    rows = (1 - distance).clamp(min=0)
    return rows / rows.sum(dim=1, keepdim=True)


def prepared(images: Tensor, side: int) -> Tensor:
    height, width = images.shape[-2:]
    images = resizing(height, side) @ images @ resizing(width, side).T
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def block(x: Tensor, w: dict[str, Tensor], name: str, causal: bool) -> Tensor:
    """One pre-norm transformer block with one head: (N,L,W) -> (N,L,W)."""
    width = x.shape[-1]
    y = F.layer_norm(x, (width,), w[f"{name}.ln_1.weight"], w[f"{name}.ln_1.bias"])
    q, k, v = (y @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]).split(width, dim=-1)
    scores = q @ k.mT / math.sqrt(width)
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
    y = scores.softmax(dim=-1) @ v
    x = x + y @ w[f"{name}.attn.out_proj.weight"].T + w[f"{name}.attn.out_proj.bias"]
    y = F.layer_norm(x, (width,), w[f"{name}.ln_2.weight"], w[f"{name}.ln_2.bias"])
    y = y @ w[f"{name}.mlp.c_fc.weight"].T + w[f"{name}.mlp.c_fc.bias"]
    y = y * torch.sigmoid(1.702 * y)  # QuickGELU
    return x + y @ w[f"{name}.mlp.c_proj.weight"].T + w[f"{name}.mlp.c_proj.bias"]


def image_features(images: Tensor, w: dict[str, Tensor]) -> Tensor:
    """The ViT: (B,3,H,W) in [0, 1] -> (B,D), not normalised."""
    x = F.conv2d(prepared(images, VIT_SIDE), w["visual.conv1.weight"], stride=PATCH).flatten(2).mT
    x = torch.cat([w["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1) + w["visual.positional_embedding"]
    x = F.layer_norm(x, (WIDTH,), w["visual.ln_pre.weight"], w["visual.ln_pre.bias"])
    x = block(x, w, "visual.transformer.resblocks.0", causal=False)
    x = F.layer_norm(x[:, 0], (WIDTH,), w["visual.ln_post.weight"], w["visual.ln_post.bias"])
    return x @ w["visual.proj"]


def text_features(embedded: Tensor, end: int, w: dict[str, Tensor]) -> Tensor:
    """The text tower, from token embeddings (N,77,W): (N,D), not normalised."""
    x = block(embedded + w["positional_embedding"], w, "transformer.resblocks.0", causal=True)
    x = F.layer_norm(x, (TEXT_WIDTH,), w["ln_final.weight"], w["ln_final.bias"])
    return x[:, end] @ w["text_projection"]


def conv_norm(x: Tensor, w: dict[str, Tensor], conv: str, norm: str, **options: int) -> Tensor:
    x = F.conv2d(x, w[f"visual.{conv}.weight"], **options)
    mean, var, scale, shift = (
        w[f"visual.{norm}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift


def feature_maps(images: Tensor, w: dict[str, Tensor]) -> list[Tensor]:
    """The ResNet: stem (after its pool) and layer1..4."""
    x = F.relu(conv_norm(prepared(images, RESNET_SIDE), w, "conv1", "bn1", stride=2, padding=1))
    x = F.relu(conv_norm(x, w, "conv2", "bn2", padding=1))
    x = F.avg_pool2d(F.relu(conv_norm(x, w, "conv3", "bn3", padding=1)), 2)
    maps = [x]
    for layer in range(1, 5):
        name, stride = f"layer{layer}.0", 1 if layer == 1 else 2
        y = F.relu(conv_norm(x, w, f"{name}.conv1", f"{name}.bn1"))
        y = F.relu(conv_norm(y, w, f"{name}.conv2", f"{name}.bn2", padding=1))
        y = conv_norm(F.avg_pool2d(y, stride), w, f"{name}.conv3", f"{name}.bn3")
        x = F.relu(y + conv_norm(F.avg_pool2d(x, stride), w, f"{name}.downsample.0", f"{name}.downsample.1"))
        maps.append(x)
    return maps


# ---------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------


def clip_inputs() -> dict[str, Tensor]:
    """Photos in [0, 1] and a guidance pair."""
    shapes = {"pred": (3, 3, 14, 48), "inp": (3, 3, 14, 48), "welllit": (5, 3, 24, 24), "backlit": (4, 3, 24, 24)}
    photos = {name: (numbers(name, *shape) + 1) / 2 for name, shape in shapes.items()}
    photos["welllit"] = 0.5 + photos["welllit"] / 2
    pair = numbers("guidance", DIM) + 0.03 * numbers("guidance pair", 2, DIM)  # close, or the softmax saturates
    return {**photos, "guidance": pair}


def given_values() -> dict[str, Tensor]:
    """What the tests take as given beside the inputs: scores, prompts, and the tokens of a prompt."""
    tokens = torch.zeros(1, 77, dtype=torch.int64)
    tokens[0, :PROMPT_END], tokens[0, PROMPT_END] = 343, 49407  # "x", and the end token
    return {
        "scores_b_t1_t_w": (numbers("scores", 4, 6) + 1) / 2,
        "prompt_embedding": numbers("prompt_embedding", 2, 77, TEXT_WIDTH),
        "prompt_tokens": tokens,
    }


def clip_values(word_tokens: Tensor) -> dict[str, Tensor]:
    """What the networks and losses give on `clip_inputs`; word_tokens (N,77): WORDS as CLIP's tokenizer writes them."""
    inputs, given = clip_inputs(), given_values()
    vit, resnet = vit_weights(), resnet_weights()
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)  # noqa: E731
    values = {"image_features": image_features(inputs["pred"], vit)}
    values |= {f"rn_layer{i}": m for i, m in enumerate(feature_maps(inputs["pred"], resnet))}

    def with_gradient(name: str, gradient: str, loss) -> None:
        result = inputs["pred"].clone().requires_grad_()
        value = loss(result)
        value.backward()
        values[name], values[gradient] = value.detach(), result.grad

    def identity(result: Tensor, alphas: tuple[float, ...]) -> Tensor:
        pairs = zip(alphas, feature_maps(result, resnet), feature_maps(inputs["inp"], resnet), strict=True)
        return sum(alpha * ((a - b) ** 2).mean(dim=(1, 2, 3)).sum() for alpha, a, b in pairs)

    def probability_of_backlit(result: Tensor) -> Tensor:
        cosines = unit(image_features(result, vit)) @ unit(inputs["guidance"]).T
        return torch.exp(100 * cosines[:, 0]) / torch.exp(100 * cosines).sum(dim=1)

    with_gradient("l_clip", "l_clip_grad", lambda x: probability_of_backlit(x).mean())
    with_gradient("l_identity_sum_recon", "l_identity_grad_recon", lambda x: identity(x, (1, 1, 1, 1, 1)))
    with_gradient("l_identity_sum_enh", "l_identity_grad_enh", lambda x: identity(x, (1, 1, 1, 1, 0.5)))
    values["v_well_lit"] = unit(unit(image_features(inputs["welllit"], vit)).mean(dim=0))
    values["v_backlit"] = unit(unit(image_features(inputs["backlit"], vit)).mean(dim=0))
    values["v_residual"] = unit(values["v_well_lit"] - values["v_backlit"])
    values["residual_target"] = values["v_well_lit"] @ values["v_residual"]
    with_gradient(
        "l_rave",
        "l_rave_grad",
        lambda x: ((unit(image_features(x, vit)) @ values["v_residual"] - values["residual_target"]) ** 2).mean(),
    )

    backlit, previous, current, well_lit = given["scores_b_t1_t_w"]
    rank = lambda high, low, margin: (low - high + margin).clamp(min=0).mean()  # noqa: E731
    values["l_margin_2"] = rank(backlit, well_lit, 1.0)
    values["l_margin_3"] = rank(backlit, well_lit, 0.9) + rank(backlit, current, 0.9) + rank(current, well_lit, 0.2)
    values["l_margin_4"] = (
        rank(backlit, well_lit, 0.9)
        + rank(backlit, previous, 0.9)
        + rank(previous, current, 0.1)
        + rank(current, well_lit, 0.1)
    )
    values["prompt_text_features"] = text_features(given["prompt_embedding"], PROMPT_END, vit)
    logits = 100 * unit(values["image_features"]) @ unit(values["prompt_text_features"]).T
    chosen = logits.softmax(dim=1)[torch.arange(3), torch.tensor([0, 1, 0])]
    values["l_ce_init"] = -torch.log(chosen).mean()
    embedded = vit["token_embedding.weight"][word_tokens]
    ends = word_tokens.argmax(dim=1)
    values["word_text_features"] = torch.cat(
        [text_features(words[None], int(end), vit) for words, end in zip(embedded, ends, strict=True)]
    )
    return values


def unet_weights() -> dict[str, Tensor]:
    """The enhancement network's 30 tensors, with a map around 0.5."""
    weights = {}

    def conv(name: str, inputs: int, outputs: int, kernel: int = 3, *, bias: bool = False) -> None:
        weights[f"{name}.weight"] = weight(f"{name}.weight", outputs, inputs, kernel, kernel)
        if bias:
            weights[f"{name}.bias"] = 0.2 * numbers(f"{name}.bias", outputs)

    conv("cond1", 3, 32, bias=True)
    for number, channels in enumerate((32, 32, 64, 64, 32, 32), start=1):
        for part in ("conv1", "conv2"):
            conv(f"ResidualBlock{number}.{part}", channels, channels)
            weights[f"ResidualBlock{number}.{part}.weight"] *= 0.3
    for branch in range(4):
        conv(f"PPM1.features.{branch}.1", 32, 8, 1)
        weights[f"PPM1.features.{branch}.2.weight"] = torch.tensor([0.1 * (branch + 1)])
    conv("PPM1.fuse.0", 64, 32)
    weights["PPM1.fuse.1.weight"] = torch.tensor([0.25])
    conv("condx", 32, 64, bias=True)
    conv("condy", 64, 32, bias=True)
    conv("cond_add1", 32, 1, bias=True)
    weights["cond_add1.weight"] *= 0.3
    weights["cond_add1.bias"] = torch.tensor([0.5])
    return weights


def unet_picture() -> Tensor:
    """(1,3,26,19) in [0, 1]: a dark and a bright half with structure."""
    picture = (numbers("picture", 1, 3, 26, 19) + 1) / 4
    picture[..., 10:] += 0.45
    return picture


def illumination(picture: Tensor, w: dict[str, Tensor], padding: str) -> Tensor:
    """The map (1,1,H,W), step by step as the table of the architecture lists it."""

    def conv(x: Tensor, name: str, mode: str) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="constant" if mode == "zeros" else mode)
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def residual(x: Tensor, number: int) -> Tensor:
        y = F.leaky_relu(conv(x, f"ResidualBlock{number}.conv1", "reflect"), 0.2)
        return F.leaky_relu(conv(y, f"ResidualBlock{number}.conv2", "reflect") + x, 0.2)

    x = F.leaky_relu(conv(picture, "cond1", padding), 0.2)
    x = residual(residual(x, 1), 2)
    grids = []
    for branch, bins in enumerate((1, 2, 3, 6)):
        grid = F.conv2d(F.adaptive_avg_pool2d(x, bins), w[f"PPM1.features.{branch}.1.weight"])
        grid = F.prelu(grid, w[f"PPM1.features.{branch}.2.weight"])
        grids.append(F.interpolate(grid, x.shape[-2:], mode="bilinear", align_corners=True))
    x = F.prelu(conv(torch.cat([x, *grids], dim=1), "PPM1.fuse.0", "zeros"), w["PPM1.fuse.1.weight"])
    x = residual(residual(conv(x, "condx", padding), 3), 4)
    x = residual(residual(conv(x, "condy", padding), 5), 6)
    return F.relu(conv(x, "cond_add1", padding))


def unet_values() -> dict[str, Tensor]:
    """Map and result, for both paddings."""
    picture, weights, values = unet_picture(), unet_weights(), {}
    for padding in ("zeros", "reflect"):
        values[padding] = illumination(picture, weights, padding)
        values[f"{padding}_enhanced"] = (picture / (values[padding] + 1e-9)).clamp(0, 1)
    return values


def main() -> None:
    """Write both files."""
    from open_clip import tokenize  # the vocabulary, of which there is no second implementation

    for name, values in (("tiny_clip", clip_values(tokenize(WORDS))), ("illumination", unet_values())):
        np.savez_compressed(HERE / f"{name}.npz", **{key: value.numpy() for key, value in values.items()})
        print(f"{name}.npz  {(HERE / f'{name}.npz').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
