"""Folder embeddings: batched equals one by one, the cache is keyed by content and encoder."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from data.listing import list_images
from data.resized import photo_contents
from models.clip_encoder import load_clip
from models.vocabulary import clip_tokens
from training.embeddings import embed_photos, embed_vocabulary


@pytest.fixture(scope="module")
def encoder():
    return load_clip("mini-rn", None)


def test_batches_equal_single_photos(encoder, photo_folders, tmp_path):
    paths = list_images(photo_folders[1], "key")
    together, skipped = embed_photos(paths, encoder, tmp_path / "cache", batch_size=3, key="key")
    single = [
        encoder.embed_images(torch.from_numpy(np.array(Image.open(p))).permute(2, 0, 1)[None] / 255) for p in paths
    ]
    assert torch.allclose(together, torch.cat(single), atol=1e-5)
    assert skipped == []


def test_cache_is_used_by_content_and_by_encoder(encoder, photo_folders, tmp_path, monkeypatch):
    paths = list_images(photo_folders[1], "key")
    first, _ = embed_photos(paths, encoder, tmp_path / "cache", 8, "key")
    seen = []
    original = encoder.embed_images
    monkeypatch.setattr(encoder, "embed_images", lambda images: seen.append(len(images)) or original(images))
    shutil.copy(paths[0], photo_folders[1] / "copy.png")  # another name, the same content
    Image.new("RGB", (30, 30), "red").save(paths[1])  # the same name, another content
    second, _ = embed_photos(list_images(photo_folders[1], "key"), encoder, tmp_path / "cache", 8, "key")
    assert seen == [1]
    assert torch.equal(second[-1], first[0])
    assert not torch.equal(second[1], first[1])
    embed_photos(paths, load_clip("mini-rn", None, seed=1), tmp_path / "cache", 8, "key")
    assert len(list((tmp_path / "cache" / "embeddings").iterdir())) == 2


def test_photos_that_were_hashed_before_are_not_hashed_again(encoder, photo_folders, tmp_path, monkeypatch):
    paths = list_images(photo_folders[1], "key")
    photo_contents(paths)
    monkeypatch.setattr("data.resized.file_digest", lambda path: pytest.fail(f"read again: {path}"))
    found, skipped = embed_photos(paths, encoder, tmp_path / "cache", 8, "key")
    assert len(found) == len(paths) and skipped == []


def test_another_version_of_decoding_makes_the_cache_anew(encoder, photo_folders, tmp_path, monkeypatch):
    paths = list_images(photo_folders[1], "key")
    for version in ("v1", "v2"):
        monkeypatch.setattr("training.embeddings.VERSION", version)
        embed_photos(paths, encoder, tmp_path / "cache", 8, "key")
    assert len(list((tmp_path / "cache" / "embeddings").iterdir())) == 2


def test_unreadable_photos_are_named_and_left_out(encoder, photo_folders, tmp_path):
    (photo_folders[1] / "a.jpg").write_bytes(b"")
    found, skipped = embed_photos(list_images(photo_folders[1], "key"), encoder, tmp_path / "cache", 4, "key")
    assert len(found) == 8
    assert "a.jpg" in skipped[0]
    (photo_folders[1] / "z.jpg").write_bytes(b"")  # the same content, and one more that is told
    (photo_folders[1] / "zz.jpg").symlink_to(tmp_path / "nowhere.jpg")
    _, skipped = embed_photos(list_images(photo_folders[1], "key"), encoder, tmp_path / "cache", 4, "key")
    assert [reason.partition(": expected")[0].rpartition("/")[2] for reason in skipped] == ["a.jpg", "z.jpg", "zz.jpg"]
    with pytest.raises(UserError, match=r"some\.key: none of the 1 photos can be read"):
        embed_photos([photo_folders[1] / "a.jpg"], encoder, tmp_path / "cache", 4, "some.key")


def test_vocabulary_is_clips():
    texts, whole_words = clip_tokens()
    assert len(texts) == len(whole_words) == 49408
    kind = dict(zip(texts, whole_words, strict=True))
    assert kind["bright"] and kind["sky"] and kind["dark"]
    assert not kind["jewell"] and not kind["!"] and not kind["fridaynight"]
    assert "😂" in kind  # bytes are read as the characters that they spell


def test_tokens_in_chunks_equal_single_ones_and_are_cached(tmp_path, monkeypatch):
    texts = ["dark", "sky", "a", "bright", "friday", "night", "😂", "fridaynight", "sun", "backlit"]
    clip = load_clip("mini-clip", None)
    monkeypatch.setattr(clip, "words", lambda: (texts, [True] * len(texts)))
    found = embed_vocabulary(clip, tmp_path, chunk=4)
    assert torch.allclose(found, torch.cat([clip.embed_texts([text]) for text in texts]), atol=1e-5)
    monkeypatch.setattr(clip, "embed_texts", None)  # from now on the cache has to do
    assert torch.equal(embed_vocabulary(clip, tmp_path), found)
    (file,) = (tmp_path / "vocabulary").iterdir()
    file.write_bytes(b"damaged")
    monkeypatch.undo()
    monkeypatch.setattr(clip, "words", lambda: (texts, [True] * len(texts)))
    assert torch.allclose(embed_vocabulary(clip, tmp_path, chunk=4), found, atol=1e-6)


def test_damage_inside_a_cache_is_noticed_and_an_unreadable_one_costs_a_note(encoder, photo_folders, tmp_path, capsys):
    paths = list_images(photo_folders[1], "key")
    right, _ = embed_photos(paths, encoder, tmp_path / "cache", 8, "key")
    (file,) = (tmp_path / "cache" / "embeddings").iterdir()
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert torch.equal(embed_photos(paths, encoder, tmp_path / "cache", 8, "key")[0], right)
    assert capsys.readouterr().err == f"note: cache rebuilt: {file}: damaged, its checksum does not fit\n"
    file.unlink()
    file.mkdir()
    assert torch.equal(embed_photos(paths, encoder, tmp_path / "cache", 8, "key")[0], right)
    assert f"note: not cached: {file}" in capsys.readouterr().err
