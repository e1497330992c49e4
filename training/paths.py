"""The folders and files that a training config names, checked before anything heavy is imported."""

from common.errors import UserError
from common.files import check_folder
from common.paths import find_file, find_folders
from configs.schema import TrainConfig
from models.shipped import find_weights

FOLDERS = ("backlit_images_path", "welllit_images_path", "pairs", "val_backlit_path", "val_gt_path")


def check_paths(config: TrainConfig) -> None:
    """Raises UserError for what is not there: it names the key, and what to set, of all folders at once.

    Likewise where the run cannot be written.
    """
    data, exp = config.data, config.exp
    find_folders({f"data.{key}": folder for key in FOLDERS if (folder := getattr(data, key)) is not None})
    for key, files in (("leave_out", data.leave_out), ("val_list", [data.val_list])):
        for file in files:
            if file is not None:
                find_file(file, f"data.{key}")
    check_folder(exp.save_dir, "exp.save_dir")
    check_folder(exp.cache_dir, "exp.cache_dir")
    for section in ("unet_model",) if config.exp.mode == "rave" else ("unet_model", "guidance_model"):
        if getattr(config, section).load_pretrain:
            find_pretrained(config, section)


def find_pretrained(config: TrainConfig, section: str) -> str:
    """The file of `pretrain_dir` in a section whose `load_pretrain` is true. Raises UserError."""
    key, value = f"{section}.pretrain_dir", getattr(config, section).pretrain_dir
    if value is None:
        raise UserError(f"{key}: expected a weight file ({section}.load_pretrain is true), found nothing (null)")
    return str((find_weights if section == "unet_model" else find_file)(value, key))
