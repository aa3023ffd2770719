"""A network for prediction: batch norms disappear into the convolutions before them."""

from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxunet.models.layers import BatchNorm, ConvNorm, Shift, array
from flaxunet.models.segmenter import Segmenter

Model = TypeVar("Model", bound=nnx.Module)


def fold(model: Model) -> Model:
    """A copy whose batch norms are folded into their convolutions: the same predictions for less work.

    y = (conv(x) - mean) * scale / sqrt(var + epsilon) + bias is another convolution, and a shift.

    Args:
      model: a segmenter or an encoder; group norms stay as they are, because they look at the image.
    Returns: the copy, in evaluation mode. It cannot be trained further in any useful way, nor stored.
    """
    folded = nnx.clone(model)
    for _, module in nnx.iter_modules(folded):
        if isinstance(module, ConvNorm) and isinstance(module.norm, BatchNorm):
            norm, kernel = module.norm, module.conv.kernel
            # On the host: on a device each shape of each operation would be compiled.
            scale, bias, mean, var, weights = map(array, (norm.scale, norm.bias, norm.mean, norm.var, kernel))
            scale = scale / np.sqrt(var + np.float32(norm.epsilon))
            kernel[...] = jnp.asarray(weights * scale.reshape(1, 1, 1, -1))
            module.norm = Shift(jnp.asarray(bias - mean * scale))
    folded.eval()
    if isinstance(folded, Segmenter):
        folded.spec = None  # it says what is stored, and this is another network
    return folded
