"""CLIP-LIT and CLIP-LIT-Latent end to end with a tiny encoder:
schedule, labels, ranking stages, cache, resume, command line.
"""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import train as train_script
from common.errors import UserError
from losses.guidance import negative_similarity
from losses.ranking import refinement_loss
from models.clip_encoder import load_clip
from models.guidance import load_guidance
from models.unet import IlluminationUNet
from tests.helpers import arguments, assert_same_run, config, metrics
from training.build import load_encoders
from training.guidance_task import GuidanceTask, hold_back
from training.loop import train
from training.phases import Phase, clip_lit_schedule, describe_schedule
from training.recorder import Recorder
from training.runtime import make_accelerator
from training.validation import enhance_photos, to_uint8

MODES = ("clip_lit", "clip_lit_latent")


@pytest.fixture
def tiny(overrides) -> list[str]:
    return [
        *(o for o in overrides if "train.num_iters" not in o),
        "train.num_rounds=2",
        "unet_model.num_reconstruction_iters=2",
        "unet_model.num_round_iters=3",
        "unet_model.max_extensions=0",
        "guidance_model.num_pretrain_iters=4",
        "guidance_model.num_refine_iters=3",
        "guidance_model.max_extensions=0",
        "guidance_model.batch_size=4",
        "guidance_model.image_size=16",
        "guidance_model.held_back=0.3",
        "guidance_model.nearest_tokens=0",
        "guidance_model.display_iter=2",
    ]


def configured(tiny: list[str], mode: str, *more: str):
    return config(tiny, *more, cfg=f"{mode}_quickstart.yaml")


PHASES = ["initialisation", "reconstruction", "enhancement 1", "refinement 1", "enhancement 2", "refinement 2"]


@pytest.mark.parametrize("mode", MODES)
def test_run_walks_through_the_schedule(mode, tiny):
    run = train(configured(tiny, mode))
    lines = metrics(run)
    steps = [m for m in lines if "loss" in m]
    assert list(dict.fromkeys(m["phase"] for m in steps)) == PHASES
    for m in steps:  # the named terms add up to the loss
        total = sum(m.get(name, 0) for name in ("cross_entropy", "identity", "clip", "ranking"))
        assert total == pytest.approx(m["loss"], rel=1e-5)
    reports = [m for m in lines if "guidance_accuracy" in m]
    assert [m["phase"] for m in reports] == ["initialisation", "refinement 1", "refinement 2"]
    assert ["s_enhanced" in m for m in reports] == [False, True, True]
    ranked = [{k for k in m if k.startswith("s_")} for m in steps if "ranking" in m]
    assert ranked[0] == {"s_backlit", "s_enhanced", "s_welllit"}  # I_t alone
    assert ranked[-1] == {"s_backlit", "s_previous", "s_enhanced", "s_welllit"}  # I_{t−1} and I_t
    summary = json.loads((run / "summary.json").read_text())
    assert summary["iterations"] == 4 + 2 + 2 * (3 + 3)
    assert not (run / "enhanced_sets").exists()
    assert Image.open(run / "curves.png").size > (100, 100)

    encoder = load_clip("mini-rn", None, seed=3)
    kind = {"clip_lit": "prompts", "clip_lit_latent": "latents"}[mode]
    guidance = run / "checkpoints/guidance.safetensors"
    assert torch.isfinite(load_guidance(guidance, kind, encoder)(encoder)).all()
    again = ("exp.exp_name=again", "guidance_model.load_pretrain=true", f"guidance_model.pretrain_dir={guidance}")
    second = train(configured(tiny, mode, *again))
    assert metrics(second)[1]["phase"] == "reconstruction"  # no initialisation


@pytest.mark.parametrize(
    ("mode", "cached", "stops"), [("clip_lit", 0, (2, 5, 11)), ("clip_lit_latent", 2, (4, 8, 9, 15))]
)
def test_resume_in_any_phase_is_bit_for_bit(tiny, mode, cached, stops):
    """Killed over and over, at an iteration of each phase, with a state that is saved every second iteration."""
    more = (f"guidance_model.cached_augmentations={cached}", "train.save_iter=2")
    whole = train(configured(tiny, mode, *more))
    remaining = list(stops)

    def kill(trainer):  # as by SIGKILL: what was saved last is all there is
        if trainer.state.total == remaining[0]:
            raise RuntimeError

    while remaining:
        with pytest.raises(RuntimeError):
            stopped = configured(tiny, mode, *more, "exp.exp_name=stopped")
            train(stopped, resume=len(remaining) < len(stops), on_iteration=kill)
        del remaining[0]
    assert_same_run(whole, train(configured(tiny, mode, *more, "exp.exp_name=stopped"), resume=True))


def test_ctrl_c_in_guidance_training(tiny):
    def interrupt(trainer):
        if trainer.state.total == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(configured(tiny, "clip_lit_latent"), on_iteration=interrupt)
    run = Path(configured(tiny, "clip_lit_latent").exp.save_dir) / "tiny"
    assert torch.load(run / "checkpoints/last.pt", weights_only=True)["total"] == 3
    whole = train(configured(tiny, "clip_lit_latent", "exp.exp_name=whole"))
    assert_same_run(whole, train(configured(tiny, "clip_lit_latent"), resume=True))


