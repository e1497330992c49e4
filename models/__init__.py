"""The networks: UNet, Retinex division, frozen CLIP encoder, checkpoints."""
