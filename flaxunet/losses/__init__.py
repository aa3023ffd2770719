"""Losses of logits and labels, and the parser of their names."""

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
    "Loss",
    "cross_entropy",
    "deep_supervision",
    "dice",
    "focal",
    "jaccard",
    "lovasz",
    "ms_ssim",
    "presence",
    "tversky",
    "unet3plus",
]
