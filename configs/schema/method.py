"""Keys of a training that are the method: guidance, encoders, loss terms."""

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.base import PathText, Range, Section, Shares, none_if_empty

LayerWeights = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=5, max_length=5)]
Weight = Annotated[float, Field(ge=-1000, le=1000)]


class GuidanceModel(Section):
    """The learned guidance of CLIP-LIT (prompts) and CLIP-LIT-Latent (vectors) and its optimiser (Adam); not used by
    RAVE."""

    length_prompt: Annotated[int, Field(ge=1, le=75)] = 16
    """Number of words a prompt starts from, "X X ... X" (release: 16)."""
    init_texts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2, max_length=2)] | None = None
    """CLIP-LIT: texts that the two prompts start from, [of backlit photos, of well-lit photos]; null: "X X ... X" for
    both (release)."""
    thr_loss: Annotated[float, Field(gt=0)] = 60.0
    """Loss under which guidance initialisation or refinement may end (release: 60)."""
    lr: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate; null: the release's, 5e-6 for prompts and 5e-4 for latent vectors."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-3
    """Weight decay (release: 1e-3)."""
    num_pretrain_iters: Annotated[int, Field(ge=0)] = 8000
    """Iterations of guidance initialisation (release: 8000)."""
    num_refine_iters: Annotated[int, Field(ge=0)] = 1000
    """Iterations of guidance refinement in each round (release: 1000)."""
    extension_iters: Annotated[int, Field(ge=1)] = 100
    """Iterations by which a phase that missed `thr_loss` goes on (release: 100)."""
    max_extensions: Annotated[int, Field(ge=0)] = 10
    """Most extensions of a phase; the release has no limit and can run forever."""
    logit_scale: Annotated[float, Field(gt=0, le=1000)] = 100.0
    """Factor of the cosines before the softmax, in guidance training and in the guidance loss (CLIP's own and the
    release: 100; the paper writes none). Encoders whose embeddings differ more than CLIP's need less, or S saturates
    and guides no more."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Photos a guidance step, over all processes together (release: 16)."""
    image_size: Annotated[int, Field(ge=16, le=4096)] = 256
    """Side in pixels to which the photos of guidance training are squashed, and at which enhanced ones are made
    (release: 256)."""
    cached_augmentations: Annotated[int, Field(ge=0, le=1000)] = 0
    """0: photos are augmented and encoded again in each step (release). K: each photo is encoded once under K
    augmentations, the same K for all photos, and steps draw from these; iterations then take a millisecond."""
    held_back: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of each folder that guidance training does not see, on which its accuracy is reported; 0
    (release): reported on the training photos."""
    nearest_tokens: Annotated[int, Field(ge=0, le=100)] = 5
    """How many of the vocabulary's nearest tokens to report for each guidance vector, where the encoder has one; 0:
    none."""
    display_iter: Annotated[int, Field(ge=1)] = 20
    """Iterations between log lines and looks at the best snapshot (release: 20)."""
    load_pretrain: bool = False
    """Start from the guidance in `pretrain_dir` and skip guidance initialisation."""
    pretrain_dir: Annotated[PathText | None, none_if_empty()] = None
    """Guidance to start from: our `.safetensors` or a published `.pth`."""


class DirectionWeights(Section):
    """Weights of the directions that `guidance.direction: sum` adds; each direction has unit norm. 0: left out."""

    folders: Weight = 1.0
    """Of the residual vector of the two folders."""
    texts: Weight = 0.0
    """Of the direction between `guidance.texts`."""
    saved: Weight = 0.0
    """Of the direction in `guidance.saved`."""
    relit: Weight = 0.0
    """Of the direction from relit pairs."""


class Relit(Section):
    """How `guidance.direction: relit` makes its pairs: photos, and the same photos in another light."""

    photos: Literal["welllit", "backlit", "both"] = "welllit"
    """Which photos: `welllit`, darkened as if taken against the light; `backlit`, lifted by a gamma; or `both`."""
    foreground_stops: Range = [2.0, 4.5]
    """Exposure that the foreground of a well-lit photo loses, in stops: drawn from this range."""
    background_stops: Range = [0.0, 0.7]
    """Exposure that the rest gains, in stops."""
    foreground_share: Shares = [0.6, 1.0]
    """Share of the picture that is foreground."""
    gamma: Annotated[float, Field(gt=1, le=10)] = 2.2
    """By which backlit photos are lifted: I^(1/γ)."""


class Guidance(Section):
    """RAVE's residual vector, or a direction of one's own in its place, and the set points to which it pulls. They are
    measured on the two folders, or on the relit pairs where these are used. Built in this order: `direction`,
    `remove_first_n_tokens`, `remove`."""

    direction: Literal["folders", "texts", "saved", "relit", "sum"] = "folders"
    """Where the direction from backlit to well-lit comes from: `folders` (RAVE: the mean embeddings of the two
    folders), `texts` (a pair of texts), `saved` (a file), `relit` (photos and the same photos in another light, so that
    content cancels and only light is left), or `sum` of these by `weights`. Of our own: all but `folders`."""
    layers: Literal["last", "stages"] = "last"
    """The space of direction, set points and loss, and of CLIP-LIT-Latent's two vectors: the encoder's `last` layer
    (papers), or its `stages`: the channel means of its five feature maps beside it. Light shows in the early ones.
    Needs an encoder with five maps."""
    set_point: Literal["mean", "photo"] = "mean"
    """To which projection results are pulled: `mean`, that of the well-lit mean, for all (paper); `photo`, each input's
    own plus the mean difference of the two sides, so that content cancels for each photo. Where an input is a well-lit
    photo, darkened or as it is (`data.simulated_backlight`), the set point is then that photo's own projection."""
    set_point_factor: Annotated[float, Field(gt=0, le=3)] = 1.0
    """For `photo`: factor of the mean difference."""
    texts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2, max_length=2)] = [
        "a backlit photo",
        "a well-lit photo",
    ]
    """For `texts`: the direction from the first to the second text; needs an encoder with a text tower."""
    saved: PathText | None = None
    """For `saved`: a `direction.safetensors` of an earlier run or report, or a learned pair (`guidance.safetensors` of
    a CLIP-LIT run, or the releases' `.pth`), whose direction is that from its backlit to its well-lit vector."""
    relit: Relit = Relit()
    """For `relit`."""
    weights: DirectionWeights = DirectionWeights()
    """For `sum`."""
    remove: list[Annotated[str, Field(min_length=1)]] = []
    """Words whose meaning is projected out of the direction: texts, such as `[sky, beach]`, or names of the classes of
    an encoder with a classifier, such as `[tiger, bannister]`."""
    remove_first_n_tokens: Annotated[int, Field(ge=0, le=10000)] = 0
    """Shift the residual away from the n nearest and n farthest tokens of the vocabulary, or classes of an encoder with
    a classifier (RAVE, "shifted"; published: 15); 0: off."""
    embed_batch_size: Annotated[int, Field(ge=1)] = 32
    """Photos a batch when the two folders are embedded."""


