"""Weights of open_clip's tags as a user gets them: real processes, a hub on loopback, random weights of full size."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from common.paths import REPO_ROOT
from models.clip_encoder import load_clip
from models.clip_weights import cached
from tests.hub import Hub

VIT = "timm/vit_base_patch32_clip_224.openai/open_clip_model.safetensors"
RESNET = "timm/resnet101_clip.openai/open_clip_pytorch_model.bin"
TRUNK = "timm/resnet10t.c3_in1k/model.safetensors"
TEXTS = ["a backlit photo", "a well-lit photo of a street"]
EMBED = f"""
import sys, torch
from common.errors import UserError
from models.clip_encoder import load_clip
from models.clip_weights import cached
folder, *wanted = sys.argv[1:]
for model, tag in (item.split(":") for item in wanted):
    try:
        encoder = load_clip(model, tag)
    except UserError as error:
        print(f"{{model}}: {{error}}")
    else:
        images = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))
        texts = encoder.embed_texts({TEXTS}) if encoder.has_text else None
        torch.save((encoder.embed_images(images), texts), f"{{folder}}/{{model.replace('/', '-')}}.pt")
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory):
    """Hub path -> a file of random weights in half precision (300 and 240 MB), made where it is first asked for."""
    folder = tmp_path_factory.mktemp("weights")

    def make(path: str) -> Path:
        file = folder / Path(path).parent.name / Path(path).name
        if not file.exists():
            file.parent.mkdir()
            torch.manual_seed(5)
            model = open_clip.create_model("ViT-B-32" if path == VIT else "RN101", pretrained=None)
            half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
            save_file(half, file) if path == VIT else torch.save(half, file)
        return file

    yield make
    shutil.rmtree(folder)


