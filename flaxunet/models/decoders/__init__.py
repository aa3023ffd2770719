"""Decoders, by name: one entry each owns all that the rest of the project has to know of it.

To add one, write its module and add a line to `DECODERS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jax import Array

from flaxunet.models.decoders import unet, unet3plus, unetplusplus
from flaxunet.models.operations import Operations, T


class Decoder(Protocol):
    """A module that folds an encoder's maps to one map, and others for deep supervision.

    Attributes:
      channels: of the maps that it returns, finest first.
    """

    channels: tuple[int, ...]

    def __call__(self, maps: Sequence[Array], size: tuple[int, int] | None = None) -> tuple[Array, ...]:
        """Maps to maps, finest first; the first feeds the main head. `size` is the image's (H, W)."""
        ...

    def trace(self, ops: Operations[T], maps: Sequence[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        ...


@dataclass(frozen=True)
class DecoderEntry:
    """What the project knows of a decoder.

    Attributes:
      title: its name for people.
      build: makes it, as `build(channels, strides, norm=..., dtype=..., rngs=...)`.
      upsamples: whether `build` takes `upsample`, "nearest" or "bilinear".
      averages: whether a network with deep supervision predicts the mean of its heads.
      torch_keys: as in `EncoderEntry`.
      smp: its class in segmentation_models_pytorch, or None.
    """

    title: str
    build: Callable[..., Any]
    upsamples: bool = False
    averages: bool = False
    torch_keys: Mapping[str, Sequence[tuple[str, str, str]]] = field(default_factory=dict)
    smp: str | None = None


DECODERS: dict[str, DecoderEntry] = {
    "unet": DecoderEntry(
        "UNet", unet.UNetDecoder, upsamples=True, torch_keys={"smp": unet.SMP_KEYS}, smp="Unet"
    ),
    "unetplusplus": DecoderEntry(
        "UNet++",
        unetplusplus.UNetPlusPlusDecoder,
        upsamples=True,
        averages=True,
        torch_keys={"smp": unetplusplus.SMP_KEYS},
        smp="UnetPlusPlus",
    ),
    "unet3plus": DecoderEntry(
        "UNet 3+",
        unet3plus.UNet3PlusDecoder,
        torch_keys={"flaxunet": unet3plus.FLAXUNET_KEYS, "zju": unet3plus.ZJU_KEYS},
    ),
}
"""Name -> decoder; the names are those of `flaxunet.create` and `--arch`."""
