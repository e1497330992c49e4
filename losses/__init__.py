"""The loss functions of RAVE and CLIP-LIT. Plain functions on tensors."""
