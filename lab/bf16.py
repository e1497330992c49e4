"""What bf16 does to the gradient of the identity loss near the identity map, beside float32, and what it costs.

python -m lab.bf16 [--json FILE]

The UNet's map lies at 0.99, so that photo and result differ by one percent, and with them the feature maps whose
difference is the loss. Two gradients are compared: that of the map, and that of the UNet's weights, by which it learns.
"""

import json
import time

from common.cli import EXIT_OK, make_parser, run

ENCODERS = {"mini-clip": "pretrained_models/mini-clip.safetensors", "efficientnet-lite0": "imagenet", "RN50": None}
WAYS = {"float32": (False, False), "UNet in bf16": (True, False), "UNet and encoder in bf16": (True, True)}
MAP = 0.99


def main(argv: list[str]) -> int:
    parser = make_parser(__doc__, default_cfg="rave.yaml")
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args(argv)
    results = {name: measure(name, pretrained) for name, pretrained in ENCODERS.items()}
    for name, ways in results.items():
        for way, row in ways.items():
            print(
                f"{name:20} {way:26} cosine of the map's gradient {row['map_cosine']:.4f}, of the weights' "
                f"{row['weights_cosine']:.6f}, loss {row['loss_ratio']:.3f} times, {row['cpu_seconds']:.2f} s "
                "of one core"
            )
    if args.json:
        from common.files import write_text
        from common.provenance import provenance

        write_text(args.json, json.dumps({"map": MAP, "encoders": results, **provenance()}, indent=2) + "\n")
    return EXIT_OK


def measure(model: str, pretrained: str | None) -> dict[str, dict[str, float]]:
    """Of each way: cosines with float32's gradients, the loss as a multiple of float32's, processor seconds."""
    import torch
    import torch.nn.functional as F

    from losses.identity import identity_loss
    from models.clip_encoder import load_clip
    from models.retinex import enhance
    from models.unet import IlluminationUNet

    encoder = load_clip(model, pretrained, seed=3)
    torch.manual_seed(0)
    photos = 0.6 * F.interpolate(torch.rand(2, 3, 12, 12), size=(96, 96), mode="bicubic").clamp(0, 1)
    rows, exact = {}, None
    for way, (unet_low, encoder_low) in WAYS.items():
        torch.manual_seed(1)
        unet = IlluminationUNet("zeros", map_bias=MAP)
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=unet_low):
            illumination = unet(photos).float()
        illumination.retain_grad()
        result = enhance(photos, illumination)
        with torch.autocast("cpu", torch.bfloat16, enabled=encoder_low):
            with torch.no_grad():
                source = encoder.feature_maps(photos)
            maps = encoder.feature_maps(result)
        loss = identity_loss(maps, source, [1.0] * len(maps))
        loss.backward()
        seconds = time.process_time() - started
        weights = torch.cat([parameter.grad.flatten() for parameter in unet.parameters()])
        found = loss.item(), illumination.grad.flatten(), weights
        exact = exact or found
        rows[way] = {
            "map_cosine": F.cosine_similarity(found[1], exact[1], dim=0).item(),
            "weights_cosine": F.cosine_similarity(found[2], exact[2], dim=0).item(),
            "loss_ratio": found[0] / exact[0],
            "cpu_seconds": seconds,
        }
    return rows


if __name__ == "__main__":
    run(main)
