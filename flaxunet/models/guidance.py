"""Classification guidance: removes classes that an image does not contain from its prediction."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from flaxunet.models.layers import array, xavier_uniform
from flaxunet.models.operations import Operations, T

SUPPRESSED = 20.0  # logits below every other class's: below 2e-9 in probability, safe in bfloat16


class Guidance(nnx.Module):
    """Predicts from the deepest map which foreground classes an image contains: the paper's CGM, trainable.

    Dropout 0.5, a 1x1 convolution to one channel per foreground class, the maximum over all pixels.

    Args:
      cin, classes: channels of the deepest map and of the logits.
      rngs: streams "params" and "dropout".
    Source: Huang et al. 2020, UNet 3+. The authors' code gates with an argmax, which has no gradient.
    """

    def __init__(self, cin: int, classes: int, *, rngs: nnx.Rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        present, init = max(classes - 1, 1), xavier_uniform
        self.conv = nnx.Conv(cin, present, (1, 1), kernel_init=init, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, h, w, cin) to presence logits (B, classes - 1), or (B, 1) for one class; float32."""
        return self.conv(self.dropout(x.astype(jnp.float32))).max((1, 2))

    def trace(self, ops: Operations[T], x: T) -> T:
        """The presence logits as a map of one pixel, written in the operations of an export format."""
        return ops.global_max(ops.conv(x, array(self.conv.kernel), array(self.conv.bias)))


def suppress_absent(logits: Array, presence: Array) -> Array:
    """Removes classes whose presence probability is below 0.5 from the prediction.

    Args:
      logits, presence: (B, H, W, K) and (B, K - 1), one per foreground class; (B, 1) if K = 1.
    Returns: logits of the same shape; those of an absent class lie `SUPPRESSED` below every other class's
      (K >= 2) or at most at -`SUPPRESSED` (K = 1).
    """
    absent = (presence < 0)[:, None, None, :]
    if logits.shape[-1] == 1:
        return jnp.where(absent, jnp.minimum(logits, -SUPPRESSED), logits)
    low = logits.min(-1, keepdims=True) - SUPPRESSED
    background, foreground = logits[..., :1], logits[..., 1:]
    return jnp.concatenate([background, jnp.where(absent, low, foreground)], -1)
