"""ResNet encoders: five maps of strides 2 to 32. He et al. 2015."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, MakeConv, Norm, kaiming_normal_fan_out, max_pool
from flaxunet.models.operations import Operations, T
from flaxunet.ops.remat import run


class Residual(nnx.Module):
    """Convolutions and a shortcut around them; `convs` names their attributes, in order."""

    convs: tuple[str, ...] = ("conv1", "conv2")
    expansion = 1
    shortcut: ConvNorm | None
    remat = False

    def __call__(self, x: Array) -> Array:
        """(B, H, W, cin) to (B, ceil(H / stride), ceil(W / stride), cout): the sum of both, then ReLU."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return nnx.relu(reduce(lambda x, name: getattr(self, name)(x), self.convs, x) + shortcut)

    def trace(self, ops: Operations[T], x: T) -> T:
        """`__call__`, written in the operations of an export format."""
        shortcut = x if self.shortcut is None else self.shortcut.trace(ops, x)
        residual = reduce(lambda x, name: getattr(self, name).trace(ops, x), self.convs, x)
        return ops.relu(ops.add(residual, shortcut))


class BasicBlock(Residual):
    """Two 3x3 convolutions, the first of which strides."""

    def __init__(self, cin: int, width: int, stride: int, conv: MakeConv):
        self.conv1 = conv(cin, width, 3, stride)
        self.conv2 = conv(width, width, 3, relu=False)
        self.shortcut = conv(cin, width, 1, stride, relu=False) if stride > 1 or cin != width else None


class Bottleneck(Residual):
    """1x1, 3x3 (which strides, in groups for a ResNeXt), 1x1 to 4 * width channels."""

    convs = ("conv1", "conv2", "conv3")
    expansion = 4

    def __init__(self, cin: int, width: int, stride: int, conv: MakeConv, groups: int, width_per_group: int):
        inner, cout = width * width_per_group // 64 * groups, width * self.expansion
        self.conv1 = conv(cin, inner, 1)
        self.conv2 = conv(inner, inner, 3, stride, groups=groups)
        self.conv3 = conv(inner, cout, 1, relu=False)
        self.shortcut = conv(cin, cout, 1, stride, relu=False) if stride > 1 or cin != cout else None


_BLOCK_KEYS = ((r"conv(\d)", r"conv\2", r"bn\2"), ("shortcut", "downsample.0", "downsample.1"))
TORCH_KEYS = (
    ("stem", "conv1", "bn1"),
    *(
        (rf"stages\.{level}\.(\d+)\.{ours}", rf"layer{level + 1}.\1.{conv}", rf"layer{level + 1}.\1.{norm}")
        for level in range(4)
        for ours, conv, norm in _BLOCK_KEYS
    ),
)
"""Our modules -> convolution and batch norm of torchvision's ResNet, whose names most libraries kept."""


def fits(
    block: type[Residual],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layers: Sequence[int],
    groups: int,
    width_per_group: int,
) -> bool:
    """Says whether a torch state dict's shapes are those of a ResNet, by its blocks and their inner width.

    Args:
      shapes: torchvision's keys -> shapes.
      block, layers, groups, width_per_group: of the ResNet, as in `ResNetEncoder`.
    """
    names = {tuple(key.split(".")[:2]) for key in shapes if key.startswith("layer")}
    counts = [sum(stage == f"layer{number}" for stage, _ in names) for number in (1, 2, 3, 4)]
    width = width_per_group * groups
    deep, inner = "layer1.0.conv3.weight" in shapes, shapes.get("layer1.0.conv2.weight", ())[:2]
    return (counts, deep, inner) == (list(layers), block is Bottleneck, (width, width // groups))


class ResNetEncoder(nnx.Module):
    """A ResNet without its classifier; its maps are the stem's, then one per stage.

    Args:
      block, in_channels: `BasicBlock` or `Bottleneck`, and C of the image.
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
        block: type[BasicBlock | Bottleneck],
        in_channels: int = 3,
        *,
        layers: Sequence[int] = (2, 2, 2, 2),
        groups: int = 1,
        width_per_group: int = 64,
        norm: Norm = "batch",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        conv = partial(ConvNorm, norm=norm, init=kaiming_normal_fan_out, dtype=dtype, rngs=rngs)
        self.stem = conv(in_channels, 64, 7, 2)
        inner = {} if block is BasicBlock else {"groups": groups, "width_per_group": width_per_group}
        self.stages, cin = nnx.List(), 64
        self.channels, self.strides = (64,), (2,)
        for index, count in enumerate(layers):
            width, stage = 64 * 2**index, nnx.List()
            for position in range(count):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(block(cin, width, stride, conv, **inner))
                cin = width * block.expansion
            self.stages.append(stage)
            self.channels += (cin,)
            self.strides += (4 * 2**index,)

    def __call__(self, image: Array) -> tuple[Array, ...]:
        """(B, H, W, in_channels) to maps (B, ceil(H / stride), ceil(W / stride), channels), finest first."""
        pool = partial(max_pool, window=3, stride=2, padding=1)
        return tuple(self._maps(self.stem(image), pool, run))

    def trace(self, ops: Operations[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        return self._maps(self.stem.trace(ops, image), ops.stem_pool, lambda block, x: block.trace(ops, x))

    def _maps(self, stem: T, pool: Callable[[T], T], apply: Callable[[Residual, T], T]) -> list[T]:
        maps, x = [stem], pool(stem)
        for stage in self.stages:
            for block in stage:
                x = apply(block, x)
            maps.append(x)
        return maps

    def truncate(self, count: int) -> None:
        """Keeps the finest `count` maps and drops the stages behind them."""
        self.stages = nnx.List(list(self.stages)[: count - 1])
        self.channels, self.strides = self.channels[:count], self.strides[:count]
