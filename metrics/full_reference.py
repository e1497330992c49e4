"""Full-reference metrics, PSNR, SSIM and LPIPS, in the two protocols of the evaluation.

`rgb`, the community's: PSNR and SSIM on RGB with an 11 x 11 Gaussian window (sigma 1.5), LPIPS at native size.
`paper`, what the RAVE release computes: PSNR and SSIM on a grey image whose red and blue weights are swapped
(its colour-order slip) with the result's own range as data range, LPIPS on ImageNet-normalised images whose
shorter side is 1024. The two differ by decibels, so every number is reported with its protocol.

Images are (H, W, 3), RGB, uint8 or float in [0, 1]. The result is measured as it is: its brightness is never
matched to the ground truth's, which would inflate PSNR by decibels.
"""

import contextlib
import io
import pickle
import socket
import warnings
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from common.errors import UserError

if TYPE_CHECKING:
    import torch

PSNR_CAP = 100.0  # dB; JSON has no infinity, and one identical image must not make the mean infinite
RGB_WINDOW, PAPER_WINDOW = 11, 7  # px, SSIM windows: Gaussian of sigma 1.5 cut at 3.5 sigma; skimage's default square
LPIPS_MIN_SIDE = 31  # px; below this AlexNet's second pooling has nothing left to pool
LPIPS_PAPER_SIDE = 1024  # px, shorter side (release)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"  # torchvision's IMAGENET1K_V1
FETCH_TIMEOUT = 10  # s without an answer


class MetricError(UserError):
    """These two images cannot be compared; the message says why."""


class TooSmallError(MetricError):
    """A metric looks at larger windows than these images have."""


def psnr_rgb(result: np.ndarray, truth: np.ndarray) -> float:
    """PSNR in dB over all pixels and channels, protocol `rgb`; at most 100 dB, the value of identical images.

    Takes two (H, W, 3) RGB images, uint8 or float in [0, 1]. Raises MetricError where their sizes differ.
    """
    return _capped_psnr(*comparable(unit_range(result), unit_range(truth)), data_range=1.0)


def ssim_rgb(result: np.ndarray, truth: np.ndarray) -> float:
    """SSIM in [-1, 1], mean over the channels, protocol `rgb` (the window and constants of Wang et al. 2004).

    Takes two (H, W, 3) RGB images, uint8 or float in [0, 1]. Raises MetricError where their sizes differ or
    a side is under 11 px.
    """
    _check(result), _check(truth)
    result, truth = comparable(result, truth, RGB_WINDOW)
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    channels = (  # one at a time: float64 copies of a large photo are what fills the memory
        structural_similarity(_to_unit(truth[..., channel]), _to_unit(result[..., channel]), **options)
        for channel in range(3)
    )
    return float(np.mean(list(channels)))


def psnr_paper(result: np.ndarray, truth: np.ndarray) -> float:
    """Grey PSNR in dB, protocol `paper`: data range is max - min of the grey result; at most 100 dB.

    Takes two (H, W, 3) RGB images, uint8 or float in [0, 1]. Raises MetricError where their sizes differ or
    the grey result is flat (a data range of 0).
    """
    result, truth = comparable(paper_grey(result), paper_grey(truth))
    return _capped_psnr(result, truth, data_range=_paper_range(result))


def ssim_paper(result: np.ndarray, truth: np.ndarray) -> float:
    """Grey SSIM in [-1, 1] with scikit-image's defaults (7 x 7 square window), protocol `paper`.

    Takes two (H, W, 3) RGB images, uint8 or float in [0, 1]. Raises MetricError where their sizes differ, a
    side is under 7 px, or the grey result is flat.
    """
    result, truth = comparable(paper_grey(result), paper_grey(truth), PAPER_WINDOW)
    return float(structural_similarity(truth, result, data_range=_paper_range(result)))


