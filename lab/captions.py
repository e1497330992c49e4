"""Captions of light, looks and things, for `lab.train_mini_clip`.

A concept is a meaning with the words for it: first the values of `LIGHT`, then those of `LOOKS`, then ImageNet's 1,000
classes, then `GROUPS` of classes.

Shape letters: B images, C concepts, N captions.
"""

import random
from collections.abc import Sequence

import torch
from timm.data import ImageNetInfo
from torch import Tensor

from metrics.subjects import SUBJECTS, subject_of
from models.efficientnet import class_names

TRUE = 0.6  # from which truth on, of 0 to 1, something is said

LIGHT = {  # value: the words for it
    "backlit": ("backlit", "against the light", "silhouette", "contre-jour", "backlight", "with a dark foreground"),
    "dark": ("dark", "under-exposed", "underexposed", "dim", "shadowy", "too dark"),
    "very dark": ("very dark", "black", "nearly black", "strongly under-exposed", "night"),
    "well lit": ("well-lit", "well lit", "normally exposed", "well exposed", "bright", "evenly lit", "in good light"),
    "badly exposed": ("badly exposed", "badly lit", "in bad light", "wrongly exposed"),
    "over-exposed": ("over-exposed", "overexposed", "too bright", "blown out", "white", "burnt out"),
}
LOOKS = {
    **{hue: (hue,) for hue in ("red", "orange", "yellow", "green", "blue", "purple")},
    "colourful": ("colourful", "colorful", "vivid", "saturated"),
    "greyish": ("greyish", "grey", "gray", "colourless", "pale"),
    "flattened": ("flat", "washed-out", "hazy", "faded", "unnatural"),
    "blurry": ("blurry", "blurred", "out of focus"),
    "sharp": ("sharp", "in focus"),
    "warm": ("warm", "warm-tinted"),
    "cold": ("cold", "cool", "cold-tinted"),
    "noisy": ("noisy", "grainy"),
    "clean": ("clean", "noise-free"),
}
VALUES = (*LIGHT, *LOOKS)
GROUPS = {  # numbers of their classes
    "fish": (0, 1, *range(389, 398)),
    "shark": range(2, 5),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "frog": range(30, 33),
    "turtle": range(33, 38),
    "lizard": range(38, 49),
    "snake": range(52, 69),
    "spider": range(72, 78),
    "dog": range(151, 269),
    "wolf": range(269, 273),
    "fox": range(277, 281),
    "cat": range(281, 286),
    "bear": range(294, 298),
    "beetle": range(300, 308),
    "butterfly": range(321, 327),
    "rabbit": range(330, 333),
    "antelope": range(351, 354),
    "ape": range(365, 370),
    "monkey": range(370, 383),
    "elephant": (101, 385, 386),
    "plane": (404, 895),
    "boat": (472, 484, 554, 576, 625, 628, 780, 814, 871, 914),
    "car": (407, 436, 468, 511, 609, 627, 656, 661, 717, 751, 817),
    "train": (466, 547, 705, 820),
    "guitar": (402, 546),
    "rocket": (657, 744, 812),
    "cup": (504, 967, 968),
    "fruit": range(948, 958),
    "flower": (985, 986),
    "mushroom": (947, *range(991, 998)),
    "mountain": (970, 980),
    "beach": (977, 978),
    **{
        name.removesuffix("s"): [i for i, text in enumerate(class_names()) if subject_of(i, text) == name]
        for name in SUBJECTS
    },
}
WORDS = (
    *LIGHT.values(),
    *LOOKS.values(),
    *(tuple(text.split(", ")) for text in ImageNetInfo().label_descriptions()),
    *((name,) for name in GROUPS),
)
FIRST_THING = len(VALUES)
ALONE = ("{}", "a {} photo", "a {} picture", "a {} image", "{} photo", "a photo, {}", "a photo that is {}")
OF_THING = ("a photo of {a}", "{a}", "{}", "a picture of {a}", "an image of {a}")
WITH_THING = ("a photo of {a}, {said}", "{a}, {said}", "a {said} photo of {a}", "a photo of {a}. {said}", "{said} {}")
NOTHING = ("", "photo", "a photo", "a picture", "the image")


def vocabulary() -> list[str]:
    """Words to read the space by: those of light and looks, one for each class, the groups."""
    values = [word for words in WORDS[:FIRST_THING] for word in words]
    return list(dict.fromkeys([*values, *(words[0] for words in WORDS[FIRST_THING:])]))


def all_texts() -> list[str]:
    """Texts that hold every token of any caption."""
    templates = [text.format("", a="a an", said=", and") for text in (*ALONE, *OF_THING, *WITH_THING)]
    return [*(word for words in WORDS for word in words), *templates, *NOTHING]


def compose(truth: Tensor, words: random.Random) -> tuple[str, tuple[int, ...]]:
    """A caption of true words only, and which concepts it claims; truth (C,) in [0, 1]. One in 16 claims nothing."""
    true = (truth > TRUE).nonzero()[:, 0].tolist()
    light, looks = ([i for i in true if i in kind] for kind in (range(len(LIGHT)), range(len(LIGHT), FIRST_THING)))
    things = [i for i in true if i >= FIRST_THING]
    thing = words.choice(things) if things and words.random() < 0.75 else None
    said = [words.choice(light)] if light and words.random() < 0.6 else []
    number = words.choice((0, 0, 1, 2)) if said or thing is not None else words.choice((1, 2, 3))
    said += words.sample(looks, min(number, len(looks)))
    if (not said and thing is None) or words.random() < 1 / 16:
        return words.choice(NOTHING), ()
    words.shuffle(said)
    text = words.choice((", ", " and ", " ")).join(words.choice(WORDS[i]) for i in said)
    if thing is None:
        return words.choice(ALONE).format(text), tuple(said)
    name = words.choice(WORDS[thing])
    template = words.choice(WITH_THING if said else OF_THING)
    return template.format(name, a=with_article(name), said=text), (thing, *said)


def with_article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def caption_truth(truth: Tensor, claims: Sequence[tuple[int, ...]]) -> Tensor:
    """How far caption n holds for image b, (B,N): the weakest of its claims; 0.5 for no claim. truth (B,C)."""
    return torch.stack(
        [truth[:, list(said)].amin(dim=1) if said else torch.full_like(truth[:, 0], 0.5) for said in claims], dim=1
    )
