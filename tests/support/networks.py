"""Real networks with random numbers drawn on the host: initialising compiles for seconds, this does not."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxunet
from flaxunet.models import segmenter
from flaxunet.models.encoders.plain import PlainEncoder

RANGES = {"scale": (0.5, 1.0), "var": (0.8, 1.5)}  # biases and means lie around 0


def random_image(*shape):
    """float32 in [0, 1), the same at each call."""
    return np.random.default_rng(0).random(shape, np.float32)


def fill(abstract, seed=0):
    """The model of an eval_shape: weights that keep the signal's size, random statistics, real keys."""
    rng = np.random.default_rng(seed)
    graph, state = nnx.split(abstract)

    def value(path, leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(seed)
        if leaf.dtype != jnp.float32:
            return jnp.zeros(leaf.shape, leaf.dtype)
        names = {getattr(entry, "key", None) for entry in path}
        if "kernel" in names:
            scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return jnp.asarray(rng.normal(size=leaf.shape, scale=scale).astype(np.float32))
        low, high = (-0.2, 0.2)
        for name, limits in RANGES.items():
            low, high = limits if name in names else (low, high)
        return jnp.asarray(rng.uniform(low, high, leaf.shape).astype(np.float32))

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(value, state))


def _narrow_encoder(spec, **options):
    return PlainEncoder(spec.in_channels, (8, 16, 16), **options)


@contextlib.contextmanager
def shallow():
    """Meanwhile every encoder has three narrow levels, whatever its name: real networks that compile fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter, "build_encoder", _narrow_encoder)
        yield


@functools.cache
def _template(arch, encoder, options, build_encoder):
    """`build_encoder`, the one in force, is only there so that each has templates of its own."""
    with shallow() if encoder == "shallow" else contextlib.nullcontext():
        encoder = "plain" if encoder == "shallow" else encoder
        return fill(
            nnx.eval_shape(lambda: flaxunet.create(arch, encoder=encoder, rngs=nnx.Rngs(0), **dict(options)))
        )


def network(arch, encoder="resnet18", **options):
    """A segmenter in evaluation mode; encoder "shallow" is a plain one of three narrow levels."""
    model = nnx.clone(_template(arch, encoder, tuple(sorted(options.items())), segmenter.build_encoder))
    model.eval()
    return model