@pytest.fixture
def home(tmp_path: Path):
    """A user's home folder, removed at the end: what is downloaded into it is large."""
    folder = tmp_path / "home"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def run(hub: Hub, home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        env=hub.environment(home, OMP_NUM_THREADS="2", **environment),
        cwd=REPO_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tag_openai_from_first_download_to_a_hub_that_is_gone(weights, home, tmp_path):
    """Through a broken transfer, equal to open_clip's model with QuickGELU; then from the cache; faults in one line."""
    small = tmp_path / "small.safetensors"
    save_file({"a": torch.zeros(1000)}, small)
    claimed = "timm/vit_base_patch16_clip_224.openai/open_clip_model.safetensors"
    other = "timm/resnet50_clip.openai/open_clip_model.safetensors"
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        folder.mkdir()
    trunk = timm.create_model("resnet10t")
    save_file(trunk.state_dict(), tmp_path / "trunk.safetensors")
    files = {VIT: weights(VIT), claimed: small, other: small, TRUNK: tmp_path / "trunk.safetensors"}
    with Hub(files, breaks={VIT: 1}, claims={claimed: 5000}) as hub:
        tags = [f"{model}:openai" for model in ("ViT-B-32", "ViT-B-16", "RN50", "RN50x4")]
        done = run(hub, home, "-c", EMBED, str(first), *tags, "timm/resnet10t:c3_in1k")
        assert done.returncode == 0, done.stderr
        assert hub.asked.count(f"GET /blobs/{VIT}") == 2  # the half that was missing
    wrong_size, wrong_tensors, absent = done.stdout.splitlines()
    assert "should be of size 5000" in wrong_size and "pretrained=FILE" in wrong_size
    assert wrong_tensors.startswith("RN50: ") and "remove it and it is downloaded again" in wrong_tensors
    assert "RN50x4/openai could not be had" in absent and "Not Found" in absent

    done = run(hub, home, "-c", EMBED, str(again), "ViT-B-32:openai", "RN101:openai")  # the hub is closed now
    assert "Connection refused" in done.stdout and len(done.stdout.splitlines()) == 1, done.stderr
    images, texts = torch.load(first / "ViT-B-32.pt", weights_only=True)
    assert all(
        torch.equal(a, b)
        for a, b in zip(torch.load(again / "ViT-B-32.pt", weights_only=True), (images, texts), strict=True)
    )

    torch.save(trunk.state_dict(), tmp_path / "trunk.pth")
    own = load_clip("timm/resnet10t", str(tmp_path / "trunk.pth"))
    pictures = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        torch.load(first / "timm-resnet10t.pt", weights_only=True)[0], own.embed_images(pictures), atol=1e-5
    )

    reference = open_clip.create_model("ViT-B-32-quickgelu", pretrained=str(weights(VIT))).eval()
    pictures = F.interpolate(pictures, (224, 224), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    with torch.no_grad():
        assert torch.allclose(images, reference.encode_image((pictures - mean) / std, normalize=True), atol=1e-5)
        assert torch.allclose(texts, reference.encode_text(open_clip.tokenize(TEXTS), normalize=True), atol=1e-5)


SHORT = {
    "train_rave.py": ("rave.yaml", ["train.num_iters=2"]),
    "train.py": (
        "clip_lit.yaml",
        [
            "train.num_rounds=1",
            "unet_model.num_round_iters=2",
            "guidance_model.num_pretrain_iters=2",
            "guidance_model.num_refine_iters=2",
            "guidance_model.max_extensions=1",
            "guidance_model.extension_iters=1",
            "guidance_model.batch_size=2",
            "guidance_model.image_size=64",
            "guidance_model.nearest_tokens=0",
        ],
    ),
}
RUNS = [
    ("train_rave.py", "rave.yaml", []),
    ("train.py", "clip_lit.yaml", []),
    ("train.py", "clip_lit_latent.yaml", ["guidance_model.cached_augmentations=2"]),
]


@pytest.mark.slow
def test_the_papers_configs_train_with_full_size_encoders(weights, photo_folders, home, tmp_path):
    """Each method a few steps at 64 px from the tags of its shipped config, and the report on RAVE's direction."""
    backlit, welllit = photo_folders
    common = [
        f"data.backlit_images_path={backlit}",
        f"data.welllit_images_path={welllit}",
        f"exp.save_dir={tmp_path / 'runs'}",
        f"exp.cache_dir={tmp_path / 'cache'}",
        "data.image_size=64",
        "train.num_workers=0",
        "unet_model.num_reconstruction_iters=2",
        "unet_model.batch_size=2",
        "unet_model.max_extensions=1",
        "unet_model.extension_iters=1",
    ]
    with Hub({VIT: weights(VIT), RESNET: weights(RESNET)}) as hub:
        for script, cfg, more in RUNS:
            settings = [f"--set={item}" for item in (*common, *SHORT[script][1], *more)]
            done = run(hub, home, script, "--cfg", cfg, *settings)
            assert done.returncode == 0, f"{cfg}: {done.stderr}"
            folder = tmp_path / "runs" / Path(cfg).stem
            summary = json.loads((folder / "summary.json").read_text())
            assert summary
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            assert all(map(torch.isfinite, (torch.tensor(line["loss"]) for line in lines if "loss" in line)))
        assert sum(path.startswith("GET /blobs/") for path in hub.asked) == 2  # each file once for all runs
        settings = [f"--set={item}" for item in common]
        done = run(
            hub,
            home,
            "tools/interpret_residual.py",
            *("--cfg", "rave.yaml", "--tokens", "200", "--bootstrap", "5", "--out", str(tmp_path / "report")),
            *settings,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "report/report.html").stat().st_size > 10_000
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_openai_archive_in_the_home_folder_and_by_file(weights, home, monkeypatch):
    """What `clip.load` leaves behind: found for the tag without a hub, and opened by its path, with QuickGELU."""
    if cached(str(Path(VIT).parent), [Path(VIT).name]):
        pytest.skip("OpenAI's weights are in this machine's hub cache, which comes first")
    root = torch.nn.Module()
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    for name, tensor in {**load_file(weights(VIT)), **{k: torch.tensor(v) for k, v in numbers.items()}}.items():
        *parts, last = name.split(".")
        place = root
        for part in parts:
            if part not in dict(place.named_children()):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        place.register_buffer(last, tensor)
    archive = home / ".cache/clip/ViT-B-32.pt"
    archive.parent.mkdir(parents=True)
    torch.jit.script(root).save(archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()

    monkeypatch.setenv("HOME", str(home))
    encoders = [load_clip("ViT-B-32", pretrained, trusted=[digest]) for pretrained in ("openai", str(archive))]
    reference = load_clip("ViT-B-32", str(weights(VIT)), quick_gelu=True)
    pictures = torch.rand(2, 3, 50, 70)
    for encoder in encoders:
        assert encoder.fingerprint(text=True) == reference.fingerprint(text=True)
        assert torch.equal(encoder.embed_images(pictures), reference.embed_images(pictures))
    assert not torch.allclose(
        load_clip("ViT-B-32", str(weights(VIT)), quick_gelu=False).embed_images(pictures),
        reference.embed_images(pictures),
        atol=1e-3,
    )
