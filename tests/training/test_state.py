"""The state on disk: what damage, a stop or a full disk does to it."""

import random

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.files import DiskFull
from tests.faults import room_for
from training.checksum import checksum
from training.state import TrainState, previous_state


def state(steps: int = 1, seed: int = 0) -> TrainState:
    """A small state after some steps of Adam."""
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters())
    made = TrainState({"unet": module}, {"unet": optimizer})
    made.start_phase(0, "unet", 10)
    for _ in range(steps):
        module(torch.ones(3)).sum().backward()
        optimizer.step()
        made.total += 1
        made.record(float(made.total), 0.5)
    return made


def test_a_state_comes_back_as_it_was(tmp_path):
    state(5).save(tmp_path / "last.pt")
    other = state(0, seed=1)
    assert other.load(tmp_path / "last.pt") is None
    assert checksum(other.state_dict()) == checksum(state(5).state_dict())


def test_no_damage_of_one_bit_or_one_page_goes_unnoticed(tmp_path):
    file = tmp_path / "last.pt"
    state(5).save(file)
    good, right = file.read_bytes(), checksum(state(5).state_dict())
    chance, refused = random.Random(0), 0
    for number in range(60):
        damaged, at = bytearray(good), chance.randrange(len(good))
        if number % 2:
            damaged[at] ^= 1 << chance.randrange(8)
        else:
            damaged[at : at + 64] = bytes(len(damaged[at : at + 64]))
        file.write_bytes(damaged)
        found = state(0, seed=1)
        try:
            found.load(file)
        except UserError as error:
            assert str(file) in str(error)
            refused += 1
        else:  # the damage is between the values
            assert checksum(found.state_dict()) == right
    assert refused > 20


def test_a_damaged_state_falls_back_to_the_one_before_it_which_stays_until_a_new_one_is_written(tmp_path):
    file = tmp_path / "last.pt"
    for steps in (3, 4):
        state(steps).save(file)
    file.write_bytes(file.read_bytes()[:-100])
    found = state(0)
    note = found.load(file)
    assert found.total == 3
    assert note.startswith(f"{file}: ") and note.endswith(f"going on from the state before it, {previous_state(file)}")
    before = previous_state(file).read_bytes()
    found.total = 5
    found.save(file)
    assert previous_state(file).read_bytes() == before  # not the damaged one
    again = state(0)
    assert again.load(file) is None and again.total == 5
    again.save(file)
    assert state(0).load(previous_state(file)) is None


def test_a_missing_last_state_falls_back_too_and_none_at_all_is_told(tmp_path):
    file = tmp_path / "last.pt"
    state(3).save(file)
    file.rename(previous_state(file))
    found = state(0)
    assert "No such file" in found.load(file) and found.total == 3
    previous_state(file).unlink()
    with pytest.raises(UserError, match=rf"^--resume: {file}: not a state of this kind of run \(No such file"):
        state(0).load(file)


def test_a_full_disk_keeps_both_states(tmp_path):
    file = tmp_path / "last.pt"
    for steps in (3, 4):
        state(steps).save(file)
    before = file.read_bytes(), previous_state(file).read_bytes()
    with room_for(1000), pytest.raises(DiskFull):
        state(5).save(file)
    assert (file.read_bytes(), previous_state(file).read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.previous.pt", "last.pt"]


def test_a_state_without_checksum_is_one_of_an_earlier_version(tmp_path):
    torch.save(state(2).state_dict(), tmp_path / "last.pt")
    found = state(0)
    assert found.load(tmp_path / "last.pt") is None and found.total == 2


def test_a_checksum_tells_values_types_shapes_and_names_apart():
    made = [
        {"a": torch.zeros(2)},
        {"a": torch.zeros(2, dtype=torch.float64)},
        {"a": torch.zeros(1, 2)},
        {"b": torch.zeros(2)},
        {"a": [0.0, 0.0]},
        {"a": 1},
        {"a": True},
        {"a": None},
        {"a": "1"},
        {"a": [[0.0], 0.0]},
    ]
    assert len({checksum(content) for content in made}) == len(made)
    assert checksum({"a": torch.ones(2, 3).T}) == checksum({"a": torch.ones(3, 2)})
    assert checksum(torch.tensor(1.0, dtype=torch.bfloat16)) != checksum(torch.tensor(1.0, dtype=torch.float16))
