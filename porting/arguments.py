"""Declares the flags of `python -m porting`, a dataclass for each command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from flaxunet.cli.parse import Argument
from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS
from porting.keymap import DIALECTS

ARCHS = (*(name for name, entry in ENCODERS.items() if entry.fits), *DECODERS)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The layout of a torch weight file."""

    dialect: Annotated[str | None, Argument(choices=tuple(DIALECTS))] = None
    """layout of the torch file; by default the one that is recognised, or the usual one"""


@dataclass(frozen=True, kw_only=True)
class TorchWeights(Dialect):
    """Weights in torch's hands."""

    source: Annotated[str, Argument("SOURCE", positional=True)]
    """.pth, .pt or .safetensors file, or torchvision's name, e.g. ResNet34_Weights.IMAGENET1K_V1"""
    prefix: Annotated[str | None, Argument("PREFIX")] = None
    """where the network lies in the state dict, e.g. encoder_q.; found by default"""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A stored network."""

    folder: Annotated[Path, Argument("DIR", positional=True)]
    """made by to-flax, flaxunet.save or a run"""


@dataclass(frozen=True, kw_only=True)
class ToFlax(TorchWeights):
    """Convert torch weights to a folder that flaxunet.load and python -m train read."""

    out: Annotated[Path, Argument("DIR")]
    """the folder to be made"""
    arch: Annotated[str | None, Argument(choices=ARCHS)] = None
    """the architecture that it must be"""
    encoder: Annotated[str | None, Argument(choices=tuple(ENCODERS))] = None
    """the encoder that it must have"""
    upsample: Annotated[str | None, Argument(choices=("nearest", "bilinear"))] = None
    """smp's decoder_interpolation, which weight files do not hold; nearest by default"""
    mean: Annotated[tuple[float, ...], Argument("X")] = ()
    """mean of the images it was trained on, in [0, 1], per channel; ImageNet's by default"""
    std: Annotated[tuple[float, ...], Argument("X")] = ()
    """standard deviation of those images; ImageNet's by default"""


@dataclass(frozen=True, kw_only=True)
class ToTorch(Folder, Dialect):
    """Convert a folder to a torch weight file."""

    out: Annotated[Path, Argument("FILE")]
    """.pth, .pt or .safetensors file"""


@dataclass(frozen=True, kw_only=True)
class Deploy(Folder):
    """Write a segmenter, from images of any size to probabilities, as one file for torch.export.load.

    python -m flaxunet export --format torch is the same.
    """

    out: Annotated[Path, Argument("FILE")]
    """usually .pt2; an older file is replaced"""


@dataclass(frozen=True, kw_only=True)
class Verify(Folder, TorchWeights):
    """Run both networks on the same images and compare every stage; exit code 1 if one differs."""

    tolerance: float = 1e-5
    """largest error, relative to a stage's peak; the default allows for rounding in up to 160 layers"""
    out: Annotated[Path | None, Argument("FILE")] = None
    """file of the comparison; DIR/parity.json by default"""


COMMANDS = {"to-flax": ToFlax, "to-torch": ToTorch, "deploy": Deploy, "verify": Verify}
