"""Encoders, by name: one entry each owns all that the rest of the project has to know of it.

To add one, write its module and add a line to `ENCODERS`; from outside of the package,
`ENCODERS["name"] = EncoderEntry(...)` before the name is used (examples/own_encoder.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from jax import Array

from flaxunet.models.encoders import plain, resnet
from flaxunet.models.encoders.resnet import BasicBlock, Bottleneck
from flaxunet.models.operations import Operations, T


class Encoder(Protocol):
    """A module that makes a pyramid of feature maps of an image.

    Attributes:
      channels, strides: of the maps, finest first.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, image: Array) -> tuple[Array, ...]:
        """(B, H, W, C) to maps (B, ceil(H / stride), ceil(W / stride), channels), finest first."""
        ...

    def trace(self, ops: Operations[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        ...

    def truncate(self, count: int) -> None:
        """Keeps the finest `count` maps and drops the layers behind them."""


@dataclass(frozen=True)
class EncoderEntry:
    """What the project knows of an encoder.

    Attributes:
      title: its name for people.
      build: makes it, as `build(in_channels, norm=..., dtype=..., rngs=...)`.
      channels, strides: of its maps, finest first.
      first_conv: path of the kernel that sees the image, e.g. "stem.conv.kernel".
      torch_keys: for each layout of torch files that holds it, rows (pattern of our module's path, torch's
        convolution, torch's batch norm), for porting.
      fits: whether a state dict's shapes, by torch key, are those of this encoder; None where there is none.
      torch: arguments of torchvision's `ResNet`, beside its block; None for an encoder that torchvision does
        not have. One that it has is called as there.
    """

    title: str
    build: Callable[..., Any]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    first_conv: str
    torch_keys: Mapping[str, Sequence[tuple[str, str, str]]] = field(default_factory=dict)
    fits: Callable[[Mapping[str, tuple[int, ...]]], bool] | None = None
    torch: Mapping[str, Any] | None = None


def _resnet(title: str, block: type[BasicBlock | Bottleneck], *layers: int, **widths: int) -> EncoderEntry:
    shape = {"layers": layers, "groups": 1, "width_per_group": 64, **widths}
    return EncoderEntry(
        title,
        build=partial(resnet.ResNetEncoder, block, **shape),
        channels=(64, *(64 * 2**index * block.expansion for index in range(4))),
        strides=(2, 4, 8, 16, 32),
        first_conv="stem.conv.kernel",
        torch_keys=dict.fromkeys(("torchvision", "timm", "smp", "flaxunet"), resnet.TORCH_KEYS),
        fits=partial(resnet.fits, block, **shape),
        torch=shape,
    )


ENCODERS: dict[str, EncoderEntry] = {
    "resnet18": _resnet("ResNet-18", BasicBlock, 2, 2, 2, 2),
    "resnet34": _resnet("ResNet-34", BasicBlock, 3, 4, 6, 3),
    "resnet50": _resnet("ResNet-50", Bottleneck, 3, 4, 6, 3),
    "resnet101": _resnet("ResNet-101", Bottleneck, 3, 4, 23, 3),
    "resnet152": _resnet("ResNet-152", Bottleneck, 3, 8, 36, 3),
    "resnext50_32x4d": _resnet("ResNeXt-50 32x4d", Bottleneck, 3, 4, 6, 3, groups=32, width_per_group=4),
    "resnext101_32x8d": _resnet("ResNeXt-101 32x8d", Bottleneck, 3, 4, 23, 3, groups=32, width_per_group=8),
    "wide_resnet50_2": _resnet("wide ResNet-50-2", Bottleneck, 3, 4, 6, 3, width_per_group=128),
    "wide_resnet101_2": _resnet("wide ResNet-101-2", Bottleneck, 3, 4, 23, 3, width_per_group=128),
    "plain": EncoderEntry(
        "the papers' plain encoder",
        build=plain.PlainEncoder,
        channels=plain.WIDTHS,
        strides=(1, 2, 4, 8, 16),
        first_conv="stages.0.0.conv.kernel",
        torch_keys={"flaxunet": plain.FLAXUNET_KEYS, "zju": plain.ZJU_KEYS},
    ),
}
"""Name -> encoder; the names are those of `flaxunet.create` and `--encoder`."""
