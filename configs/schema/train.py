"""Keys of a training: train_rave.py, train.py."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from configs.schema.base import PathText, PhotoData, Range, Section, Shares, none_if_empty, spelt
from configs.schema.method import Clip, Guidance, GuidanceModel, Loss

RELEASED_MODES = {"clip-lit": "clip_lit", "clip-lit-latent": "clip_lit_latent"}
GUIDANCE_LR = {"clip_lit": 5e-6, "clip_lit_latent": 5e-4}  # release; RAVE learns no guidance
LONGEST_RUN_NAME = 200  # bytes, so that `NAME.old-12` is a file name too

Mode = Annotated[Literal["rave", "clip_lit", "clip_lit_latent"], spelt(RELEASED_MODES)]


def _run_name(name: str) -> str:
    if len(name.encode(errors="surrogateescape")) > LONGEST_RUN_NAME:
        raise PydanticCustomError("name", "expected a name of at most {most} bytes", {"most": LONGEST_RUN_NAME})
    if not name.strip():
        raise PydanticCustomError("name", "expected a name that is not blank")
    if name.startswith(".") or set(name) & set("/\\"):
        raise PydanticCustomError("name", "expected a name without a slash that does not begin with a dot")
    return name


class Experiment(Section):
    """What is trained, and where the run is written."""

    mode: Mode = "rave"
    """Method: `rave` (train_rave.py); `clip_lit`, learned prompts, or `clip_lit_latent`, learned vectors (train.py)."""
    exp_name: Annotated[str, Field(min_length=1), AfterValidator(_run_name)] = "rave"
    """Name of the run; its folder is `save_dir/exp_name`."""
    save_dir: PathText = "runs"
    """Folder that holds all runs. An earlier run of the same name is moved aside, unless `exp.overwrite`."""
    overwrite: bool = False
    """Delete an earlier run of the same name instead of moving it aside."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the initial weights, the order of the photos and their augmentation."""
    cache_dir: PathText = ".cache"
    """Folder for CLIP embeddings and resized photos, shared by all runs; safe to delete."""
    cache_gb: Annotated[float, Field(gt=0)] | None = 50.0
    """Most that the caches may take, in 10^9 bytes: at the start of a training the longest unused go; null: no limit.
    What was used in the last two days stays."""


class SimulatedBacklight(Section):
    """Well-lit photos, darkened in linear light (`data/backlight.py`), as inputs of the UNet among the backlit ones.

    They widen the exposures that the UNet sees. Their ground truths, the photos as they were, are used by `loss.pixel`,
    `loss.white` and `guidance.set_point: photo` only.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the UNet's inputs that are well-lit photos; 0: none (paper)."""
    untouched: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of these that stay as they are, so that the UNet learns to leave well-lit photos alone."""
    dim: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the UNet's inputs that are the darkest third of the well-lit photos, as they are: dim on purpose. Those
    of `share` are then drawn from the brighter two thirds."""
    low_key: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the UNet's inputs that are dark parts of the well-lit photos, as they are (`data/low_key.py`): darker
    than whole photos, and on purpose too."""
    even: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the darkened photos that are under-exposed all over, whatever `foreground_share` says."""
    foreground_stops: Range = [0.0, 4.0]
    """Exposure that the foreground loses, in stops: drawn from this range."""
    background_stops: Range = [0.0, 0.7]
    """Exposure that the rest gains, in stops."""
    foreground_share: Shares = [0.6, 1.0]
    """Share of the picture that is foreground; 1: all of it, an evenly under-exposed photo."""
    noise: Range = [0.0, 0.0]
    """Standard deviation of sensor noise, of full scale."""

    @model_validator(mode="after")
    def _shares_of_one(self) -> "SimulatedBacklight":
        if self.shares > 1:
            raise PydanticCustomError(
                "shares",
                "expected share, dim and low_key of together at most 1, found {sum}",
                {"sum": f"{self.shares:g}"},
            )
        return self

    @property
    def shares(self) -> float:
        """Share of the UNet's inputs that well-lit photos are."""
        return round(self.share + self.dim + self.low_key, 9)  # 0.7 + 0.2 + 0.1 is below 1 in floating point