def test_extensions_of_guidance_phases(tiny):
    more = ("guidance_model.thr_loss=1e-9", "guidance_model.max_extensions=2", "guidance_model.extension_iters=2")
    run = train(configured(tiny, "clip_lit_latent", *more))
    assert json.loads((run / "summary.json").read_text())["iterations"] == 4 + 2 + 2 * (3 + 3) + 3 * 2 * 2


def test_published_keys_give_the_published_schedule(tiny):
    full = config([f"data.{k}_images_path=x" for k in ("backlit", "welllit")], cfg="clip_lit.yaml")
    phases = clip_lit_schedule(full, photos=380)
    assert [(p.name, p.trains, p.iterations) for p in phases[:4]] == [
        ("initialisation", "guidance", 8000),
        ("reconstruction", "unet", 1000),
        ("enhancement 1", "unet", 2100),
        ("refinement 1", "guidance", 1000),
    ]
    assert len(phases) == 2 + 2 * 12
    assert phases[2].terms == {"identity": 22.5, "clip": 320}
    assert (phases[2].extend_while_loss_above, phases[2].extension_iterations) == (90, 60)
    assert (phases[3].extend_while_loss_above, phases[3].extension_iterations) == (60, 100)
    text = describe_schedule(phases)
    assert "1. initialisation: 8000 iterations of the guidance, loss = 1·cross_entropy" in text
    assert "to enhancement 12 and refinement 12" in text
    by_epochs = full.model_copy(update={"train": full.train.model_copy(update={"num_rounds": None, "num_epochs": 100})})
    assert max(p.round for p in clip_lit_schedule(by_epochs, photos=380)) == 3  # 100 passes of 48 steps, 2100 a round


@pytest.fixture
def task(tiny, tmp_path) -> GuidanceTask:
    wanted = configured(tiny, "clip_lit_latent", "guidance_model.batch_size=8")
    return GuidanceTask(wanted, make_accelerator("cpu", "fp32"), load_clip("mini-rn", None, seed=3), tmp_path / "sets")


def test_prompts_start_from_the_texts_of_the_config(tiny, tmp_path):
    texts = ["a dark photo", "a photo in bright light"]
    wanted = configured(tiny, "clip_lit", f"guidance_model.init_texts=[{', '.join(texts)}]")
    encoder = load_clip("mini-rn", None, seed=3)
    task = GuidanceTask(wanted, make_accelerator("cpu", "fp32"), encoder, tmp_path / "sets")
    assert torch.allclose(task.vectors(), encoder.embed_texts(texts), atol=1e-5)


def test_latent_vectors_live_in_the_layers_of_the_config(tiny, tmp_path):
    """In the stages as RAVE's direction does; a prompt is a text, and has its place in the last layer alone."""
    accelerator, stages = make_accelerator("cpu", "fp32"), ("guidance.layers=stages", "guidance_model.nearest_tokens=1")
    prompts, _ = load_encoders(configured(tiny, "clip_lit", *stages), accelerator)
    assert prompts.layers == "last"
    lite0 = "clip.guidance={model: efficientnet-lite0, pretrained: imagenet}"
    wanted = configured(tiny, "clip_lit_latent", *stages, lite0)
    encoder, _ = load_encoders(wanted, accelerator)
    task = GuidanceTask(wanted, accelerator, encoder, tmp_path / "sets")
    assert task.vectors().shape == (2, encoder.embed_dim)
    words, rows = encoder.vocabulary()
    assert encoder.embed_dim > rows.shape[1]
    nearest = (rows @ task.vectors()[1, -rows.shape[1] :]).argmax()
    assert task.report()["tokens_welllit"] == words[nearest]


def test_labels_come_from_the_folders(task):
    """Whatever the files are called: embeddings of label 0 are those of photos of the backlit folder."""
    (initialisation,) = clip_lit_schedule(task.config, 6)[:1]
    task.augmentation = task.backlit.augmentation = task.well_lit.augmentation = None
    embeddings, labels = next(task.batches(initialisation, 0))
    folders = [task._embed_set(photos, range(len(photos))) for photos in (task.backlit, task.well_lit)]
    for embedding, label in zip(embeddings[0], labels.tolist(), strict=True):
        distances = [(folder - embedding).norm(dim=1).min() for folder in folders]
        assert distances[label] < 1e-5
        assert distances[1 - label] > 1e-3