def paper_grey(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB -> (H, W) uint8 grey, `0.114 R + 0.587 G + 0.299 B` rounded half up.

    These are the ITU-R 601 weights with red and blue swapped, as in the release, which hands one colour
    order to a function that expects the other.
    """
    pixels = image if image.dtype == np.uint8 else np.rint(unit_range(image) * 255)
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return ((114 * red + 587 * green + 299 * blue + 500) // 1000).astype(np.uint8)


class Lpips:
    """LPIPS v0.1 with AlexNet (Zhang et al. 2018); lower is better, 0 for identical images.

    AlexNet's weights (233 MB) come from torch hub's cache or are downloaded into it. `mode` says what happens
    where they cannot be had: `auto` gives None for every value and a `reason`, `on` raises UserError, `off`
    never looks. The network is built at the first use, so torch is not imported before. `network` replaces
    it: a callable of two (1, 3, H, W) float32 tensors that returns a one-element tensor.
    """

    def __init__(self, mode: Literal["auto", "on", "off"] = "auto", network: "Callable | None" = None) -> None:
        self.mode = mode
        self._network = network
        self._reason = "switched off (metrics.lpips=off)" if mode == "off" else None

    @property
    def reason(self) -> str | None:
        """Why there are no values, in one line, or None where there are. Raises UserError with mode `on`."""
        if self._network is None and self._reason is None:
            try:
                self._network = load_lpips_network()
            except UserError as error:
                if self.mode == "on":
                    raise UserError(f"metrics.lpips=on: {error}, or do without: --lpips off") from error
                self._reason = f"not available: {error}"
        return self._reason

    def rgb(self, result: np.ndarray, truth: np.ndarray) -> float | None:
        """Protocol `rgb`: images in [-1, 1] at native size; None where there is a `reason`.

        Raises MetricError where the sizes differ or a side is under 31 px.
        """
        if self.reason:
            return None
        result, truth = comparable(unit_range(result), unit_range(truth), LPIPS_MIN_SIDE)
        return self._distance(*(to_tensor(image) * 2 - 1 for image in (result, truth)))

    def paper(self, result: np.ndarray, truth: np.ndarray) -> float | None:
        """Protocol `paper`: shorter side at 1024 px (bilinear), ImageNet normalisation; None where there is a `reason`.

        Raises MetricError where the sizes differ.
        """
        if self.reason:
            return None
        from torchvision.transforms.v2.functional import normalize, resize

        result, truth = comparable(unit_range(result), unit_range(truth))
        tensors = (resize(to_tensor(image), [LPIPS_PAPER_SIDE], antialias=True) for image in (result, truth))
        return self._distance(*(normalize(tensor, list(IMAGENET_MEAN), list(IMAGENET_STD)) for tensor in tensors))

    def _distance(self, result: "torch.Tensor", truth: "torch.Tensor") -> float:
        import torch

        with torch.inference_mode():
            return float(self._network(result, truth))


def measure_rgb(result: np.ndarray, truth: np.ndarray, lpips: Lpips) -> dict[str, float | None]:
    """`psnr`, `ssim` and `lpips` of protocol `rgb`; None for those that need larger images. Raises MetricError."""
    return _values(result, truth, psnr=psnr_rgb, ssim=ssim_rgb, lpips=lpips.rgb)


def measure_paper(result: np.ndarray, truth: np.ndarray, lpips: Lpips) -> dict[str, float | None]:
    """`psnr`, `ssim` and `lpips` of protocol `paper`; None for those that need larger images. Raises MetricError."""
    return _values(result, truth, psnr=psnr_paper, ssim=ssim_paper, lpips=lpips.paper)


def _values(result: np.ndarray, truth: np.ndarray, **metrics: Callable) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for name, metric in metrics.items():
        try:
            values[name] = metric(result, truth)
        except TooSmallError:
            values[name] = None
    return values


PROTOCOLS = {"rgb": measure_rgb, "paper": measure_paper}


def load_lpips_network() -> "torch.nn.Module":
    """The lpips package's AlexNet network, in eval mode, silently.

    Raises UserError where AlexNet's weights are neither in torch hub's cache nor to be downloaded, or are not
    AlexNet's. The package would unpickle the file as code; here it is read as plain tensors.
    """
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(ALEXNET_URL).name
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _socket_timeout(FETCH_TIMEOUT):
            warnings.simplefilter("ignore", UserWarning)
            state = torch.hub.load_state_dict_from_url(
                ALEXNET_URL, map_location="cpu", check_hash=True, weights_only=True
            )
        network = _build_lpips(state)
    except (
        OSError,
        HTTPException,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        cause = getattr(error, "reason", error)  # a URLError wraps the system's error
        cause = " ".join(str(getattr(cause, "strerror", None) or cause).split())[:120] or type(error).__name__
        if file.is_file():
            raise UserError(
                f"{file} does not hold AlexNet's weights ({cause}); remove it, so that it is fetched again"
            ) from error
        looked = (
            Path("~") / folder.relative_to(Path.home()) if folder.is_relative_to(Path.home()) else folder
        )  # results are published
        raise UserError(
            f"AlexNet weights could not be fetched ({cause}); download {ALEXNET_URL} on a machine with network and put "
            f"the file into {looked}"
        ) from error
    return network


def _build_lpips(alexnet_state: dict) -> "torch.nn.Module":
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision with an argument that is deprecated
        network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    # lpips cuts AlexNet's `features` into slices and keeps their numbers: slice2.3.weight is features.3.weight
    state = {key: alexnet_state[f"features.{key.partition('.')[2]}"] for key in network.net.state_dict()}
    network.net.load_state_dict(state)
    return network


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    # torch hub offers no timeout: behind a firewall that drops packets it would hang for minutes
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def unit_range(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 or float in [0, 1] -> float64 in [0, 1]. Anything else is a caller's mistake: ValueError."""
    _check(image)
    return _to_unit(image)


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an image of shape (H, W, 3), found {image.shape}")
    if image.dtype != np.uint8 and (
        not np.issubdtype(image.dtype, np.floating) or not (image.min() >= 0 and image.max() <= 1)
    ):
        raise ValueError(f"expected uint8 or floats in [0, 1], found {image.dtype} from {image.min()} to {image.max()}")


def _to_unit(values: np.ndarray) -> np.ndarray:
    return values / 255.0 if values.dtype == np.uint8 else values.astype(np.float64)


def comparable(result: np.ndarray, truth: np.ndarray, smallest: int = 1) -> tuple[np.ndarray, np.ndarray]:
    if result.shape != truth.shape:
        raise MetricError(f"expected {_size(truth)} px (H x W) as the ground truth, found {_size(result)}")
    if min(result.shape[:2]) < smallest:
        raise TooSmallError(f"expected at least {smallest} px a side, found {_size(result)} (H x W)")
    return result, truth


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def _capped_psnr(result: np.ndarray, truth: np.ndarray, data_range: float) -> float:
    if np.array_equal(result, truth):
        return PSNR_CAP
    return min(float(peak_signal_noise_ratio(truth, result, data_range=data_range)), PSNR_CAP)


def _paper_range(grey: np.ndarray) -> float:
    spread = float(grey.max()) - float(grey.min())
    if spread == 0:
        raise MetricError(
            f"protocol paper: the result is flat (grey {grey.flat[0]} everywhere), so its data range is 0"
        )
    return spread


def to_tensor(image: np.ndarray) -> "torch.Tensor":
    import torch

    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
