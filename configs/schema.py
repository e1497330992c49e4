"""Every config key: type, range, default and where its value comes from.

Three kinds of file are described here: `TrainConfig` (train_rave.py, train.py), `InferenceConfig`
(inference.py) and `MetricsConfig` (compute_metrics.py). Unknown keys are refused, and so are
values of the wrong type: nothing is cast silently. `configs/README.md` and the JSON Schemas in
`configs/schema/` are generated from this file by `make config-docs`.

Key names of the authors' releases are kept, so a published YAML loads; keys of ours sit beside them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

LayerWeights = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=5, max_length=5)]
Mode = Literal["rave", "clip_lit", "clip_lit_latent"]


class Section(BaseModel):
    """Base of every section: unknown keys refused, strict types, immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class Experiment(Section):
    """What is trained, and where the run is written."""

    mode: Mode = "rave"
    """Method: `rave` (train_rave.py); `clip_lit`, learned prompts, or `clip_lit_latent`, learned vectors (train.py)."""
    exp_name: Annotated[str, Field(min_length=1, pattern=r"^[^/\\.][^/\\]*$")] = "rave"
    """Name of the run; its folder is `save_dir/exp_name`."""
    save_dir: str = "runs"
    """Folder that holds all runs. An earlier run of the same name is moved aside, never deleted."""
    overwrite: bool = False
    """Delete an earlier run of the same name instead of moving it aside."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the initial weights, the order of the photos and their augmentation."""
    cache_dir: str = ".cache"
    """Folder for CLIP embeddings and resized photos, shared by all runs; safe to delete."""


Range = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)]


class SimulatedBacklight(Section):
    """Well-lit photos, darkened in linear light (`data/backlight.py`), as inputs of the UNet among the backlit ones.

    They widen the exposures that the UNet sees. No ground truth is used.
    """

    share: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of the UNet's inputs that are well-lit photos; 0: none (paper)."""
    untouched: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of these that stay as they are, so that the UNet learns to leave well-lit photos alone."""
    foreground_stops: Range = [0.0, 4.0]
    """Exposure that the foreground loses, in stops: drawn from this range."""
    background_stops: Range = [0.0, 0.7]
    """Exposure that the rest gains, in stops."""
    foreground_share: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)] = [
        0.6,
        1.0,
    ]
    """Share of the picture that is foreground; 1: all of it, an evenly under-exposed photo."""
    noise: Range = [0.0, 0.0]
    """Standard deviation of sensor noise, of full scale."""


class TrainData(Section):
    """The photos. Two folders, unpaired; labels come from the folder a photo is in."""

    backlit_images_path: str
    """Folder of backlit photos (searched recursively, any format that Pillow reads)."""
    welllit_images_path: str
    """Folder of well-lit photos; unpaired with the backlit ones, or their own ground truths ("paired" regime)."""
    leave_out: list[str] = []
    """Text files with one file name, or path in its folder, a line: these photos of both folders are not trained on."""
    image_size: Annotated[int, Field(ge=16, le=4096)] = 512
    """Side in pixels to which training photos are squashed (paper and release: 512)."""
    augment: bool = True
    """Flips, transposition, rotation and zoom of the backlit photos (CLIP-LIT release)."""
    simulated_backlight: SimulatedBacklight = SimulatedBacklight()
    """Well-lit photos, darkened, as further inputs of the UNet."""
    val_backlit_path: str | None = None
    """Optional folder of backlit validation photos; with `val_gt_path` gives validation PSNR and SSIM."""
    val_gt_path: str | None = None
    """Ground truths of `val_backlit_path`, matched by file name without extension."""
    val_list: str | None = None
    """Optional text file with one file name, or path, a line: only these photos of `val_backlit_path` are used."""
    val_size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Side in pixels at which validation photos are squashed before measuring; null: `image_size`."""


