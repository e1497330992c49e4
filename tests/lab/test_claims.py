"""The trainings behind the claims: each is a valid config, none is done twice."""

import json

import pytest

from common.errors import UserError
from configs.load import load_config
from configs.schema import TrainConfig
from lab import claims


def test_every_cell_is_a_config_that_differs_in_its_guidance_alone():
    shipped = {name: load_config(TrainConfig, cfg, []) for name, cfg in claims.OFFLINE.items()}
    assert all(c.clip.guidance.model == "efficientnet-lite0" for c in shipped.values())
    seen = set()
    for name, (cfg, settings) in claims.cells().items():
        config = load_config(TrainConfig, cfg, settings)
        if name.startswith("offline"):
            continue
        assert config.unet_model == shipped["paired"].unet_model
        assert config.guidance.layers == name.split("/")[1]
        assert config.guidance.set_point == name.split("/")[2]
        seen.add((config.guidance.model_dump_json(), "paired" in name))
    assert len(seen) == len(claims.cells()) - len(shipped)


def test_finished_runs_are_not_done_again_and_unknown_ones_are_refused(tmp_path, monkeypatch):
    results = tmp_path / "claims.json"
    results.write_text(json.dumps({"offline/paired": {"0": {}}}))
    monkeypatch.setattr(claims, "RESULTS", results)
    trained = []
    monkeypatch.setattr(claims, "_train", lambda name, seed, *_: trained.append((name, seed)))
    folders = ["--pairs", "a", "--unpaired", "b"]
    claims.main([*folders, "--cells", "offline/paired", "relit/last/mean", "--seeds", "0", "1"])
    assert trained == [("relit/last/mean", 0), ("offline/paired", 1), ("relit/last/mean", 1)]
    with pytest.raises(UserError, match=r"--cells: expected some of offline/paired, .* found nonsense"):
        claims.main([*folders, "--cells", "nonsense"])
