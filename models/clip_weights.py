"""Where the weights of a tag are, a cache on this machine or the hub; which weight files are known by their content.

open_clip's table of pretrained weights is the only source: addresses, activation, and the SHA-256 that the addresses of
OpenAI's and open_clip's own releases carry.
"""

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

import huggingface_hub
import open_clip
from huggingface_hub.errors import RemoteEntryNotFoundError

from common.errors import UserError, reason_of
from common.files import file_digest

CLIP_CACHE = Path(".cache/clip")  # below the home folder: where OpenAI's `clip.load` and open_clip keep downloads
REACH_SECONDS = 10.0


def tag_config(model: str, tag: str) -> dict:
    """open_clip's entry for a tag: `hf_hub`, `url`, `mean`, `std`, and `quick_gelu` where the weights need it.

    Raises UserError for a tag that open_clip does not know.
    """
    config = open_clip.get_pretrained_cfg(model, tag)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(model)
        known = f"tags of {model}: {', '.join(tags)}" if tags else f"{model} has none; null gives random weights"
        raise UserError(f"clip model '{model}': unknown pretrained tag '{tag}', and no file of this name; {known}")
    return config


def weights_of(model: str, tag: str, trusted: Collection[str] = ()) -> Path:
    """The file with the weights of an open_clip tag: out of a cache where it is there, else downloaded.

    trusted: see `models.clip_encoder.load_clip`.
    Raises UserError, in one line, where the file cannot be had.
    """
    if found := tag_file(model, tag, trusted):
        return found
    repository, files = _hub_files(tag_config(model, tag))
    try:
        return _download(repository, files)
    except Exception as error:  # the hub's client passes on the errors of whichever libraries it uses
        raise no_weights(f"{model}/{tag}", repository, error, Path.home() / CLIP_CACHE) from None


def tag_file(model: str, tag: str, trusted: Collection[str] = ()) -> Path | None:
    """The file with the weights of an open_clip tag in a cache of this machine. Raises UserError for an unknown tag."""
    config = tag_config(model, tag)
    return cached(*_hub_files(config)) or in_clip_cache(config, trusted)


def cached(repository: str, files: Sequence[str]) -> Path | None:
    """The first of `files` of a hub repository that lies in the hub's cache, without asking the network."""
    found = (huggingface_hub.try_to_load_from_cache(repository, name) for name in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def in_clip_cache(config: dict, trusted: Collection[str]) -> Path | None:
    """The file of a tag's entry that OpenAI's `clip.load` or an earlier open_clip left in the home folder.

    Only where its SHA-256 is that of the entry, or among `trusted`.
    """
    digest = _digest(config)
    path = Path.home() / CLIP_CACHE / Path(config.get("url", "")).name
    try:
        if not digest or not path.is_file():
            return None
        found = file_digest(path)
    except (OSError, UserError):
        return None  # as if it were not there
    return path if found.startswith(digest) or found in trusted else None


def reach_hub() -> None:
    """Raise where no hub answers. Any answer will do: a mirror need not have anything at its root.

    Without this look the hub's client tries each file five times, for half a minute.
    """
    if not huggingface_hub.is_offline_mode():
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=REACH_SECONDS)


def no_weights(name: str, repository: str, error: Exception, *more: Path) -> UserError:
    """What to tell where `name`'s weights are neither on the hub nor in its cache nor in `more` folders."""
    folders = ", in ".join(map(str, (huggingface_hub.constants.HF_HUB_CACHE, *more)))
    return UserError(
        f"weights {name} could not be had: looked in {folders} "
        f"and at {huggingface_hub.constants.ENDPOINT}/{repository} "
        f"({type(error).__name__}: {reason_of(error)}). "
        "Two ways out: give a local file (--set clip.guidance.pretrained=FILE, --set clip.identity.pretrained=FILE), "
        "or an encoder that needs no download (docs/train.md, Encoders), as rave_relit_offline.yaml has it"
    )


@cache
def openai_archives() -> frozenset[str]:
    """SHA-256 of OpenAI's own weight files, which are TorchScript archives."""
    return frozenset(digest for digest, config in _published() if "openaipublic" in config["url"])


def known_config(digest: str) -> dict | None:
    """open_clip's entry for the file with this SHA-256; None for a file that the table does not know."""
    return next((config for published, config in _published() if digest.startswith(published)), None)


def _published() -> list[tuple[str, dict]]:
    """SHA-256 (OpenAI's whole, of open_clip's 8 digits) of the files whose addresses carry it, and their entries."""
    configs = [open_clip.get_pretrained_cfg(model, tag) for model, tag in open_clip.list_pretrained()]
    return [(digest, config) for config in configs if (digest := _digest(config))]


def _digest(config: dict) -> str:
    url = config.get("url", "")
    if "openaipublic" in url:
        return url.split("/")[-2]
    return Path(url).stem.rsplit("-", 1)[-1] if "mlfoundations" in url else ""


def _hub_files(config: dict) -> tuple[str, list[str]]:
    """Repository on the hub, and the names its weights may have, safetensors first."""
    repository, _, name = config["hf_hub"].rpartition("/")
    if not name:
        return repository, [open_clip.constants.HF_SAFE_WEIGHTS_NAME, open_clip.constants.HF_WEIGHTS_NAME]
    return repository, [Path(name).with_suffix(".safetensors").name, name]


def _download(repository: str, files: Sequence[str]) -> Path:
    reach_hub()
    for name in files[:-1]:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name))
        except RemoteEntryNotFoundError:
            continue  # the repository has its weights under the next name
    return Path(huggingface_hub.hf_hub_download(repository, files[-1]))
