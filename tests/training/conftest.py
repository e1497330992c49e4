"""The quick-start config made tiny: seconds a run, with a small encoder of random weights."""

import pytest

SMALL_ENCODER = (
    "clip.guidance.model=mini-rn",
    "clip.guidance.pretrained=null",
    "clip.identity.model=mini-rn",
    "clip.identity.pretrained=null",
    "clip.seed=3",
    "clip.image_size=null",
)
# what suits that encoder
PLAIN_GUIDANCE = (
    "guidance.layers=last",
    "guidance.set_point=mean",
    "loss.identity_guided=0.3",
    "loss.residual=10",
    "train.precision=auto",
    "unet_model.adam_beta1=0.9",
    "unet_model.ema=null",
    "unet_model.grad_clip=1.0",
    "unet_model.lr=1e-4",
)


@pytest.fixture
def overrides(photo_folders, tmp_path) -> list[str]:
    """The quick-start config, made tiny."""
    backlit, welllit = photo_folders
    return [
        f"data.backlit_images_path={backlit}",
        f"data.welllit_images_path={welllit}",
        f"data.val_backlit_path={backlit}",
        f"data.val_gt_path={backlit}",
        "data.image_size=16",
        f"exp.save_dir={tmp_path / 'runs'}",
        f"exp.cache_dir={tmp_path / 'cache'}",
        "exp.exp_name=tiny",
        "exp.overwrite=false",
        "train.num_iters=6",
        "train.val_iter=4",
        "train.save_iter=3",
        "train.device=cpu",
        "unet_model.batch_size=2",
        "unet_model.lr_schedule=constant",
        "unet_model.num_reconstruction_iters=4",
        "unet_model.display_iter=2",
        "unet_model.extension_iters=2",
        "unet_model.max_extensions=1",
        *SMALL_ENCODER,
        *PLAIN_GUIDANCE,
    ]
