"""UNet++ decoder: a nested grid of nodes between the encoder's maps and the finest one. Zhou et al. 2018."""

from collections.abc import Callable, Sequence

from flax import nnx

from flaxunet.models.decoders.unet import BlockDecoder, DecoderBlock, MakeBlock, decoder_widths
from flaxunet.models.operations import T

SMP_KEYS = tuple(
    (rf"{ours}\.(conv\d)", rf"blocks.{theirs}.\1.0", rf"blocks.{theirs}.\1.1")
    for ours, theirs in (
        *((rf"nodes\.{i}\.{k}", f"x_{3 - i - k}_{3 - i}") for i in range(4) for k in range(4 - i)),
        ("last", "x_0_4"),
    )
)
"""Our modules -> convolution and batch norm of segmentation_models_pytorch's UnetPlusPlusDecoder.

Our X[i][j] is its x_{depth}_{layer}: layers count from the deepest level, depth 0 is the outermost node.
"""


class UNetPlusPlusDecoder(BlockDecoder):
    """The grid X[i][j] of level i (0 is the finest) and column j; column 0 is the encoder's maps.

    Node X[i][j] joins X[i+1][j-1], resized, with everything to its left on its own level; it is kept as
    `nodes[i][j - 1]`. Over an encoder whose finest map has stride 2, `last` brings X[0][4] to the image's
    size. The maps returned are the last column's: X[0][L], then X[0][L-1], ..., X[0][1].

    Args: as `BlockDecoder`.
    Source: the paper; widths, order of concatenation and the last block as
      segmentation_models_pytorch.UnetPlusPlus.
    """

    def _build(self, channels: Sequence[int], strides: Sequence[int], block: MakeBlock) -> None:
        outermost = decoder_widths(channels, strides)
        depth = len(channels) - 1
        # widths[i][j]: inner nodes are as wide as their level's encoder map, the outermost as the decoder.
        last_column = (*outermost[depth - 1 :: -1], channels[depth])
        widths = [[channels[i]] * (depth - i) + [last_column[i]] for i in range(depth + 1)]
        self.nodes = nnx.List()
        for i, row in enumerate(widths[:-1]):
            inputs = (widths[i + 1][j] + sum(row[: j + 1]) for j in range(depth - i))
            self.nodes.append(nnx.List([block(cin, cout) for cin, cout in zip(inputs, row[1:], strict=True)]))
        self.last = block(widths[0][depth], outermost[depth]) if strides[0] > 1 else None
        finest = widths[0][1:] if self.last is None else [*widths[0][1:depth], outermost[depth]]
        self.channels = tuple(finest[::-1])

    def _maps(self, maps: Sequence[T], apply: Callable[[DecoderBlock, T, list[T]], T]) -> list[T]:
        grid = [[x] for x in maps]
        for column in range(len(self.nodes)):
            for row, nodes in enumerate(self.nodes):
                if column < len(nodes):
                    grid[row].append(apply(nodes[column], grid[row + 1][column], grid[row][::-1]))
        finest = grid[0][:0:-1]
        if self.last is not None:
            finest[0] = apply(self.last, finest[0], [])
        return finest

    def prune(self, level: int) -> None:
        """Keeps only the nodes that X[0][level] needs: those with i + j <= level."""
        depth = len(self.nodes)
        if level < depth:
            self.nodes = nnx.List([nnx.List(list(self.nodes[i])[: level - i]) for i in range(level)])
            self.channels, self.last = self.channels[depth - level :], None
