"""Enhance one photo by the exported network, without PyTorch and without this repository.

pip install onnxruntime pillow numpy
python -m tools export --format onnx --output enhance.onnx     (once, where the repository is)
python onnx_without_pytorch.py enhance.onnx photo.jpg result.png
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(network: str, photo: str, result: str) -> None:
    """Read `photo`, run `network` on all of it, write `result`."""
    session = onnxruntime.InferenceSession(network, providers=onnxruntime.get_available_providers())
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(photo)).convert("RGB"), np.float32) / 255
    image = pixels.transpose(2, 0, 1)[None]  # (H,W,3) -> (1,3,H,W)
    illumination, enhanced = session.run(["illumination", "enhanced"], {"image": image})
    print(f"illumination from {illumination.min():.3f} to {illumination.max():.3f}; 1 leaves a pixel as it is")
    Image.fromarray(np.rint(enhanced[0].transpose(1, 2, 0) * 255).astype(np.uint8)).save(result)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python onnx_without_pytorch.py NETWORK PHOTO RESULT")
    main(*sys.argv[1:])
