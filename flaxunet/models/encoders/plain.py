"""The papers' own encoder: an image goes in, five double convolutions give maps of strides 1 to 16."""

from collections.abc import Sequence

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, Norm, max_pool
from flaxunet.ops.remat import run


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

    def truncate(self, count: int) -> None:
        """Keeps the finest `count` maps and drops the stages behind them."""
        self.stages = nnx.List(list(self.stages)[:count])
        self.channels, self.strides = self.channels[:count], self.strides[:count]
