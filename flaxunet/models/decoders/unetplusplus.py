"""UNet++ decoder: a nested grid of nodes between the encoder's maps and the finest one. Zhou et al. 2018."""

from collections.abc import Sequence
from functools import partial

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.decoders.unet import DecoderBlock, decoder_widths, side, twice
from flaxunet.models.layers import Norm
from flaxunet.ops.remat import run
from flaxunet.ops.resize import Method


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

    def prune(self, level: int) -> None:
        """Keeps only the nodes that X[0][level] needs: those with i + j <= level."""
        depth = len(self.nodes)
        if level < depth:
            self.nodes = nnx.List([nnx.List(list(self.nodes[i])[: level - i]) for i in range(level)])
            self.channels, self.last = self.channels[depth - level :], None
