"""UNet decoder: five maps go in, each is joined by the upsampled deeper one. Ronneberger et al. 2015."""

from collections.abc import Sequence

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, Norm
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

    def __init__(
        self,
        cin: int,
        cout: int,
        *,
        upsample: Method = "nearest",
        norm: Norm = "batch",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.conv1 = ConvNorm(cin, cout, norm=norm, dtype=dtype, rngs=rngs)
        self.conv2 = ConvNorm(cout, cout, norm=norm, dtype=dtype, rngs=rngs)
        self.upsample: Method = upsample
        self.remat = False

    def __call__(self, x: Array, skips: Sequence[Array], size: tuple[int, int]) -> Array:
        """x (B, h, w, C) and skips (B, *size, C_i), together cin channels, to (B, *size, cout)."""
        return self.conv2(self.conv1.resized(x, size, self.upsample, skips))

    def trace(self, ops: Operations[T], x: T, skips: Sequence[T], image: T) -> T:
        """`__call__`, written in the operations of an export format; without skips x gets image's size."""
        x = self.conv1.trace_resized(ops, x, skips[0] if skips else image, 2, self.upsample, skips)
        return self.conv2.trace(ops, x)


class UNetDecoder(nnx.Module):
    """One block per level; over an encoder whose finest map has stride 2, one more to the image's size.

    Attributes:
      channels: of the maps returned, finest first.

    Args:
      channels, strides: of the encoder's maps, finest first.
      upsample: "nearest" or "bilinear".
      norm, dtype, rngs: as in `ResNetEncoder`.
    Source: segmentation_models_pytorch.Unet.
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
        skips = list(channels[-2::-1]) + ([] if strides[0] == 1 else [0])
        cin, self.blocks = channels[-1], nnx.List()
        for skip, width in zip(skips, decoder_widths(channels, strides), strict=True):
            block = DecoderBlock(cin + skip, width, upsample=upsample, norm=norm, dtype=dtype, rngs=rngs)
            self.blocks.append(block)
            cin = width
        self.channels = decoder_widths(channels, strides)[::-1]

    def __call__(self, maps: Sequence[Array], size: tuple[int, int] | None = None) -> tuple[Array, ...]:
        """Folds the maps.

        Args:
          maps: the encoder's, finest first.
          size: (H, W) of the image, for the block without a skip; twice the finest map if left out.
        Returns: the map of every block, finest first.
        """
        *skips, x = maps
        out: list[Array] = []
        for index, block in enumerate(self.blocks):
            if index < len(skips):
                skip = skips[-1 - index]
                x = run(block, x, [skip], size=side(skip))
            else:
                x = run(block, x, [], size=size or twice(x))
            out.append(x)
        return tuple(out[::-1])

    def trace(self, ops: Operations[T], maps: Sequence[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        *skips, x = maps
        out: list[T] = []
        for index, block in enumerate(self.blocks):
            x = block.trace(ops, x, [skips[-1 - index]] if index < len(skips) else [], image)
            out.append(x)
        return out[::-1]


def side(x: Array) -> tuple[int, int]:
    """Height and width."""
    return x.shape[1], x.shape[2]


def twice(x: Array) -> tuple[int, int]:
    """Twice the height and width."""
    return 2 * x.shape[1], 2 * x.shape[2]
