"""ResNet encoders: five maps of strides 2 to 32. He et al. 2015."""

from collections.abc import Mapping, Sequence
from functools import partial

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, Norm, kaiming_normal_fan_out, max_pool
from flaxunet.models.operations import Operations, T
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

    def trace(self, ops: Operations[T], x: T) -> T:
        """`__call__`, written in the operations of an export format."""
        shortcut = x if self.shortcut is None else self.shortcut.trace(ops, x)
        for conv in (self.conv1, self.conv2):
            x = conv.trace(ops, x)
        return ops.relu(ops.add(x, shortcut))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (which strides, in groups for a ResNeXt), 1x1 to 4 * width channels, and a shortcut."""

    expansion = 4

    def __init__(
        self,
        cin: int,
        width: int,
        stride: int = 1,
        *,
        groups: int = 1,
        width_per_group: int = 64,
        norm: Norm,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        conv = partial(ConvNorm, norm=norm, init=kaiming_normal_fan_out, dtype=dtype, rngs=rngs)
        inner, cout = width * width_per_group // 64 * groups, width * self.expansion
        self.conv1 = conv(cin, inner, 1)
        self.conv2 = conv(inner, inner, 3, stride, groups=groups)
        self.conv3 = conv(inner, cout, 1, relu=False)
        self.shortcut = conv(cin, cout, 1, stride, relu=False) if stride > 1 or cin != cout else None
        self.remat = False

    def __call__(self, x: Array) -> Array:
        """Adds the shortcut to the residual, then ReLU."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return nnx.relu(self.conv3(self.conv2(self.conv1(x))) + shortcut)

    def trace(self, ops: Operations[T], x: T) -> T:
        """`__call__`, written in the operations of an export format."""
        shortcut = x if self.shortcut is None else self.shortcut.trace(ops, x)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = conv.trace(ops, x)
        return ops.relu(ops.add(x, shortcut))


TORCH_KEYS = (
    ("stem", "conv1", "bn1"),
    *(
        (rf"stages\.{level}\.(\d+)\.{ours}", rf"layer{level + 1}.\1.{conv}", rf"layer{level + 1}.\1.{norm}")
        for level in range(4)
        for ours, conv, norm in (
            (r"conv(\d)", r"conv\2", r"bn\2"),
            ("shortcut", "downsample.0", "downsample.1"),
        )
    ),
)
"""Our modules -> convolution and batch norm of torchvision's ResNet, whose names most libraries kept."""


def fits(
    block: type[BasicBlock] | type[Bottleneck],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layers: Sequence[int],
    groups: int = 1,
    width_per_group: int = 64,
) -> bool:
    """Says whether a torch state dict's shapes are those of a ResNet, by its blocks and their inner width.

    Args:
      block: its block.
      shapes: torchvision's keys -> shapes.
      layers, groups, width_per_group: of the ResNet, as in `ResNetEncoder`.
    """
    names = {tuple(key.split(".")[:2]) for key in shapes if key.startswith("layer")}
    counts = [sum(stage == f"layer{number}" for stage, _ in names) for number in (1, 2, 3, 4)]
    width = width_per_group * groups
    return (
        counts == list(layers)
        and ("layer1.0.conv3.weight" in shapes) == (block is Bottleneck)
        and shapes.get("layer1.0.conv2.weight", ())[:2] == (width, width // groups)
    )


class ResNetEncoder(nnx.Module):
    """A ResNet without its classifier.

    Attributes:
      channels, strides: of the maps, finest first: the stem's, then one per stage.

    Args:
      block: `BasicBlock` or `Bottleneck`.
      in_channels: C of the image.
      layers: number of blocks in each of the four stages.
      groups, width_per_group: of the bottlenecks' 3x3 convolutions, as torchvision names them: more groups
        make a ResNeXt (Xie et al. 2017), a larger width a wide ResNet (Zagoruyko and Komodakis 2016).
      norm: "batch" or "group".
      dtype: of the computation; None means float32.
      rngs: the "params" stream initialises the weights as torchvision does.
    Source: He et al. 2015, with the stride on the 3x3 convolution; torchvision.models.resnet.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        in_channels: int = 3,
        *,
        layers: Sequence[int] = (2, 2, 2, 2),
        groups: int = 1,
        width_per_group: int = 64,
        norm: Norm = "batch",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.stem = ConvNorm(
            in_channels, 64, 7, 2, norm=norm, init=kaiming_normal_fan_out, dtype=dtype, rngs=rngs
        )
        inner = {} if block is BasicBlock else {"groups": groups, "width_per_group": width_per_group}
        self.stages = nnx.List()
        self.channels, self.strides = (64,), (2,)
        cin = 64
        for index, count in enumerate(layers):
            width, stage = 64 * 2**index, nnx.List()
            for position in range(count):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(block(cin, width, stride, **inner, norm=norm, dtype=dtype, rngs=rngs))
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

    def trace(self, ops: Operations[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        maps = [self.stem.trace(ops, image)]
        x = ops.stem_pool(maps[0])
        for stage in self.stages:
            for block in stage:
                x = block.trace(ops, x)
            maps.append(x)
        return maps

    def truncate(self, count: int) -> None:
        """Keeps the finest `count` maps and drops the stages behind them."""
        self.stages = nnx.List(list(self.stages)[: count - 1])
        self.channels, self.strides = self.channels[:count], self.strides[:count]