class TrainData(PhotoData):
    """The photos. Two folders, unpaired; labels come from the folder a photo is in."""

    backlit_images_path: PathText
    """Folder of backlit photos (searched recursively, any format that Pillow reads)."""
    welllit_images_path: PathText
    """Folder of well-lit photos; unpaired with the backlit ones, or their own ground truths ("paired" regime)."""
    pairs: PathText | None = None
    """Folder of the ground truths of `backlit_images_path`, matched by file name without extension, for `loss.pixel`
    (ours)."""
    leave_out: list[PathText] = []
    """Text files with one file name, or path in its folder, a line: these photos of both folders are not trained on."""
    image_size: Annotated[int, Field(ge=16, le=4096)] = 512
    """Side in pixels to which training photos are squashed (paper and release: 512)."""
    augment: bool = True
    """Flips, transposition, rotation and zoom (CLIP-LIT release) of all photos that are trained on: the UNet's inputs,
    each alike with its ground truth, and both folders that the guidance learns from. The direction of RAVE is made of
    photos as they are."""
    simulated_backlight: SimulatedBacklight = SimulatedBacklight()
    """Well-lit photos, darkened, as further inputs of the UNet."""
    val_backlit_path: PathText | None = None
    """Optional folder of backlit validation photos; with `val_gt_path` gives validation PSNR and SSIM."""
    val_gt_path: PathText | None = None
    """Ground truths of `val_backlit_path`, matched by file name without extension."""
    val_list: PathText | None = None
    """Optional text file with one file name, or path, a line: only these photos of `val_backlit_path` are used."""
    val_size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Side in pixels at which validation photos are squashed before measuring; null: `image_size`."""


class TrainLoop(Section):
    """Length of the run, device and what is written while it goes on."""

    num_epochs: Annotated[int, Field(ge=1)] = 100
    """Length of the guided training in passes over the backlit photos; used where `num_iters` (RAVE) or `num_rounds`
    (CLIP-LIT) is null."""
    num_iters: Annotated[int, Field(ge=1)] | None = None
    """UNet iterations of the RAVE phase (release: 4,200, for its earlier weights 2,100); null: from `num_epochs`."""
    num_rounds: Annotated[int, Field(ge=1)] | None = None
    """CLIP-LIT: rounds of UNet training and guidance refinement; null: as many as `num_epochs` passes need."""
    num_workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that load and augment photos. Results do not depend on it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: what Accelerate finds (CUDA, MPS, ...), else the CPU. `cuda`: an error where there is none."""
    process_timeout: Annotated[float, Field(gt=0, le=10080)] = 120.0
    """Minutes that several processes wait for each other, while one of them prepares photos or validates (NCCL's
    default: 10)."""
    precision: Literal["auto", "fp32", "bf16", "fastest"] = "auto"
    """Arithmetic of the forward passes; `auto`: bf16 on a GPU that has it, fp32 on the CPU; `fastest`: bf16 on
    processors that have it as well. The UNet's first and last convolution and the losses stay fp32, and so does the
    identity encoder but for `fastest`."""
    compile: bool = False
    """Compile the UNet with `torch.compile`. Needs a C++ compiler (CPU) or Triton (GPU), and minutes at the first step
    of each phase; results differ by rounding."""
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
    """Learning rate of the guided phases and of learning the first map: `constant` (release), or `cosine` down to a
    twentieth."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-3
    """Weight decay (release: 1e-3)."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of Adam's running mean of gradients (PyTorch and release: 0.9). Less of it overshoots less where results
    brighten fast."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Photos a step, over all processes together (release: 8)."""
    num_reconstruction_iters: Annotated[int, Field(ge=0)] = 1000
    """Iterations of the self-reconstruction phase (release: 1000)."""
    first_map: Literal["identity", "retinex"] = "identity"
    """What the UNet learns before it is guided: `identity`, self-reconstruction, a map of 1 (paper); `retinex`, the map
    that `models.retinex.first_illumination` computes from the photo, without any encoder, from which few guided
    iterations are enough."""
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
    settle_at: Annotated[float, Field(gt=0, lt=1)] | None = None
    """RAVE: share of the way to the set point at which results are there (running mean over 30 iterations of the
    projection). The learning rate is kept until then; `settle_iters` more, over which `lr_schedule` takes effect, end
    the training. No ground truth is looked at. `train.num_iters` is then the most. null: not used (paper)."""
    settle_iters: Annotated[int, Field(ge=1)] = 40
    """For `settle_at`: iterations from there to the end."""
    display_iter: Annotated[int, Field(ge=1)] = 20
    """Iterations between log lines and looks at the best snapshot (release: 20)."""
    grad_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm; null: no clipping (release)."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, of which snapshots and validation are then made; null:
    none (release)."""
    map_bias: float | None = None
    """Initial bias of the last convolution; null: PyTorch's default (release). 1.0 starts close to the identity map."""
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Standard deviation of the initial weights (release: 0.02)."""
    load_pretrain: bool = False
    """Start from the weights in `pretrain_dir` and skip self-reconstruction."""
    pretrain_dir: Annotated[PathText | None, none_if_empty()] = None
    """UNet weights to start from: a published `.pth` or our `.safetensors`."""


def method_of(mode: str, residual: float, pixel: float) -> str:
    """The method by `exp.mode`, `loss.residual` and `loss.pixel`: "supervised" where ground truths take the place of
    RAVE's guidance, else the mode.
    """
    return "supervised" if mode == "rave" and pixel > 0 and residual == 0 else mode


class TrainConfig(Section):
    """Training: `train_rave.py --cfg FILE` (`exp.mode: rave`), `train.py --cfg FILE` (`clip_lit`,
    `clip_lit_latent`)."""

    exp: Experiment = Experiment()
    data: TrainData
    train: TrainLoop = TrainLoop()
    unet_model: UNetModel = UNetModel()
    guidance_model: GuidanceModel = GuidanceModel()
    guidance: Guidance = Guidance()
    clip: Clip = Clip()
    loss: Loss = Loss()

    @property
    def method(self) -> str:
        """What trains: `exp.mode`, or "supervised" (`method_of`)."""
        return method_of(self.exp.mode, self.loss.residual, self.loss.pixel)

    @model_validator(mode="after")
    def _defaults_of_the_mode(self) -> "TrainConfig":
        if self.guidance_model.lr is not None or self.exp.mode not in GUIDANCE_LR:
            return self
        guidance_model = self.guidance_model.model_copy(update={"lr": GUIDANCE_LR[self.exp.mode]})
        return self.model_copy(update={"guidance_model": guidance_model})
