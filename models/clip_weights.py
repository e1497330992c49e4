"""Where the weights of a tag are: a local cache or the network."""

import urllib.request

import huggingface_hub
import open_clip

from common.errors import UserError


def fetch(model: str, tag: str) -> None:
    """Have the weights of an open_clip tag in the local cache, or say in one line why not."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        known = f"tags of {model}: {', '.join(tags)}" if tags else f"{model} has none; null gives random weights"
        raise UserError(f"clip model '{model}': unknown pretrained tag '{tag}', and no file of this name; {known}")
    config = open_clip.get_pretrained_cfg(model, tag)
    hub = config.get("hf_hub")
    try:
        if hub and not _is_cached(hub) and not huggingface_hub.is_offline_mode():
            # open_clip would try several file names, each five times, for a minute
            urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=10).close()
        open_clip.download_pretrained(config)
    except (OSError, RuntimeError, ValueError) as error:  # hub, urllib and checksum errors are all among these
        raise no_weights(model, tag, hub or config.get("url"), error) from None


def _is_cached(hub: str) -> bool:
    repository, _, file = hub.rpartition("/")
    files = [file] if file else [open_clip.constants.HF_SAFE_WEIGHTS_NAME, open_clip.constants.HF_WEIGHTS_NAME]
    return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, name), str) for name in files)


def no_weights(model: str, tag: str | None, source: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()
    hub = huggingface_hub.constants
    return UserError(
        f"CLIP weights {model}/{tag} could not be had: looked in {hub.HF_HUB_CACHE} "
        f"and at {source if '://' in source else f'{hub.ENDPOINT}/{source}'} "
        f"({type(error).__name__}: {reason[0][:120] if reason else 'no reason given'}). "
        "Two ways out: give a local file (--set clip.guidance.pretrained=FILE, --set clip.identity.pretrained=FILE; "
        "for files in OpenAI's naming also --set clip.guidance.model=auto), "
        "or train offline with --cfg rave_quickstart.yaml"
    )
