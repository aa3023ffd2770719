"""ResNet encoders: an image goes in, five maps of strides 2 to 32 come out. He et al. 2015."""

from collections.abc import Sequence
from functools import partial

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, Norm, kaiming_normal_fan_out, max_pool
from flaxunet.ops.remat import run


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut, (B, H, W, cin) to (B, ceil(H / stride), ..., width)."""

    expansion = 1

    def __init__(
        self, cin: int, width: int, stride: int = 1, *, norm: Norm, dtype: DTypeLike | None, rngs: nnx.Rngs
    ):
        conv = partial(ConvNorm, norm=norm, init=kaiming_normal_fan_out, dtype=dtype, rngs=rngs)
        self.conv1 = conv(cin, width, 3, stride)
        self.conv2 = conv(width, width, 3, relu=False)
        self.shortcut = conv(cin, width, 1, stride, relu=False) if stride > 1 or cin != width else None
        self.remat = False

    def __call__(self, x: Array) -> Array:
        """Adds the shortcut to the residual, then ReLU."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return nnx.relu(self.conv2(self.conv1(x)) + shortcut)


class Bottleneck(nnx.Module):
    """1x1, 3x3 (which strides), 1x1 to 4 * width channels, and a shortcut."""

    expansion = 4

    def __init__(
        self, cin: int, width: int, stride: int = 1, *, norm: Norm, dtype: DTypeLike | None, rngs: nnx.Rngs
    ):
        conv = partial(ConvNorm, norm=norm, init=kaiming_normal_fan_out, dtype=dtype, rngs=rngs)
        cout = width * self.expansion
        self.conv1 = conv(cin, width, 1)
        self.conv2 = conv(width, width, 3, stride)
        self.conv3 = conv(width, cout, 1, relu=False)
        self.shortcut = conv(cin, cout, 1, stride, relu=False) if stride > 1 or cin != cout else None
        self.remat = False

    def __call__(self, x: Array) -> Array:
        """Adds the shortcut to the residual, then ReLU."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return nnx.relu(self.conv3(self.conv2(self.conv1(x))) + shortcut)


BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], Sequence[int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNetEncoder(nnx.Module):
    """ResNet-18, 34, 50, 101 or 152 without its classifier.

    Attributes:
      channels, strides: of the maps, finest first: the stem's, then one per stage.

    Args:
      depth: one of 18, 34, 50, 101, 152.
      in_channels: C of the image.
      norm: "batch" or "group".
      dtype: of the computation; None means float32.
      rngs: the "params" stream initialises the weights as torchvision does.
    Raises: ValueError if the depth is unknown.
    Source: torchvision.models.resnet.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        *,
        norm: Norm = "batch",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        if depth not in BLOCKS:
            raise ValueError(f"unknown ResNet depth {depth}; known are {', '.join(map(str, BLOCKS))}")
        block, repeats = BLOCKS[depth]
        self.stem = ConvNorm(
            in_channels, 64, 7, 2, norm=norm, init=kaiming_normal_fan_out, dtype=dtype, rngs=rngs
        )
        self.stages = nnx.List()
        self.channels, self.strides = (64,), (2,)
        cin = 64
        for index, count in enumerate(repeats):
            width, stage = 64 * 2**index, nnx.List()
            for position in range(count):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(block(cin, width, stride, norm=norm, dtype=dtype, rngs=rngs))
                cin = width * block.expansion
            self.stages.append(stage)
            self.channels += (cin,)
            self.strides += (4 * 2**index,)

    def __call__(self, image: Array) -> tuple[Array, ...]:
        """(B, H, W, in_channels) to maps (B, ceil(H / stride), ceil(W / stride), channels), finest first."""
        maps = [self.stem(image)]
        x = max_pool(maps[0], 3, 2, padding=1)
        for stage in self.stages:
            for block in stage:
                x = run(block, x)
            maps.append(x)
        return tuple(maps)

    def truncate(self, count: int) -> None:
        """Keeps the finest `count` maps and drops the stages behind them."""
        self.stages = nnx.List(list(self.stages)[: count - 1])
        self.channels, self.strides = self.channels[:count], self.strides[:count]