class Encoder(Section):
    """One frozen image encoder."""

    model: str = "ViT-B-32"
    """An open_clip model name; `efficientnet-lite0`, an image encoder whose weights (`imagenet`) come with a package;
    `mini-clip` or `mini-rn` (ours); `timm/NAME` for another image-only trunk; or `auto` for a weight file in OpenAI's
    naming."""
    pretrained: PathText | None = "openai"
    """A tag (of open_clip; `imagenet` of `efficientnet-lite0`), a weight file (looked for in the current folder, then
    in this repository), or null for seeded random weights."""
    quick_gelu: Literal["auto", True, False] = "auto"
    """Whether the weights were trained with QuickGELU; with the other activation they load without complaint and embed
    wrongly. `auto`: as open_clip's entry of the tag says; for a file, as its content or the model's name says.
    `true`: weights of OpenAI, MetaCLIP, DFN; `false`: LAION-2B, DataComp."""


class IdentityEncoder(Encoder):
    """The encoder of the identity loss; needs five feature maps: a ResNet, or `efficientnet-lite0`."""

    model: str = "RN101"
    """As `clip.guidance.model`."""


class Clip(Section):
    """The two frozen CLIP encoders."""

    guidance: Encoder = Encoder()
    """Guides the enhancement (paper: ViT-B/32, OpenAI weights)."""
    identity: IdentityEncoder = IdentityEncoder()
    """Compares content before and after (paper: RN101, OpenAI weights). The same values as `guidance` share one
    encoder."""
    preprocess: Literal["squash", "center_crop"] = "squash"
    """How a photo becomes the encoder's square input: `squash` (both sides to the input size) or CLIP's own resize and
    centre crop."""
    image_size: Annotated[int, Field(ge=32, le=1024)] | None = None
    """Side in pixels of the encoders' square input; null: each one's own. Networks that take any size only
    (convolutional ones)."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of encoders without pretrained weights."""


