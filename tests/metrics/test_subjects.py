"""What photos show, by classes."""

import torch

from metrics.subjects import NAMES, SUBJECTS, apart, shares, subject_of, subjects
from models.efficientnet import class_names


def test_subjects_are_made_of_classes_that_exist():
    names = class_names()
    assert all(listed <= set(names) for listed in NAMES.values())
    found = {name: subject_of(names.index(name), name) for name in ("Egyptian cat", "castle", "alp", "espresso")}
    assert found == {"Egyptian cat": "animals", "castle": "buildings and rooms", "alp": "landscapes", "espresso": None}


def test_photos_are_what_their_nearest_class_is():
    names = class_names()
    classes = torch.nn.functional.normalize(torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    rows = [names.index(name) for name in ("tiger", "palace", "valley", "espresso", "lynx")]
    photos = torch.cat([torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), classes[rows]], dim=1)
    found = subjects(photos, names, classes)
    assert found == ["animals", "buildings and rooms", "landscapes", None, "animals"]
    assert shares(found) == dict(zip(SUBJECTS, (0.4, 0.2, 0.2), strict=True))


def test_a_subject_is_told_where_one_folder_shows_it_much_more_often():
    one, other = (dict(zip(SUBJECTS, values, strict=True)) for values in ((0.4, 0.1, 0.15), (0.01, 0.35, 0.1)))
    assert apart(one, other) == ["animals"]
    assert apart(other, one) == ["buildings and rooms"]
