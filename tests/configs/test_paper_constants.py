"""The configs of the papers hold the releases' numbers, and train that many iterations."""

import pytest

from configs.load import load_config
from configs.schema import TrainConfig
from training.phases import schedule

SHIPPED = ("rave.yaml", "rave_shifted.yaml", "clip_lit.yaml", "clip_lit_latent.yaml")


@pytest.mark.parametrize("name", SHIPPED)
def test_constants(name, capsys):
    config = load_config(TrainConfig, name)
    assert capsys.readouterr().err == ""  # nothing in it is without effect
    unet, learned = config.unet_model, config.guidance_model
    assert (unet.lr, unet.weight_decay, unet.batch_size, unet.thr_loss) == (2e-5, 1e-3, 8, 90)
    assert (unet.num_reconstruction_iters, unet.num_round_iters, unet.extension_iters) == (1000, 2100, 60)
    assert unet.display_iter == learned.display_iter == 20
    assert config.data.image_size == 512 and config.train.precision == "fp32"
    assert (config.clip.guidance.model, config.clip.identity.model) == ("ViT-B-32", "RN101")
    assert {config.clip.guidance.pretrained, config.clip.identity.pretrained} == {"openai"}
    assert (config.loss.identity, config.loss.identity_guided, config.loss.identity_reduction) == (25, 22.5, "sum")
    assert (config.loss.residual, config.loss.clip, config.loss.refinement) == (6 * 320, 320, 200)
    assert (config.loss.identity_layers, config.loss.identity_layers_guided) == ([1] * 5, [1, 1, 1, 1, 0.5])
    assert (unet.init_std, unet.map_bias, unet.adam_beta1, unet.lr_schedule) == (0.02, None, 0.9, "constant")
    assert config.loss.margins.model_dump() == {"m0": 0.9, "m1": 0.1, "m2": 0.1}
    if config.exp.mode == "rave":
        assert config.guidance.remove_first_n_tokens == (15 if name == "rave_shifted.yaml" else 0)
        return
    assert (learned.num_pretrain_iters, learned.num_refine_iters, learned.extension_iters) == (8000, 1000, 100)
    assert (learned.batch_size, learned.image_size, learned.thr_loss, learned.weight_decay) == (16, 256, 60, 1e-3)
    assert (learned.held_back, learned.cached_augmentations, learned.logit_scale) == (0, 0, 100)
    assert learned.lr == (5e-4 if config.exp.mode == "clip_lit_latent" else 5e-6)


@pytest.mark.parametrize("name", SHIPPED)
def test_iterations_are_those_at_which_the_releases_best_weights_lie(name):
    phases = schedule(load_config(TrainConfig, name), photos=380)
    total = sum(phase.iterations for phase in phases)
    assert total == (1000 + 2 * 2100 if "rave" in name else 8000 + 1000 + 12 * 3100)