class TrainLoop(Section):
    """Length of the run, device and what is written while it goes on."""

    num_epochs: Annotated[int, Field(ge=1)] = 100
    """Length of the guided training in passes over the backlit photos; used where `num_iters` (RAVE) or `num_rounds` (CLIP-LIT) is null."""
    num_iters: Annotated[int, Field(ge=1)] | None = None
    """UNet iterations of the RAVE phase (published weights: about 3,100 to 5,200); null: from `num_epochs`."""
    num_rounds: Annotated[int, Field(ge=1)] | None = None
    """CLIP-LIT: rounds of UNet training and guidance refinement; null: as many as `num_epochs` passes need."""
    num_workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that load and augment photos. Results do not depend on it."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: what Accelerate finds (CUDA, MPS, ...), else the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward passes; `auto`: bf16 on a GPU that has it, fp32 on the CPU."""
    compile: bool = False
    """Compile the UNet with `torch.compile`. Needs a C++ compiler (CPU) or Triton (GPU), and minutes at the first step of each phase;
    results differ by rounding."""
    val_iter: Annotated[int, Field(ge=1)] = 100
    """Iterations between validations and previews, while the UNet is trained."""
    save_iter: Annotated[int, Field(ge=1)] = 100
    """Iterations between writes of `checkpoints/last.pt`, from which `--resume` goes on."""
    preview_photos: Annotated[int, Field(ge=0, le=64)] = 6
    """How many photos (the first of the validation set, else of the backlit ones) the preview grid shows."""


class UNetModel(Section):
    """The enhancement network and its optimiser (Adam)."""

    lr: Annotated[float, Field(gt=0, le=1)] = 2e-5
    """Learning rate (release: 2e-5)."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate of the guided phases and of learning the first map: `constant` (release), or `cosine` down to a twentieth."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-3
    """Weight decay (release: 1e-3)."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Photos a step, over all processes together (release: 8)."""
    num_reconstruction_iters: Annotated[int, Field(ge=0)] = 1000
    """Iterations of the self-reconstruction phase (release: 1000)."""
    first_map: Literal["identity", "retinex"] = "identity"
    """What the UNet learns before it is guided: `identity`, self-reconstruction, a map of 1 (paper); `retinex`, the map that
    `models.retinex.first_illumination` computes from the photo, without any encoder, from which few guided iterations are enough."""
    reconstruction_lr: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate until the UNet is guided; null: `lr` (release)."""
    num_round_iters: Annotated[int, Field(ge=1)] = 2100
    """CLIP-LIT: UNet iterations of each round (release: 2100)."""
    thr_loss: Annotated[float, Field(gt=0)] = 90.0
    """Loss under which a guided phase may end; above it the phase goes on (release: 90)."""
    extension_iters: Annotated[int, Field(ge=1)] = 60
    """Iterations by which a phase that missed `thr_loss` goes on (release: 60)."""
    max_extensions: Annotated[int, Field(ge=0)] = 10
    """Most extensions of a phase; the release has no limit and can run forever."""
    display_iter: Annotated[int, Field(ge=1)] = 20
    """Iterations between log lines and looks at the best snapshot (release: 20)."""
    grad_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm; null: no clipping (release)."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, of which snapshots and validation are then made; null: none (release)."""
    map_bias: float | None = None
    """Initial bias of the last convolution; null: PyTorch's default (release). 1.0 starts close to the identity map."""
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Standard deviation of the initial weights (release: 0.02)."""
    load_pretrain: bool = False
    """Start from the weights in `pretrain_dir` and skip self-reconstruction."""
    pretrain_dir: str | None = None
    """UNet weights to start from: a published `.pth` or our `.safetensors`."""


class GuidanceModel(Section):
    """The learned guidance of CLIP-LIT (prompts) and CLIP-LIT-Latent (vectors) and its optimiser (Adam); not used by RAVE."""

    length_prompt: Annotated[int, Field(ge=1, le=75)] = 16
    """Number of words a prompt starts from, "X X ... X" (release: 16)."""
    thr_loss: Annotated[float, Field(gt=0)] = 60.0
    """Loss under which guidance initialisation or refinement may end (release: 60)."""
    lr: Annotated[float, Field(gt=0, le=1)] = 5e-6
    """Learning rate (release: 5e-6 for prompts, 5e-4 for latent vectors)."""
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
    """Factor of the cosines before the softmax, in guidance training and in the guidance loss (CLIP's own and the release: 100; the
    paper writes none). Encoders whose embeddings differ more than CLIP's need less, or S saturates and guides no more."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Photos a guidance step, over all processes together (release: 16)."""
    image_size: Annotated[int, Field(ge=16, le=4096)] = 256
    """Side in pixels to which the photos of guidance training are squashed, and at which enhanced ones are made (release: 256)."""
    cached_augmentations: Annotated[int, Field(ge=0, le=1000)] = 0
    """0: photos are augmented and encoded anew in each step (release). K: each photo is encoded once under K augmentations, the
    same K for all photos, and steps draw from these; iterations then take a millisecond."""
    held_back: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of each folder that guidance training does not see, on which its accuracy is reported; 0: reported on the training photos."""
    nearest_tokens: Annotated[int, Field(ge=0, le=100)] = 5
    """How many of the vocabulary's nearest tokens to report for each guidance vector, where the encoder has a text tower; 0: none."""
    display_iter: Annotated[int, Field(ge=1)] = 20
    """Iterations between log lines and looks at the best snapshot (release: 20)."""
    load_pretrain: bool = False
    """Start from the guidance in `pretrain_dir` and skip guidance initialisation."""
    pretrain_dir: str | None = None
    """Guidance to start from: our `.safetensors` or a published `.pth`."""


