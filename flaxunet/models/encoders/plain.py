"""The papers' own encoder: five double convolutions, maps of strides 1 to 16. Ronneberger et al. 2015."""

from collections.abc import Sequence

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, Norm, max_pool
from flaxunet.models.operations import Operations, T
from flaxunet.ops.remat import run

FLAXUNET_KEYS = ((r"(stages\.\d\.\d)", r"\1.0", r"\1.1"),)
"""Our modules -> convolution and batch norm of porting/torch_unet3plus.py."""
ZJU_KEYS = tuple(
    (rf"stages\.{i}\.{k}", f"conv{i + 1}.conv{k + 1}.0", f"conv{i + 1}.conv{k + 1}.1")
    for i in range(5)
    for k in range(2)
)
"""Our modules -> convolution and batch norm of the network that the authors of UNet 3+ published."""


class PlainEncoder(nnx.Module):
    """Two 3x3 convolutions per level, 2x2 max pooling (rounding up) between levels.

    Attributes:
      channels, strides: of the maps, finest first.

    Args:
      in_channels: C of the image.
      widths: channels of each level.
      norm, dtype, rngs: as in `ResNetEncoder`.
    Source: Ronneberger et al. 2015, with padded convolutions and batch norm as in Huang et al. 2020.
    """

    def __init__(
        self,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        *,
        norm: Norm = "batch",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.channels = tuple(widths)
        self.strides = tuple(2**level for level in range(len(widths)))
        self.stages = nnx.List()
        cin = in_channels
        for width in widths:
            first = ConvNorm(cin, width, norm=norm, dtype=dtype, rngs=rngs)
            second = ConvNorm(width, width, norm=norm, dtype=dtype, rngs=rngs)
            self.stages.append(nnx.List([first, second]))
            cin = width

    def __call__(self, image: Array) -> tuple[Array, ...]:
        """(B, H, W, in_channels) to maps (B, ceil(H / stride), ceil(W / stride), channels), finest first."""
        maps: list[Array] = []
        for first, second in self.stages:
            x = max_pool(maps[-1], 2, 2, ceil_mode=True) if maps else image
            maps.append(run(second, run(first, x)))
        return tuple(maps)

    def trace(self, ops: Operations[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        maps: list[T] = []
        for first, second in self.stages:
            maps.append(second.trace(ops, first.trace(ops, ops.pool(maps[-1], 2) if maps else image)))
        return maps

    def truncate(self, count: int) -> None:
        """Keeps the finest `count` maps and drops the stages behind them."""
        self.stages = nnx.List(list(self.stages)[:count])
        self.channels, self.strides = self.channels[:count], self.strides[:count]