def test_cached_batches_equal_encoding_each_time_where_nothing_is_augmented(task, tiny, tmp_path):
    plain = configured(tiny, "clip_lit_latent", "data.augment=false", "guidance_model.cached_augmentations=0")
    cached = configured(tiny, "clip_lit_latent", "data.augment=false", "guidance_model.cached_augmentations=4")
    weights = _unet_weights(0)
    phases = clip_lit_schedule(plain, 6)
    for phase in (phases[0], phases[3]):
        batches = []
        for wanted in (plain, cached):
            one = GuidanceTask(wanted, make_accelerator("cpu", "fp32"), task.encoder, tmp_path / "sets")
            one.set_enhancers([weights])
            batches.append(next(one.batches(phase, 3)))
        (a, labels_a), (b, labels_b) = batches
        assert len(a) == len(b) == (3 if "ranking" in phase.terms else 1)
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
        assert labels_a is labels_b is None or torch.equal(labels_a, labels_b)


def test_ranking_batch_holds_one_photo_s_stages(task):
    """Stages of one sample share photo and augmentation; the well-lit photo is another one."""
    weights = [_unet_weights(seed) for seed in (0, 1)]
    task.set_enhancers(weights)
    enhanced = task.stages[1]
    photos = [task.backlit[i] for i in range(len(task.backlit))]
    expected = to_uint8(torch.cat(list(enhance_photos(weights[1], photos, torch.device("cpu")))))
    assert np.array_equal(enhanced.pixels, expected)
    refinement = clip_lit_schedule(task.config, 6)[-1]
    stages, labels = next(task.batches(refinement, 0))
    assert labels is None
    assert [tuple(s.shape) for s in stages] == [(8, task.encoder.embed_dim)] * 4

    terms, measures = task.losses(refinement, (stages, None))
    pair = task.pair(task.encoder)
    scores = [negative_similarity(s, pair, task.scale) for s in stages]
    margins = {"m0": 0.9, "m1": 0.1, "m2": 0.1}
    assert torch.allclose(terms["ranking"], 200 * refinement_loss(scores, margins))
    assert list(measures) == ["s_backlit", "s_previous", "s_enhanced", "s_welllit"]


def test_enhanced_sets_of_earlier_rounds_are_deleted(task):
    weights = [_unet_weights(seed) for seed in range(3)]
    for last in (1, 2, 3):
        task.set_enhancers(weights[:last][-2:])
    assert len(list(task.folder.glob("*.npy"))) == 2


def test_a_damaged_enhanced_set_is_made_anew(task):
    weights = [_unet_weights(0)]
    task.set_enhancers(weights)
    (file,) = task.folder.glob("*.npy")
    whole = file.read_bytes()
    for damaged in (whole[:-40], b"", whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], b"x" + whole[1:]):
        file.write_bytes(damaged)
        task.set_enhancers(weights)
        assert file.read_bytes() == whole


def test_hold_back():
    train_indices, held = hold_back(40, 0.1, seed=1)
    assert len(held) == 4
    assert sorted(train_indices + held) == list(range(40))
    assert hold_back(40, 0.1, seed=1) == (train_indices, held)
    assert hold_back(5, 0.0, seed=1) == (list(range(5)), list(range(5)))
    assert [len(part) for part in hold_back(3, 0.01, seed=1)] == [2, 1]


def _unet_weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return IlluminationUNet(map_bias=1.0).state_dict()


# --- command line -------------------------------------------------------------------------------


def test_dry_run_of_the_script(tiny, tmp_path, capsys):
    assert train_script.main([*arguments(tiny, "clip_lit_quickstart.yaml"), "--dry-run"]) == 0
    assert "3. enhancement 1: 3 iterations of the UNet" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["exp.mode=rave"],
            "train.py trains 'clip_lit' or 'clip_lit_latent', found 'rave', which train_rave.py trains",
        ),
        (["guidance_model.load_pretrain=true"], "guidance_model.pretrain_dir: expected a weight file"),
        (
            ["clip.guidance.model=timm/resnet18", "clip.guidance.pretrained=null"],
            "expected an encoder with a text tower",
        ),
        (["guidance_model.batch_sise=4"], "did you mean 'guidance_model.batch_size'?"),
    ],
)
def test_mistakes_raise_user_errors_that_name_the_key(tiny, more, message):
    with pytest.raises(UserError) as caught:
        train_script.main(arguments([*tiny, *more], "clip_lit_quickstart.yaml"))
    assert message in str(caught.value)


def test_the_console_says_well_lit_as_the_report_does(capsys):
    found = {
        "guidance_accuracy": 1.0,
        "s_backlit": 0.9,
        "s_welllit": 0.1,
        "tokens_backlit": "dim",
        "tokens_welllit": "sun",
    }
    phase = Phase(name="guidance", trains="guidance", iterations=1, terms={})
    parts = SimpleNamespace(
        accelerator=SimpleNamespace(is_main_process=True),
        config=SimpleNamespace(train=SimpleNamespace(preview_photos=0)),
        guidance=SimpleNamespace(report=lambda: found),
        folder=SimpleNamespace(log=lambda *_, **__: None),
        phases=[phase],
    )
    Recorder(parts, SimpleNamespace(total=0, phase=0)).report(phase)
    told = capsys.readouterr().out
    assert "mean S: backlit 0.900, well-lit 0.100" in told and "nearest to well-lit: sun" in told
