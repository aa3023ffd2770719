"""Keeps networks on the devices, and computes the probabilities of batches of windows with them."""

import weakref
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from flaxunet.models.fold import fold
from flaxunet.models.segmenter import Segmenter

PIXELS = {"cpu": 2**18, "other": 2**21}  # pixels of a batch of windows on one device, by backend


class Network:
    """A segmenter that is uploaded once for each number of devices; equal ones share what is compiled."""

    def __init__(self, model: Segmenter):
        self.model = model
        self._graph, self._arrays = nnx.split(model)
        self._uploaded: dict[int, Any] = {}

    def __call__(self, x: jax.Array, devices: int) -> jax.Array:
        """Probabilities (B, h, w, K) of prepared windows (B, h, w, C) that lie on so many devices."""
        if devices not in self._uploaded:
            everywhere = _sharding(devices, PartitionSpec())
            self._uploaded[devices] = jax.device_put(nnx.to_pure_dict(self._arrays), everywhere)
        return _probabilities(self._graph, self._uploaded[devices], x)


Folded = tuple[Any, list[weakref.ref[Any]], Network]  # a model's structure and arrays; the folded network
_FOLDED: weakref.WeakKeyDictionary[Segmenter, Folded] = weakref.WeakKeyDictionary()


def folded(model: Segmenter) -> Network:
    """The network of a model's folded copy, the same one at every call until the model changes or is deleted.

    A model has changed if its structure or one of its arrays is another one than at the last call.
    """
    leaves, structure = jax.tree.flatten(model)
    if model in _FOLDED:
        former, arrays, network = _FOLDED[model]
        if former == structure and all(array() is leaf for array, leaf in zip(arrays, leaves, strict=True)):
            return network
    network = Network(fold(model))
    _FOLDED[model] = structure, [weakref.ref(leaf) for leaf in leaves], network
    return network


def compute(networks: Sequence[Network], x: np.ndarray) -> jax.Array:
    """The mean of networks' probabilities (B, h, w, K) of prepared windows (B, h, w, C), without waiting.

    Windows are spread over this process's devices, as far as B can be divided.
    """
    devices = min(len(x) & -len(x), device_count())
    on_devices = jax.device_put(x, _sharding(devices, PartitionSpec("batch")))
    results = [network(on_devices, devices) for network in networks]
    return results[0] if len(results) == 1 else _mean(tuple(results))


def default_batch(window: int) -> int:
    """As many windows of a side as have `PIXELS` together on each device, a power of two up to 16."""
    pixels = PIXELS["cpu" if jax.default_backend() == "cpu" else "other"]
    return device_count() << min(max(pixels // window**2, 1).bit_length() - 1, 4)


def device_count() -> int:
    """How many of this process's devices are used: the largest power of two."""
    return 1 << (jax.local_device_count().bit_length() - 1)


@cache
def _sharding(devices: int, spec: PartitionSpec) -> Sharding:
    """The layout of an array on the first devices."""
    return NamedSharding(Mesh(np.array(jax.local_devices()[:devices]), ("batch",)), spec)


@partial(jax.jit, static_argnums=0)
def _probabilities(graph: Any, arrays: Any, x: jax.Array) -> jax.Array:
    model = nnx.merge(graph, arrays)
    logits = model(model.normalize(x))
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits, axis=-1)


@jax.jit
def _mean(results: tuple[jax.Array, ...]) -> jax.Array:
    return sum(results[1:], jnp.asarray(results[0])) / len(results)
