"""Keys of an enhancement: inference.py."""

from typing import Annotated, Literal

from pydantic import Field

from configs.choices import Denoise, Highlights, MetadataMode, SameFor
from configs.schema.base import PathText, PhotoData, Section, spelt


class InferenceData(PhotoData):
    """Where photos are read and results are written."""

    input: PathText | list[PathText] | None = None
    """A folder (searched recursively), a file, or a list of these."""
    output: PathText | None = None
    """Folder of results; sub-folders are kept. null: `FOLDER_enhanced` beside the folder that is, or holds, the
    input."""


class InferenceModel(Section):
    """The enhancement network."""

    checkpoint: PathText = "pretrained_models/backlit.safetensors"
    """UNet weights: our `.safetensors` or a published `.pth`."""
    padding_mode: Literal["reflect", "zeros"] = "reflect"
    """Padding of the plain convolutions at inference (published results: reflect)."""
    strength: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = 1.0
    """0 returns the photo, 1 the full result; in between the illumination map is raised to this power. `auto`: by each
    photo's own brightness, smoothly from 1 (dark) to 0 (well lit)."""
    same_for: SameFor = "photo"
    """`folder`: the photos of a folder are one scene (a burst, a panorama, a time-lapse) and are brightened by the same
    number of stops, so that the series does not flicker; each is read twice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: what Accelerate finds (CUDA, MPS, ...), else the CPU. `cuda`: an error where there is none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the network. `auto` and `bf16`: bf16 on a GPU or processor that has it (about 50 dB PSNR of fp32),
    else fp32, which is faster there. Photos of 16 bits and very dark ones are always in fp32: bf16 is coarse there."""
    backend: Literal["auto", "torch", "torch-compile", "openvino"] = "auto"
    """What runs the network; `auto`: on a CPU OpenVINO where it is installed, else PyTorch. `torch-compile` needs a C++
    compiler."""
    map_scale: Literal[1, 2, 4] = 1
    """2 and 4 are for previews: the illumination map is computed at half or a quarter of the photo's sides and brought
    up along the photo's edges by a guided filter, many times as fast and not quite the same."""
    tile_size: Annotated[int, Field(ge=32, le=65536)] | None = None
    """Longest side in pixels of the tiles in which photos pass the network, for memory; null: 448 for photos over 0.5
    megapixels (with OpenVINO 384, over 1.5)."""


class InferenceSave(Section):
    """What is written."""

    format: Annotated[Literal["keep", "png", "jpeg", "webp", "tiff"], spelt({"jpg": "jpeg", "tif": "tiff"})] = "keep"
    """File format of results; `keep`: that of the photo where it is one of these four, else PNG. `jpg` and `tif` are
    read as `jpeg` and `tiff`."""
    quality: Annotated[int, Field(ge=1, le=100)] | Literal["keep"] = 95
    """JPEG and WebP quality; `keep`: a JPEG photo's own tables and subsampling, else 95. Lossless WebP stays so."""
    png_level: Annotated[int, Field(ge=0, le=9)] = 2
    """How long PNG's compression looks for repeats, 0 (not at all) to 9: 6 takes four times as long as 2, for files a
    twentieth smaller. Pixels are the same."""
    metadata: MetadataMode = "all"
    """`all`: what the format can hold of EXIF, XMP, IPTC, resolution, texts, the file's time; `none`: pixels alone."""
    highlights: Highlights = "clip"
    """What becomes of values above white. `clip`: each channel is cut (published results), which turns hues; `hue`: the
    three channels are scaled together; `shoulder`: compressed from 0.8 on, so that nothing more becomes white."""
    denoise: Denoise = "off"
    """`auto`: noise is removed from the shadows of 8-bit photos, as far as they are brightened; `always`: of 16-bit
    photos too."""
    dither: bool = False
    """Noise of one step of 8 bits where a photo is brightened more than 4 times, against banding."""
    side_by_side: bool = False
    """Also write photo and result as one picture, into `OUTPUT_side_by_side`."""
    illumination: bool = False
    """Also write the illumination map as a grey picture (white: 1, no change), into `OUTPUT_illumination`."""
    skip_existing: bool = False
    """Leave out photos whose result is already there, so that a stopped run goes on."""
    overwrite: bool = False
    """Replace files of the results' names also where another program wrote or changed them."""


class InferenceConfig(Section):
    """Enhancement of files or folders: `inference.py [INPUT ...] --cfg FILE`."""

    data: InferenceData = InferenceData()
    model: InferenceModel = InferenceModel()
    save: InferenceSave = InferenceSave()
