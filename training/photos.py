"""Which photos of the two folders are trained on, and which lists keep some of them back."""

from collections.abc import Iterator
from pathlib import Path

from common.errors import UserError
from common.files import real_path
from common.paths import find_file
from configs.schema import TrainData
from data.listing import list_images, named, unknown_names
from metrics.pairing import read_names


def training_photos(data: TrainData) -> tuple[list[Path], list[Path]]:
    """Backlit and well-lit photos of a config, without those that `leave_out` names.

    Raises UserError for folders and lists that cannot be used;
    also for a list that names no photo at all: it was meant to.
    """
    folders, photos = _folders(data)
    held_back: set[str] = set()
    for file, names in _left_out(data):
        if not any(named(photo, names) for photo in photos):
            raise UserError(
                f"data.leave_out: expected names of photos in the two folders, found none of the {len(names)} names "
                f"in {file} there"
            )
        held_back |= names
    backlit, well_lit = (list_images(folder, key, held_back) for key, folder in folders.items())
    places = {real_path(path) for path in backlit}
    if both := [path for path in well_lit if real_path(path) in places]:
        raise UserError(
            f"{', '.join(folders)}: expected backlit photos in one and well-lit ones in the other, "
            f"found {len(both)} in both, such as {both[0]}"
        )
    return backlit, well_lit


def leave_out_notes(data: TrainData) -> list[str]:
    """What is amiss with the lists in `leave_out`: each name that no photo has."""
    _, photos = _folders(data)
    return [
        note
        for file, names in _left_out(data)
        for note in unknown_names(names, photos, f"data.leave_out: {file}: expected names of photos in the two folders")
    ]


def _folders(data: TrainData) -> tuple[dict[str, str], list[Path]]:
    """Key -> folder of the two, and the photos of both by their paths in them."""
    folders = {f"data.{key}": getattr(data, key) for key in ("backlit_images_path", "welllit_images_path")}
    return folders, [path.relative_to(folder) for key, folder in folders.items() for path in list_images(folder, key)]


def _left_out(data: TrainData) -> Iterator[tuple[str, set[str]]]:
    for file in data.leave_out:
        yield file, read_names(find_file(file, "data.leave_out"), "data.leave_out")