Weight = Annotated[float, Field(ge=-1000, le=1000)]


class DirectionWeights(Section):
    """Weights of the directions that `guidance.direction: sum` adds; each direction has unit norm. 0: left out."""

    folders: Weight = 1.0
    """Of the residual vector of the two folders."""
    texts: Weight = 0.0
    """Of the direction between `guidance.texts`."""
    saved: Weight = 0.0
    """Of the direction in `guidance.saved`."""


class Guidance(Section):
    """RAVE's residual vector, or a direction of one's own in its place. Whatever the direction, the set point is the mean
    projection of the well-lit folder. Built in this order: `direction`, `remove_first_n_tokens`, `remove`."""

    direction: Literal["folders", "texts", "saved", "sum"] = "folders"
    """Where the direction from backlit to well-lit comes from: `folders` (RAVE: the mean embeddings of the two folders), `texts`
    (a pair of texts), `saved` (a file), or `sum` of these by `weights`. Of our own: all but `folders`."""
    texts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2, max_length=2)] = [
        "a backlit photo",
        "a well-lit photo",
    ]
    """For `texts`: the direction from the first to the second text; needs an encoder with a text tower."""
    saved: str | None = None
    """For `saved`: a `direction.safetensors` of an earlier run or report, or a learned pair (`guidance.safetensors` of a CLIP-LIT
    run, or the releases' `.pth`), whose direction is that from its backlit to its well-lit vector."""
    weights: DirectionWeights = DirectionWeights()
    """For `sum`."""
    remove: list[Annotated[str, Field(min_length=1)]] = []
    """Words or texts whose meaning is projected out of the direction, such as `[sky, beach]`; needs an encoder with a text tower."""
    remove_first_n_tokens: Annotated[int, Field(ge=0, le=10000)] = 0
    """Shift the residual away from the n nearest and n farthest vocabulary tokens (RAVE, "shifted"; published: 15); 0: off."""
    embed_batch_size: Annotated[int, Field(ge=1)] = 32
    """Photos a batch when the two folders are embedded."""


class Encoder(Section):
    """One frozen image encoder."""

    model: str = "ViT-B-32"
    """An open_clip model name, `timm/NAME` for an image-only trunk, `mini-clip` or `mini-rn` (ours), or `auto` for a weight file in
    OpenAI's naming."""
    pretrained: str | None = "openai"
    """An open_clip tag, a weight file (looked for in the current folder, then in this repository), or null for seeded random weights."""


class IdentityEncoder(Encoder):
    """The encoder of the identity loss; needs five feature maps, so a ResNet."""

    model: str = "RN101"
    """As `clip.guidance.model`."""


class Clip(Section):
    """The two frozen CLIP encoders."""

    guidance: Encoder = Encoder()
    """Guides the enhancement (paper: ViT-B/32, OpenAI weights)."""
    identity: IdentityEncoder = IdentityEncoder()
    """Compares content before and after (paper: RN101, OpenAI weights). The same values as `guidance` share one encoder."""
    preprocess: Literal["squash", "center_crop"] = "squash"
    """How a photo becomes the encoder's square input: `squash` (both sides to the input size) or CLIP's own resize and centre crop."""
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
    """Weights of the loss terms. RAVE: `identity + residual`; CLIP-LIT: `identity + clip`, and `refinement` for its guidance."""

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
    refinement: Annotated[float, Field(ge=0)] = 200.0
    """Weight of the ranking loss of guidance refinement (release: 200)."""
    margins: Margins = Margins()
    """Margins of the ranking loss."""


