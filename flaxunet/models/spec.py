"""Describes a network in names and numbers: enough to build it again, stored with its weights."""

import math
from dataclasses import dataclass
from typing import get_args

from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS
from flaxunet.models.layers import Norm
from flaxunet.ops.resize import Method
from flaxunet.preprocessing import INTENSITIES, Intensity, canonical

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Spec:
    """A network without its numbers.

    Attributes:
      arch: a name in `decoders.DECODERS`; or that of the encoder, for an encoder alone.
      encoder: a name in `encoders.ENCODERS`.
      in_channels, classes, deep_supervision, guidance, upsample, norm, dropout: as in `flaxunet.create`;
        an encoder alone has none but in_channels and norm.
      mean, std: of the images that the network expects, one per channel; left out they become ImageNet's
        (their mean over RGB where the image has another number of channels), and 0 and 1 for z-scores.
      pruned: the level to which a UNet++ was pruned, or None.
      intensity: what `flaxunet.preprocessing.normalize_intensity` made of the images.
    Raises: ValueError for an unknown name, or a value that is out of range, with what was expected.
    """

    arch: str
    encoder: str
    in_channels: int = 3
    classes: int = 1
    deep_supervision: bool = False
    guidance: bool = False
    upsample: Method = "nearest"
    norm: Norm = "batch"
    dropout: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    pruned: int | None = None
    intensity: Intensity = "dtype"

    def __post_init__(self):
        object.__setattr__(self, "intensity", canonical(self.intensity))
        for what, value, known in (
            ("encoder", self.encoder, tuple(ENCODERS)),
            ("arch", self.arch, (*DECODERS, *((self.encoder,) if self.arch == self.encoder else ()))),
            ("upsample", self.upsample, get_args(Method)),
            ("norm", self.norm, get_args(Norm)),
            ("intensity", self.intensity, INTENSITIES),
        ):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}; expected one of {', '.join(known)}")
        counts = all(isinstance(each, int) and each >= 1 for each in (self.classes, self.in_channels))
        if not counts or not 0 <= self.dropout < 1:
            values = f"classes={self.classes}, in_channels={self.in_channels}, dropout={self.dropout}"
            raise ValueError(f"{values}; expected classes >= 1, in_channels >= 1, 0 <= dropout < 1")
        usual = ((0.0,), (1.0,)) if self.intensity == "zscore" else (IMAGENET_MEAN, IMAGENET_STD)
        for what, default, above in (("mean", usual[0], -math.inf), ("std", usual[1], 0)):
            values = tuple(map(float, getattr(self, what))) or over_channels(default, self.in_channels)
            if len(values) != self.in_channels or not all(above < each < math.inf for each in values):
                expected = f"{self.in_channels} numbers, one per channel" + ", above 0" * (what == "std")
                raise ValueError(f"{what} is {values}; expected {expected}")
            object.__setattr__(self, what, values)

    @property
    def segments(self) -> bool:
        """Whether this is a whole segmenter, not an encoder alone."""
        return self.arch != self.encoder

    def __str__(self) -> str:
        """In words, for messages: what is left out is usual."""
        words = [f"{self.arch} on {self.encoder}" if self.segments else self.encoder]
        words += [f"{self.in_channels} channel" + "s" * (self.in_channels > 1)]
        words += [f"classes {self.classes}"] * self.segments
        words += [f"{self.norm} norm"] * (self.norm != "batch")
        words += [name.replace("_", " ") for name in ("deep_supervision", "guidance") if getattr(self, name)]
        words += [f"{self.upsample} upsampling"] * (self.upsample != "nearest")
        words += [f"{self.intensity} intensities"] * (self.intensity != "dtype")
        words += [f"pruned to level {self.pruned}"] * (self.pruned is not None)
        return ", ".join(words)


def over_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Per-channel numbers for another number of channels: their mean, where the numbers differ."""
    if len(values) == channels:
        return values
    return (round(sum(values) / len(values), 6),) * channels
