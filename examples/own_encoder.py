"""Trains a UNet on an encoder that lives outside of the package.

    python examples/own_encoder.py --steps 40

takes the flags of `python -m train`. An encoder is a module that makes a pyramid of feature maps, and an
entry in `ENCODERS`; whoever loads the network later registers the entry first, as `register` does.
"""

import sys

from flax import nnx
from jax import Array

from flaxunet.models.encoders import ENCODERS, EncoderEntry
from flaxunet.models.layers import ConvNorm, max_pool
from flaxunet.models.operations import Operations, T

WIDTHS = (16, 32, 64)


class SmallEncoder(nnx.Module):
    """One convolution per level, 2x2 max pooling between levels: maps of strides 1, 2 and 4, finest first."""

    def __init__(self, in_channels: int = 3, *, norm="batch", dtype=None, rngs: nnx.Rngs):
        inputs = (in_channels, *WIDTHS)
        self.levels = nnx.List(
            ConvNorm(cin, cout, norm=norm, dtype=dtype, rngs=rngs)
            for cin, cout in zip(inputs, WIDTHS, strict=False)
        )
        self.channels, self.strides = WIDTHS, (1, 2, 4)

    def __call__(self, image: Array) -> tuple[Array, ...]:
        """(B, H, W, in_channels) to maps (B, ceil(H / stride), ceil(W / stride), channels), finest first."""
        maps: list[Array] = []
        for level in self.levels:
            maps.append(level(max_pool(maps[-1], 2, 2, ceil_mode=True) if maps else image))
        return tuple(maps)

    def trace(self, ops: Operations[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format: what `flaxunet export` needs."""
        maps: list[T] = []
        for level in self.levels:
            maps.append(level.trace(ops, ops.pool(maps[-1], 2) if maps else image))
        return maps


def register() -> None:
    """Makes "small" a name for `flaxunet.create(..., encoder="small")` and `--encoder small`."""
    ENCODERS["small"] = EncoderEntry(
        "a small encoder",
        build=SmallEncoder,
        channels=WIDTHS,
        strides=(1, 2, 4),
        first_conv="levels.0.conv.kernel",
    )


if __name__ == "__main__":
    register()
    from train.__main__ import main  # which reads the names of the encoders

    sys.exit(main(["--arch", "unet", "--encoder", "small", *sys.argv[1:]]))