class TrainConfig(Section):
    """Training: `train_rave.py --cfg FILE` (`exp.mode: rave`), `train.py --cfg FILE` (`clip_lit`, `clip_lit_latent`)."""

    exp: Experiment = Experiment()
    data: TrainData
    train: TrainLoop = TrainLoop()
    unet_model: UNetModel = UNetModel()
    guidance_model: GuidanceModel = GuidanceModel()
    guidance: Guidance = Guidance()
    clip: Clip = Clip()
    loss: Loss = Loss()


# ---------------------------------------------------------------------------------------------
# Inference
# ---------------------------------------------------------------------------------------------


class InferenceData(Section):
    """Where photos are read and results are written."""

    input: str | list[str] | None = None
    """A folder (searched recursively), a file, or a list of these."""
    output: str | None = None
    """Folder of results; sub-folders are kept. null: `FOLDER_enhanced` beside the folder that is, or holds, the input."""


class InferenceModel(Section):
    """The enhancement network."""

    checkpoint: str = "pretrained_models/rave.safetensors"
    """UNet weights: our `.safetensors` or a published `.pth`."""
    padding_mode: Literal["reflect", "zeros"] = "reflect"
    """Padding of the plain convolutions at inference (published results: reflect)."""
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    """0 returns the photo, 1 the full result; in between the illumination map is raised to this power."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: what Accelerate finds (CUDA, MPS, ...), else the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the network. `auto` and `bf16`: bf16 on a GPU or processor that has it (over 50 dB PSNR of fp32), else fp32,
    which is faster there."""
    backend: Literal["auto", "torch", "torch-compile", "openvino"] = "auto"
    """What runs the network; `auto`: on a CPU OpenVINO where it is installed, else PyTorch. `torch-compile` needs a C++ compiler."""
    tile_size: Annotated[int, Field(ge=32)] | None = None
    """Longest side in pixels of the tiles in which photos pass the network, for memory; null: 448 for photos over 0.5 megapixels."""


class InferenceSave(Section):
    """What is written."""

    format: Literal["keep", "png", "jpeg", "webp", "tiff"] = "keep"
    """File format of results; `keep`: that of the photo where it is one of these four, else PNG."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG and WebP quality."""
    side_by_side: bool = False
    """Also write photo and result as one picture, into `OUTPUT_side_by_side`."""
    illumination: bool = False
    """Also write the illumination map as a grey picture (white: 1, no change), into `OUTPUT_illumination`."""
    skip_existing: bool = False
    """Leave out photos whose result is already there, so that a stopped run goes on."""


class InferenceConfig(Section):
    """Enhancement of files or folders: `inference.py [INPUT ...] --cfg FILE`."""

    data: InferenceData = InferenceData()
    model: InferenceModel = InferenceModel()
    save: InferenceSave = InferenceSave()


# ---------------------------------------------------------------------------------------------
# Metrics
# ---------------------------------------------------------------------------------------------


class MetricsData(Section):
    """The two folders that are compared."""

    gt_images_path: str | None = None
    """Folder of ground truths."""
    enhanced_images_path: str | None = None
    """Folder of results; `name(1).png`, `name(2).png` are matched with the ground truth `name.*`."""


class MetricsOptions(Section):
    """What is measured and where it is written."""

    protocol: Literal["rgb", "paper", "both"] = "both"
    """`rgb`: the community's; `paper`: what the RAVE release computes. The console and JSON name them."""
    lpips: Literal["auto", "on", "off"] = "auto"
    """`auto`: null with the reason where AlexNet's weights cannot be had; `on`: an error then; `off`: null."""
    json_file: str | None = None
    """JSON with the means and each image's values; null: `ENHANCED_metrics.json` beside the folder of results."""
    csv_file: str | None = None
    """CSV with each image's values; null: beside the JSON, with `.csv`."""


class MetricsConfig(Section):
    """Measuring: `compute_metrics.py --gt DIR --enhanced DIR`."""

    data: MetricsData = MetricsData()
    metrics: MetricsOptions = MetricsOptions()
