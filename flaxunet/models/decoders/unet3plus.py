"""UNet 3+ decoder: every node sees every scale; and classification guidance. Huang et al. 2020."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from flaxunet.models.layers import ConvNorm, Norm, max_pool, xavier_uniform
from flaxunet.ops.remat import run

BRANCH = 64
SUPPRESSED = 20.0  # in logits: below 2e-9 in probability, and still harmless in bfloat16


class FullScaleNode(nnx.Module):
    """Decoder node D_n: one 64-channel branch per scale, concatenated, then one more convolution.

    Branches come in the order of the paper's concatenation: map 1 .. map n, D_(n+1) .. D_5.

    Args:
      channels: of the branches' inputs.
      level: n - 1, the index of the node's own scale, finest 0.
      strides: of the scales, finest first.
      norm, dtype, rngs: as in `ResNetEncoder`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        level: int,
        strides: Sequence[int],
        *,
        norm: Norm = "batch",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        conv = partial(ConvNorm, norm=norm, dtype=dtype, rngs=rngs)
        self.branches = nnx.List([conv(cin, BRANCH) for cin in channels])
        width = BRANCH * len(channels)
        self.fuse = conv(width, width)
        self.level = level
        self.remat = False
        self.ratios = tuple(strides[level] // stride for stride in strides[:level])

    def __call__(self, scales: Sequence[Array]) -> Array:
        """scales: maps 1 .. n and D_(n+1) .. D_5, finest first. Returns (B, H_n, W_n, 320)."""
        height, width = scales[self.level].shape[1:3]
        out = []
        for index, (branch, x) in enumerate(zip(self.branches, scales, strict=True)):
            if index < self.level:
                ratio = self.ratios[index]
                out.append(branch(max_pool(x, ratio, ratio, ceil_mode=True)))
            elif index == self.level:
                out.append(branch(x))
            else:
                out.append(branch.resized(x, (height, width), "bilinear"))
        return self.fuse(jnp.concatenate(out, -1))


class UNet3PlusDecoder(nnx.Module):
    """Nodes D4 .. D1, each over all five scales; `nodes[n - 1]` is D_n and D5 is the deepest map itself.

    Attributes:
      channels: of the maps returned: D1 .. D4, then D5.

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
        depth = len(channels) - 1
        width = BRANCH * len(channels)
        self.nodes = nnx.List()
        for level in range(depth):
            inputs = [*channels[: level + 1], *[width] * (depth - level - 1), channels[-1]]
            self.nodes.append(FullScaleNode(inputs, level, strides, norm=norm, dtype=dtype, rngs=rngs))
        self.channels = (*[width] * depth, channels[-1])

    def __call__(self, maps: Sequence[Array], size: tuple[int, int] | None = None) -> tuple[Array, ...]:
        """Folds the encoder's maps, finest first, to (D1, .., D4, D5).

        `size` is ignored: D1 stays at the finest map's size and its logits are resized.
        """
        decoded = [maps[-1]]
        for level, node in reversed(list(enumerate(self.nodes))):
            decoded.insert(0, run(node, [*maps[: level + 1], *decoded]))
        return tuple(decoded)


class Guidance(nnx.Module):
    """Says which foreground classes an image contains, from the deepest map: the paper's CGM, made trainable.

    Dropout 0.5, a 1x1 convolution to one channel per foreground class, the maximum over all pixels.
    """

    def __init__(self, cin: int, classes: int, *, rngs: nnx.Rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.conv = nnx.Conv(
            cin, max(classes - 1, 1), (1, 1), kernel_init=xavier_uniform, dtype=jnp.float32, rngs=rngs
        )

    def __call__(self, x: Array) -> Array:
        """(B, h, w, cin) to presence logits (B, classes - 1), or (B, 1) for one class; float32."""
        return self.conv(self.dropout(x.astype(jnp.float32))).max((1, 2))


def suppress_absent(logits: Array, presence: Array) -> Array:
    """Removes classes whose presence probability is below 0.5 from the prediction.

    Args:
      logits: (B, H, W, K) float32.
      presence: (B, K - 1) logits, one per foreground class; (B, 1) if K = 1.
    Returns: logits of the same shape; those of an absent class lie `SUPPRESSED` below every other class's
      (K >= 2) or at most at -`SUPPRESSED` (K = 1).
    """
    absent = (presence < 0)[:, None, None, :]
    if logits.shape[-1] == 1:
        return jnp.where(absent, jnp.minimum(logits, -SUPPRESSED), logits)
    low = logits.min(-1, keepdims=True) - SUPPRESSED
    background, foreground = logits[..., :1], logits[..., 1:]
    return jnp.concatenate([background, jnp.where(absent, low, foreground)], -1)
