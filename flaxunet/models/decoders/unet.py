"""UNet decoder: five maps go in, each is joined by the upsampled deeper one. Ronneberger et al. 2015."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, MakeConv, Norm
from flaxunet.models.operations import Operations, T
from flaxunet.ops.remat import run
from flaxunet.ops.resize import Method

SMP_KEYS = tuple(
    (rf"blocks\.{index}\.(conv\d)", rf"blocks.{index}.\1.0", rf"blocks.{index}.\1.1") for index in range(5)
)
"""Our modules -> convolution and batch norm of segmentation_models_pytorch's UnetDecoder."""


def decoder_widths(channels: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Widths of the decoder's blocks, coarse to fine; one more where the finest map is not at stride 1.

    Source: segmentation_models_pytorch's default over a ResNet; the level's own width over a plain encoder.
    """
    if strides[0] == 1:
        return tuple(channels[-2::-1])
    return (256, 128, 64, 32, 16)[-len(channels) :]


class DecoderBlock(nnx.Module):
    """Convolves concat[x resized to the skips' size, *skips] twice."""

    remat = False

    def __init__(self, cin: int, cout: int, upsample: Method, conv: MakeConv):
        self.conv1, self.conv2 = conv(cin, cout), conv(cout, cout)
        self.upsample: Method = upsample

    def __call__(self, x: Array, skips: Sequence[Array], size: tuple[int, int] | None) -> Array:
        """x (B, h, w, C) and skips (B, H, W, C_i), together cin channels, to (B, H, W, cout).

        Without skips x is resized to `size`, or to twice its own if that is None.
        """
        height, width = skips[0].shape[1:3] if skips else size or (2 * x.shape[1], 2 * x.shape[2])
        return self.conv2(self.conv1.resized(x, (height, width), self.upsample, skips))

    def trace(self, ops: Operations[T], x: T, skips: Sequence[T], image: T) -> T:
        """`__call__`, written in the operations of an export format; without skips x gets image's size."""
        x = self.conv1.trace_resized(ops, x, skips[0] if skips else image, 2, self.upsample, skips)
        return self.conv2.trace(ops, x)


MakeBlock = Callable[[int, int], DecoderBlock]


class BlockDecoder(nnx.Module, ABC):
    """A decoder made of `DecoderBlock`s.

    Args:
      channels, strides: of the encoder's maps, finest first.
      upsample: "nearest" or "bilinear".
      norm, dtype, rngs: as in `ResNetEncoder`.
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
        conv = partial(ConvNorm, norm=norm, dtype=dtype, rngs=rngs)
        self._build(channels, strides, partial(DecoderBlock, upsample=upsample, conv=conv))

    def __call__(self, maps: Sequence[Array], size: tuple[int, int] | None = None) -> tuple[Array, ...]:
        """Folds the encoder's maps, finest first, to those that heads see, finest first.

        `size` is the (H, W) of the image, for the block without a skip; twice the finest map if left out.
        """
        return tuple(self._maps(maps, partial(run, size=size)))

    def trace(self, ops: Operations[T], maps: Sequence[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        return self._maps(maps, lambda block, x, skips: block.trace(ops, x, skips, image))

    @abstractmethod
    def _build(self, channels: Sequence[int], strides: Sequence[int], block: MakeBlock) -> None:
        """Makes the blocks, and `channels` of the maps returned."""

    @abstractmethod
    def _maps(self, maps: Sequence[T], apply: Callable[[DecoderBlock, T, list[T]], T]) -> list[T]:
        """The traversal; `apply` runs a block on its input and skips."""


class UNetDecoder(BlockDecoder):
    """One block per level; over an encoder whose finest map has stride 2, one more to the image's size.

    Args: as `BlockDecoder`.
    Source: segmentation_models_pytorch.Unet.
    """

    def _build(self, channels: Sequence[int], strides: Sequence[int], block: MakeBlock) -> None:
        skips = list(channels[-2::-1]) + ([] if strides[0] == 1 else [0])
        cin, self.blocks = channels[-1], nnx.List()
        for skip, width in zip(skips, decoder_widths(channels, strides), strict=True):
            self.blocks.append(block(cin + skip, width))
            cin = width
        self.channels = decoder_widths(channels, strides)[::-1]

    def _maps(self, maps: Sequence[T], apply: Callable[[DecoderBlock, T, list[T]], T]) -> list[T]:
        *skips, x = maps
        out: list[T] = []
        for block in self.blocks:
            x = apply(block, x, [skips.pop()] if skips else [])
            out.insert(0, x)
        return out
