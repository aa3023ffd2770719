"""The papers' own encoder: five double convolutions, maps of strides 1 to 16. Ronneberger et al. 2015."""

from collections.abc import Callable, Sequence
from functools import partial

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, Norm, max_pool
from flaxunet.models.operations import Operations, T
from flaxunet.ops.remat import run

WIDTHS = (64, 128, 256, 512, 1024)
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

    Args:
      in_channels, widths: C of the image, and channels of each level.
      norm, dtype, rngs: as in `ResNetEncoder`.
    Source: Ronneberger et al. 2015, with padded convolutions and batch norm as in Huang et al. 2020.
    """

    def __init__(
        self,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        *,
        norm: Norm = "batch",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.channels, self.strides = tuple(widths), tuple(2**level for level in range(len(widths)))
        conv = partial(ConvNorm, norm=norm, dtype=dtype, rngs=rngs)
        inputs = zip((in_channels, *widths), widths, strict=False)
        self.stages = nnx.List(nnx.List([conv(cin, width), conv(width, width)]) for cin, width in inputs)

    def __call__(self, image: Array) -> tuple[Array, ...]:
        """(B, H, W, in_channels) to maps (B, ceil(H / stride), ceil(W / stride), channels), finest first."""
        return tuple(self._maps(image, partial(max_pool, window=2, stride=2, ceil_mode=True), run))

    def trace(self, ops: Operations[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        return self._maps(image, lambda x: ops.pool(x, 2), lambda conv, x: conv.trace(ops, x))

    def _maps(self, image: T, pool: Callable[[T], T], apply: Callable[[ConvNorm, T], T]) -> list[T]:
        maps: list[T] = []
        for first, second in self.stages:
            maps.append(apply(second, apply(first, pool(maps[-1]) if maps else image)))
        return maps

    def truncate(self, count: int) -> None:
        """Keeps the finest `count` maps and drops the stages behind them."""
        self.stages = nnx.List(list(self.stages)[:count])
        self.channels, self.strides = self.channels[:count], self.strides[:count]
