"""UNet 3+ decoder: every node joins all scales. Huang et al. 2020."""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, MakeConv, Norm, max_pool
from flaxunet.models.operations import Operations, T
from flaxunet.ops.remat import run

BRANCH = 64  # channels of each branch of a node


def zju_branch(source: int, target: int) -> str:
    """The authors' name of the branch from scale `source` (1 is the finest) to decoder node `target`."""
    if source > target:
        return f"hd{source}_UT_hd{target}"
    return f"h{source}_{'Cat' if source == target else 'PT'}_hd{target}"


FLAXUNET_KEYS = ((r"(nodes\.\d\.(branches\.\d|fuse))", r"\1.0", r"\1.1"),)
"""Our modules -> convolution and batch norm of porting/torch_unet3plus.py."""
ZJU_KEYS = (
    *(
        (rf"nodes\.{i}\.branches\.{k}", f"{branch}_conv", f"{branch}_bn")
        for i in range(4)
        for k in range(5)
        for branch in [zju_branch(k + 1, i + 1)]
    ),
    *((rf"nodes\.{i}\.fuse", f"conv{i + 1}d_1", f"bn{i + 1}d_1") for i in range(4)),
)
"""Our modules -> convolution and batch norm of the network that the authors of UNet 3+ published."""


class FullScaleNode(nnx.Module):
    """Decoder node D_n: one 64-channel branch per scale, concatenated, then one more convolution.

    Branches come in the order of the paper's concatenation: map 1 .. map n, D_(n+1) .. D_5.

    Args:
      channels, strides: of the branches' inputs, and of the encoder's maps, finest first.
      level: n - 1, the index of the node's own scale, finest 0.
      conv: makes a `ConvNorm` of channels in and out.
    """

    remat = False

    def __init__(self, channels: Sequence[int], level: int, strides: Sequence[int], conv: MakeConv):
        self.branches = nnx.List([conv(cin, BRANCH) for cin in channels])
        self.fuse, self.level = conv(BRANCH * len(channels), BRANCH * len(channels)), level
        self.ratios = tuple(strides[level] // stride for stride in strides[: level + 1])

    def __call__(self, scales: Sequence[Array]) -> Array:
        """scales: maps 1 .. n and D_(n+1) .. D_5, finest first. Returns (B, H_n, W_n, 320)."""
        height, width = scales[self.level].shape[1:3]
        out = []
        for index, (branch, x) in enumerate(zip(self.branches, scales, strict=True)):
            if index > self.level:
                out.append(branch.resized(x, (height, width), "bilinear"))
            else:
                ratio = self.ratios[index]
                out.append(branch(max_pool(x, ratio, ratio, ceil_mode=True) if ratio > 1 else x))
        return self.fuse(jnp.concatenate(out, -1))

    def trace(self, ops: Operations[T], scales: Sequence[T]) -> T:
        """`__call__`, written in the operations of an export format."""
        here, out = scales[self.level], []
        for index, (branch, x) in enumerate(zip(self.branches, scales, strict=True)):
            if index > self.level:
                out.append(branch.trace_resized(ops, x, here, 2 ** (index - self.level), "bilinear"))
            else:
                ratio = self.ratios[index]
                out.append(branch.trace(ops, ops.pool(x, ratio, here) if ratio > 1 else x))
        return self.fuse.trace(ops, ops.concat(out))


class UNet3PlusDecoder(nnx.Module):
    """Nodes D4 .. D1, each over all five scales; `nodes[n - 1]` is D_n and D5 is the deepest map itself.

    Args:
      channels, strides: of the encoder's maps, finest first.
      norm, dtype, rngs: as in `ResNetEncoder`.
    Source: the paper. Branches that the paper upsamples and then convolves are computed the other way round
      (`flaxunet.ops.resize.resize_conv`), which gives the same numbers.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        norm: Norm = "batch",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        conv = partial(ConvNorm, norm=norm, dtype=dtype, rngs=rngs)
        depth, width = len(channels) - 1, BRANCH * len(channels)
        self.nodes = nnx.List()
        for level in range(depth):
            inputs = [*channels[: level + 1], *[width] * (depth - level - 1), channels[-1]]
            self.nodes.append(FullScaleNode(inputs, level, strides, conv))
        self.channels = (*[width] * depth, channels[-1])

    def __call__(self, maps: Sequence[Array], size: tuple[int, int] | None = None) -> tuple[Array, ...]:
        """Folds the encoder's maps to (D1, .., D4, D5); `size` is ignored: the logits of D1 are resized."""
        return tuple(self._maps(maps, run))

    def trace(self, ops: Operations[T], maps: Sequence[T], image: T) -> list[T]:
        """`__call__`, written in the operations of an export format."""
        return self._maps(maps, lambda node, scales: node.trace(ops, scales))

    def _maps(self, maps: Sequence[T], apply: Callable[[FullScaleNode, list[T]], T]) -> list[T]:
        decoded = [maps[-1]]
        for level, node in reversed(list(enumerate(self.nodes))):
            decoded.insert(0, apply(node, [*maps[: level + 1], *decoded]))
        return decoded