class Margins(Section):
    """Margins of the ranking loss (CLIP-LIT, section 3.2). m0 also applies while there is one enhanced result."""

    m0: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Between backlit photos and well-lit or enhanced ones (paper and release: 0.9)."""
    m1: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Between the latest enhanced results and well-lit photos (release: 0.1; paper: 0.2)."""
    m2: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Between the previous and the latest enhanced results (release: 0.1; paper: 0.2)."""


class Loss(Section):
    """Weights of the loss terms. RAVE: `identity + residual`; CLIP-LIT: `identity + clip`, and `refinement` for its
    guidance."""

    identity: Annotated[float, Field(ge=0)] = 25.0
    """Weight of the identity loss in self-reconstruction (release: 25)."""
    identity_guided: Annotated[float, Field(ge=0)] = 22.5
    """Weight of the identity loss in the guided phase (release: 0.9 * 25)."""
    identity_layers: LayerWeights = [1.0, 1.0, 1.0, 1.0, 1.0]
    """Weights of stem, layer1..4 in self-reconstruction (release)."""
    identity_layers_guided: LayerWeights = [1.0, 1.0, 1.0, 1.0, 0.5]
    """Weights of stem, layer1..4 in the guided phase (release)."""
    identity_reduction: Literal["sum", "mean"] = "sum"
    """Over the batch: `sum` (release: the weight grows with the batch size) or `mean`."""
    residual: Annotated[float, Field(ge=0)] = 1920.0
    """Weight of RAVE's residual guidance (release: 6 * 320)."""
    clip: Annotated[float, Field(ge=0)] = 320.0
    """Weight of CLIP-LIT's guidance, the mean negative similarity of enhanced photos (release: 16 * 20)."""
    pixel: Annotated[float, Field(ge=0)] = 0.0
    """RAVE's script: weight of the supervised loss against known ground truths, `data.pairs` and simulated backlight
    (ours; papers: 0). With `residual` and `identity_guided` 0 it stands alone, and no encoder is loaded."""
    pixel_error: Literal["absolute", "psnr"] = "absolute"
    """The supervised loss's distance to the ground truth: `absolute`, the mean absolute error, or `psnr`, the mean over
    photos of ln(1 + MSE / 0.001) / 20, in which photos far from their truth weigh less."""
    structure: Annotated[float, Field(ge=0)] = 0.3
    """Weight of 1 - SSIM beside that distance in the supervised loss."""
    white: Annotated[float, Field(ge=0)] = 0.0
    """Weight of what becomes white (above 0.96) and is not white in the ground truth or, without one, in the photo
    (ours; papers: 0)."""
    refinement: Annotated[float, Field(ge=0)] = 200.0
    """Weight of the ranking loss of guidance refinement (release: 200)."""
    margins: Margins = Margins()
    """Margins of the ranking loss."""
