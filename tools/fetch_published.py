"""Fetch the authors' nine weight files (CLIP-LIT, RAVE) and check them by SHA-256.

python -m tools fetch-published [--out pretrained_models/published] [--source FOLDER_OR_URL] [--only clip_lit rave]

A stopped download goes on where it ended; files that are there already are left alone. `--source` holds the nine files
in the sub-folders clip_lit/ and rave/, as a folder or behind a URL (a mirror). Without it CLIP-LIT's two are downloaded
from their authors' repository; RAVE's seven have no address of their own, get them from the authors' page.
"""

import argparse
import hashlib
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

from common.cli import EXIT_OK, EXIT_SOME_FAILED, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.files import check_folder
from common.progress import Progress

SHA256 = {
    "clip_lit/enhancement_model.pth": "67aa1bdbac345842670e494b02953f299e5088bcb3f98a18bd60b06fef48b5c9",
    "clip_lit/init_enhancement_model.pth": "14c32e3163e7e10734b48b9641ba44222daaf2feb0f3ba76cbb15b4080be25ab",
    "rave/clip_lit_latent_paired.pth": "8bc9d8882837dbee3d266f4407478f63220174cd5838fbcadf2f4b2c070146ec",
    "rave/clip_lit_latent_unpaired.pth": "931966b5cbc3320d90a62c9ee7c820e0d291d7abfb85989b8296458e2354f94e",
    "rave/clip_lit_paired.pth": "5c3e14b3674d516190e77e54614476fe19ac91b9d8419c0c25533e573ff65d2d",
    "rave/clip_lit_unpaired.pth": "7b16e3815c1380138ada75ca5000f818db4462c27f4522a1de46023d96c09d0d",
    "rave/rave_paired.pth": "3d4e27eecbde9b55d2ef96afadc8cf4c2d0927fb8780ce1df6508d01a7ef811f",
    "rave/rave_unpaired.pth": "21fb43004af7de2e1782b5799fbaa91dc62ca2730134229323bceab53370742c",
    "rave/rave_unpaired_shifted.pth": "5bcf3feff7dcc4891be878721c2defba0305e343c6b3821f9e88a9950c06ae5e",
}
# The authors' repositories, as far as they are known; where a file has moved, --source and the SHA-256 above still
# serve.
AUTHORS = {
    "clip_lit/enhancement_model.pth": "https://raw.githubusercontent.com/ZhexinLiang/CLIP-LIT/master/pretrained_models/enhancement_model.pth",
    "clip_lit/init_enhancement_model.pth": "https://raw.githubusercontent.com/ZhexinLiang/CLIP-LIT/master/pretrained_models/init_pretrained_models/init_enhancement_model.pth",
}
CHUNK = 1 << 16
TIMEOUT = 20  # seconds without an answer


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="pretrained_models/published", metavar="DIR", help="(default: %(default)s)")
    parser.add_argument(
        "--source", metavar="FOLDER_OR_URL", help="where the files are; default: the authors' repositories"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("clip_lit", "rave"),
        default=["clip_lit", "rave"],
        help="which of the two (default: both)",
    )
    args = parser.parse_args(argv)
    check_folder(args.out, "--out")
    out, failed = Path(args.out), 0
    for name in (name for name in SHA256 if name.split("/")[0] in args.only):
        try:
            say(f"{fetch(name, out / name, args.source):8} {out / name}")
        except UserError as error:
            failed += 1
            say(f"failed   {name}: {error}", file=sys.stderr)
    if failed:
        say(f"{failed} files are missing; run the command again to go on, or give --source", file=sys.stderr)
    return EXIT_SOME_FAILED if failed else EXIT_OK


def fetch(name: str, target: Path, source: str | None) -> str:
    """Have one file at `target`; what was done, in a word.

    Raises UserError where it cannot be had or is another file.
    """
    if target.is_file():
        if _sha256(target) == SHA256[name]:
            return "there"
        raise UserError(f"expected SHA-256 {SHA256[name][:12]}..., found another file at {target}; move it away")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")  # stays where a download stops
    word = "fetched"
    if source is not None and "://" not in source:
        file = Path(source) / name
        if not file.is_file():
            raise UserError(f"--source: expected the file {file}, found nothing there")
        shutil.copyfile(file, partial)
    else:
        url = f"{source.rstrip('/')}/{name}" if source else AUTHORS.get(name)
        if url is None:
            raise UserError(
                "no address is known for this file; get it from the authors' page and give its folder as --source"
            )
        word = _download(url, partial)
    if _sha256(partial) != SHA256[name]:
        partial.unlink()
        raise UserError(f"expected SHA-256 {SHA256[name][:12]}..., found another file; it was not kept")
    partial.replace(target)
    return word


def _download(url: str, partial: Path) -> str:
    start = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            resumed = start > 0 and answer.status == 206  # a server that knows no ranges sends the whole file
            total = int(answer.headers.get("Content-Length") or 0) + (start if resumed else 0)
            done = start if resumed else 0
            with (
                Progress(partial.stem, total or None, "B", done=done) as progress,
                partial.open("ab" if resumed else "wb") as file,
            ):
                while block := answer.read(CHUNK):
                    file.write(block)
                    progress.add(len(block))
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send: the file is whole, or another one
            return "fetched"
        raise UserError(f"{url}: {error}") from None
    except (OSError, ValueError) as error:  # no network, a time-out, a URL that is none
        raise UserError(f"{url}: {getattr(error, 'reason', error)}") from None
    return "resumed" if resumed else "fetched"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    run(main)
