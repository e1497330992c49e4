"""What a GPU would be given, on fake CUDA tensors:
shapes, devices and layouts of one step of each task, and of one tile.

Fake tensors hold no values, but refuse to be mixed with those of another device, as real ones do. The backward pass is
left out: PyTorch asks the driver for its streams. It is run on the CPU by every other test.
"""

from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import UserError
from losses.residual import ResidualGuidance
from models.convolution import Conv3x3
from models.unet import IlluminationUNet
from serving.enhancer import Enhancer
from serving.tiles import illumination_tiles
from serving.torch_network import TorchNetwork
from tests.helpers import config
from training.build import Plan, build
from training.loop import train
from training.phases import schedule
from training.photos import training_photos
from training.runtime import adam, make_accelerator
from training.tracking import RunFolder
from training.unet_task import Batch

CUDA = torch.device("cuda", 0)
PRECISIONS = ("fp32", "bf16")


@contextmanager
def autocast(precision: str):
    """As `torch.autocast("cuda")`, which does nothing where there is no GPU."""
    before = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", precision == "bf16")
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before)


def move(*modules: nn.Module) -> None:
    """Weights and buffers become fake CUDA tensors of the same shapes and layouts."""
    for module in (part for whole in modules for part in whole.modules()):
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)
                    wanted = isinstance(tensor, nn.Parameter) and tensor.requires_grad
                    tensors[name] = nn.Parameter(fake, wanted) if isinstance(tensor, nn.Parameter) else fake


def parts(overrides: list[str], cfg: str, *more: str):
    wanted = config(
        [o for o in overrides if "train.num_iters" not in o],
        "train.num_rounds=1",
        "guidance_model.image_size=16",
        "guidance_model.batch_size=4",
        *more,
        cfg=cfg,
    )
    photos = training_photos(wanted.data)
    accelerator = make_accelerator("cpu", "fp32")
    return build(wanted, accelerator, Plan(schedule(wanted, 6), *photos, [], []), RunFolder(wanted))


def on_gpu(task, precision: str):
    """The task as it would be on a GPU: weights moved, fused Adam, autocast."""
    encoders = [
        getattr(task, name) for name in ("guidance_encoder", "identity_encoder", "encoder") if hasattr(task, name)
    ]
    move(task.module, *encoders)
    task.accelerator = SimpleNamespace(device=CUDA, num_processes=1, autocast=partial(autocast, precision))
    task.optimizer = adam(task.module.parameters(), CUDA, lr=1e-4, weight_decay=1e-3)
    return task


def step(task, phase, batch) -> dict:
    terms, measures = task.losses(phase, batch)
    loss = sum(terms.values())
    assert loss.shape == () and loss.dtype == torch.float32
    assert {value.device for value in (loss, *terms.values(), *measures.values())} == {CUDA}
    assert loss.requires_grad
    for parameter in task.module.parameters():
        parameter.grad = torch.empty_like(parameter)
    torch.nn.utils.clip_grad_norm_(task.module.parameters(), 1.0)
    task.optimizer.step()
    return terms


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_rave_step(overrides, precision):
    whole = parts(overrides, "rave_quickstart.yaml")
    with FakeTensorMode():
        task = on_gpu(whole.unet, precision)
        vectors = [torch.rand(task.guidance_encoder.embed_dim, device=CUDA) for _ in range(4)]
        task.residual = ResidualGuidance(vectors[0], 0.5, *vectors[1:])
        photos = torch.rand(2, 3, 16, 16, device=CUDA).to(memory_format=torch.channels_last)
        assert list(step(task, whole.phases[0], Batch(photos))) == ["identity"]
        assert list(step(task, whole.phases[1], Batch(photos))) == ["identity", "residual"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["clip_lit", "clip_lit_latent"])
def test_clip_lit_steps(overrides, mode, precision):
    whole = parts(overrides, f"{mode}_quickstart.yaml")
    initialisation, _, enhancement, refinement = whole.phases
    with FakeTensorMode():
        guidance, unet = on_gpu(whole.guidance, precision), on_gpu(whole.unet, precision)
        photos = torch.rand(4, 3, 16, 16)
        embeddings = guidance._embed(photos)
        assert embeddings.device == CUDA
        labels = torch.zeros(4, dtype=torch.int64, device=CUDA)
        assert list(step(guidance, initialisation, ([embeddings], labels))) == ["cross_entropy"]
        assert list(step(guidance, refinement, ([embeddings] * 4, None))) == ["ranking"]
        unet.guidance_vectors = guidance.vectors()
        photos = photos.to(CUDA, memory_format=torch.channels_last)
        assert list(step(unet, enhancement, Batch(photos))) == ["identity", "clip"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_tile(precision):
    network = TorchNetwork(IlluminationUNet("reflect").eval(), precision, torch.device("cpu"))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        move(*(part for both in network._parts.values() for part in both))
        network.device = CUDA
        read = lambda rows, columns: torch.rand(1, 3, rows.stop - rows.start, columns.stop - columns.start)  # noqa: E731
        for rows, columns, photo, illumination in illumination_tiles(network, read, 90, 70, 40):
            shape = (1, 1, rows.stop - rows.start, columns.stop - columns.start)
            assert (illumination.shape, illumination.device, illumination.dtype) == (shape, CUDA, torch.float32)
            assert photo.shape[2:] == shape[2:]


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_convolutions_keep_the_layout(padding_mode):
    """Channels last in, channels last to the convolution: on a GPU, `pad` alone gives the other layout back."""
    convolution = Conv3x3(8, 8, bias=True, padding_mode=padding_mode).to(memory_format=torch.channels_last)
    given = []
    with FakeTensorMode():
        move(convolution)
        x = torch.rand(2, 8, 16, 16, device=CUDA).to(memory_format=torch.channels_last)
        with Recording(given):
            convolution(x)
    assert given and all(x.is_contiguous(memory_format=torch.channels_last) for x in given)


class Recording(TorchDispatchMode):
    """Keeps the inputs of convolutions."""

    def __init__(self, inputs: list) -> None:
        super().__init__()
        self.inputs = inputs

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default:
            self.inputs.append(args[0])
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_was_asked_for_and_is_not_there_is_told(overrides, tmp_path):
    expected = "expected an NVIDIA GPU, found none that can be used"
    with pytest.raises(UserError, match=rf"train\.device: {expected}"):
        train(config(overrides, "train.device=cuda"))
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match=rf"model\.device: {expected}"):
        Enhancer("pretrained_models/rave.safetensors", device="cuda")


def test_processes_wait_for_each_other_as_long_as_the_config_says():
    AcceleratorState._reset_state(reset_partial_state=True)  # one for the whole process
    assert make_accelerator("cpu", "fp32", timeout=90).init_handler.timeout == timedelta(minutes=90)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("shape", [(90, 70), (60, 61)])
def test_a_real_gpu_gives_the_results_of_the_processor(shape):
    rgb = np.random.default_rng(0).integers(40, 200, (*shape, 3), np.uint8)
    weights = "pretrained_models/backlit.safetensors"
    expected = Enhancer(weights, device="cpu", precision="fp32").enhance(rgb)
    for precision, near in (("fp32", 1), ("bf16", 4)):
        for tile_size in (None, 40):
            found = Enhancer(weights, device="cuda", precision=precision, tile_size=tile_size).enhance(rgb)
            assert np.abs(found[0].astype(int) - expected[0]).max() <= near
            assert np.abs(found[1] - expected[1]).max() <= 0.002 * near
