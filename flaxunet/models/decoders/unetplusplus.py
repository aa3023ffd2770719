"""UNet++ decoder: a nested grid of nodes between the encoder's maps and the finest one. Zhou et al. 2018."""

from collections.abc import Sequence
from functools import partial

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.decoders.unet import DecoderBlock, decoder_widths, side, twice
from flaxunet.models.layers import Norm
from flaxunet.models.operations import Operations, T
from flaxunet.ops.remat import run
from flaxunet.ops.resize import Method

SMP_KEYS = tuple(
    (rf"{ours}\.(conv\d)", rf"blocks.{theirs}.\1.0", rf"blocks.{theirs}.\1.1")
    for ours, theirs in (
        *((rf"nodes\.{i}\.{k}", f"x_{3 - i - k}_{3 - i}") for i in range(4) for k in range(4 - i)),
        ("last", "x_0_4"),
    )
)
"""Our modules -> convolution and batch norm of segmentation_models_pytorch's UnetPlusPlusDecoder.

Our node X[i][j], kept as nodes[i][j - 1], is its x_{depth}_{layer}: layers count from the deepest level,
depth 0 is the outermost node.
"""


class UNetPlusPlusDecoder(nnx.Module):
    """The grid X[i][j] of level i (0 is the finest) and column j; column 0 is the encoder's maps.

    Node X[i][j] joins X[i+1][j-1], resized, with everything to its left on its own level; it is kept as
    `nodes[i][j - 1]`. Over an encoder whose finest map has stride 2, `last` brings X[0][4] to the image's
    size.

    Attributes:
      channels: of the maps returned: the last column's X[0][L], then X[0][L-1], ..., X[0][1].

    Args:
      channels, strides, upsample, norm, dtype, rngs: as in `UNetDecoder`.
    Source: the paper; widths, order of concatenation and the last block as
      segmentation_models_pytorch.UnetPlusPlus.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        upsample: Method = "nearest",
        norm: Norm = "batch",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        block = partial(DecoderBlock, upsample=upsample, norm=norm, dtype=dtype, rngs=rngs)
        outermost = decoder_widths(channels, strides)
        depth = len(channels) - 1
        # widths[i][j]: inner nodes are as wide as their level's encoder map, the outermost as the decoder.
        widths = [
            [channels[i]] * (depth - i) + ([outermost[depth - 1 - i]] if i < depth else [channels[i]])
            for i in range(depth + 1)
        ]
        self.nodes = nnx.List()
        for i in range(depth):
            row = [
                block(widths[i + 1][j - 1] + sum(widths[i][:j]), widths[i][j])
                for j in range(1, depth - i + 1)
            ]
            self.nodes.append(nnx.List(row))
        self.last = block(widths[0][depth], outermost[depth]) if strides[0] > 1 else None
        finest = widths[0][1:] if self.last is None else [*widths[0][1:depth], outermost[depth]]
        self.channels = tuple(finest[::-1])

    def __call__(self, maps: Sequence[Array], size: tuple[int, int] | None = None) -> tuple[Array, ...]:
        """Fills the grid, column by column.

        Args:
          maps: the encoder's, finest first.
          size: (H, W) of the image, for the last block; twice the finest map if left out.
        Returns: X[0][L] (behind the last block, if there is one), X[0][L-1], ..., X[0][1].
        """
        grid = [[x] for x in maps]
        for column in range(len(self.nodes)):
            for row, nodes in enumerate(self.nodes):
                if column < len(nodes):
                    skips = grid[row][::-1]
                    grid[row].append(run(nodes[column], grid[row + 1][column], skips, size=side(maps[row])))
        finest = grid[0][:0:-1]
        if self.last is not None:
            finest[0] = run(self.last, finest[0], [], size=size or twice(finest[0]))
        return tuple(finest)

    def trace(self, ops: Operations[T], maps: Sequence[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        grid = [[x] for x in maps]
        for column in range(len(self.nodes)):
            for row, nodes in enumerate(self.nodes):
                if column < len(nodes):
                    skips = grid[row][::-1]
                    grid[row].append(nodes[column].trace(ops, grid[row + 1][column], skips, image))
        finest = grid[0][:0:-1]
        if self.last is not None:
            finest[0] = self.last.trace(ops, finest[0], [], image)
        return finest

    def prune(self, level: int) -> None:
        """Keeps only the nodes that X[0][level] needs: those with i + j <= level."""
        depth = len(self.nodes)
        if level < depth:
            self.nodes = nnx.List([nnx.List(list(self.nodes[i])[: level - i]) for i in range(level)])
            self.channels, self.last = self.channels[depth - level :], None
