"""What photos show, roughly, by the nearest of ImageNet's 1,000 classes: enough to see that two folders differ in more
than light.
"""

from collections.abc import Sequence

from torch import Tensor

_BUILT = """
altar, barn, barbershop, bell cote, boathouse, bookshop, bannister, castle, church, cinema, cliff dwelling, dam, desk,
dome, four-poster, fountain, greenhouse, grocery store, home theater, library, lumbermill, megalith, mobile home,
monastery, mosque, obelisk, palace, patio, pier, planetarium, prison, restaurant, shoji, sliding door, stage,
steel arch bridge, stone wall, studio couch, stupa, suspension bridge, thatch, tile roof, triumphal arch, vault,
viaduct, wardrobe, water tower, window screen, window shade, yurt
"""
_LAND = "alp, cliff, coral reef, geyser, lakeside, promontory, sandbar, seashore, valley, volcano"
ANIMALS = range(398)  # numbers of their classes
NAMES = {
    "buildings and rooms": frozenset(_BUILT.replace("\n", " ").strip().split(", ")),
    "landscapes": frozenset(_LAND.split(", ")),
}
SUBJECTS = ("animals", *NAMES)


def subject_of(number: int, name: str) -> str | None:
    """The subject of a class, or None where it is none of `SUBJECTS`."""
    if number in ANIMALS:
        return "animals"
    return next((subject for subject, names in NAMES.items() if name in names), None)


def subjects(embeddings: Tensor, names: Sequence[str], classes: Tensor) -> list[str | None]:
    """Of photos, by their nearest class.

    embeddings (N,D) of a space that ends with that of the classes; names and directions (1000,D') of the classes.
    """
    nearest = (embeddings[:, -classes.shape[1] :] @ classes.to(embeddings).T).argmax(dim=1).tolist()
    return [subject_of(number, names[number]) for number in nearest]


def shares(found: Sequence[str | None]) -> dict[str, float]:
    """Of each subject: the share of photos that show it, 0 to 1."""
    return {subject: found.count(subject) / max(len(found), 1) for subject in SUBJECTS}


def apart(one: dict[str, float], other: dict[str, float], least: float = 0.1) -> list[str]:
    """Subjects whose share in `one` is higher than in `other` by `least` or more, the most first."""
    ahead = {subject: one[subject] - other[subject] for subject in SUBJECTS}
    return sorted((s for s in SUBJECTS if ahead[s] >= least), key=lambda s: -ahead[s])
