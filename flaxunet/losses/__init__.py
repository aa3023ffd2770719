"""Losses of logits and labels, and the parser of their names."""

from flaxunet.losses.parse import LOSSES, parse_loss
from flaxunet.losses.terms import (
    Loss,
    cross_entropy,
    deep_supervision,
    dice,
    focal,
    jaccard,
    lovasz,
    ms_ssim,
    presence,
    tversky,
    unet3plus,
)

__all__ = [
    "LOSSES", "Loss", "cross_entropy", "deep_supervision", "dice", "focal", "jaccard", "lovasz", "ms_ssim",
    "parse_loss", "presence", "tversky", "unet3plus",
]  # fmt: skip
