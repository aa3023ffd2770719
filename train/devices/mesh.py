"""Makes the device mesh, and shards batches and parameters over it; no other module names an axis."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flaxunet.lookahead import lookahead
from train.config.settings import ConfigError, Devices

SMALLEST_SPLIT = 2**12  # elements; splitting a smaller array costs more communication than it saves memory


def make_mesh(settings: Devices, batch_size: int, parts: int = 1) -> Mesh:
    """Makes the ("data", "fsdp") mesh over the first devices; of several processes, over all their devices.

    Args:
      settings: the number of devices, by default as many as divide the batch, and --fsdp.
      batch_size: images per step.
      parts: of a batch, one after the other; each of them is divided over the devices.
    Raises: ConfigError if there are fewer devices, or if fsdp or the batch is not divisible.
    """
    devices, fsdp = settings.count, settings.fsdp
    present, processes = jax.devices(), jax.process_count()
    fitting = [n for n in range(1, len(present) + 1) if batch_size % (n * parts) == 0 and n % fsdp == 0]
    if processes > 1:
        fitting, each = [], Counter(device.process_index for device in present)
        if devices not in (None, len(present)):
            expected = f"{len(present)}, all of the {processes} processes"
            raise ConfigError(f"--devices is {devices}; expected {expected}")
        if len(set(each.values())) > 1:
            numbers = ", ".join(str(count) for _, count in sorted(each.items()))
            raise ConfigError(f"the processes have {numbers} devices; expected equal numbers")
    count = devices or max(fitting, default=len(present))
    if count > len(present):
        raise ConfigError(f"--devices is {count}; expected at most {len(present)} ({present[0].platform})")
    if count % fsdp:
        raise ConfigError(f"--fsdp is {fsdp}; expected a divisor of the {count} devices")
    if batch_size % (count * parts):
        each = f" times --accumulate {parts}" if parts > 1 else ""
        raise ConfigError(f"--batch-size is {batch_size}; expected a multiple of the {count} devices{each}")
    auto = (AxisType.Auto,) * 2  # under explicit axes a convolution with a split kernel raises
    return jax.make_mesh((count // fsdp, fsdp), ("data", "fsdp"), auto, devices=present[:count])


def batch(mesh: Mesh) -> NamedSharding:
    """Splits the rows of an array over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """Puts the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state(mesh: Mesh, abstract: Any) -> Any:
    """Chooses the shardings of a tree of parameters, statistics and optimizer state.

    A leaf of at least SMALLEST_SPLIT elements is split over "fsdp" along its longest divisible axis; all
    others are replicated.
    """
    parts = mesh.shape["fsdp"]

    def rule(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % parts == 0]
        if parts == 1 or math.prod(leaf.shape) < SMALLEST_SPLIT or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(rule, abstract)


def prefetch(
    mesh: Mesh, batches: Iterable[dict[str, np.ndarray]], ahead: int = 2, *, whole: bool = False
) -> Iterator[dict[str, jax.Array]]:
    """Yields batches on the devices, with the transfer of `ahead` further ones started; see `put`."""
    return lookahead((put(mesh, batch, whole=whole) for batch in batches), ahead)


def put(mesh: Mesh, tree: dict[str, np.ndarray], *, whole: bool = False) -> dict[str, jax.Array]:
    """Starts to transfer this process's rows of a batch to its devices; returns global arrays.

    Args:
      mesh: the devices.
      tree: arrays with the rows of this process.
      whole: whether they have the rows of all processes instead, of which each takes its own.
    """
    make = partial(jax.make_array_from_process_local_data, batch(mesh))
    return {name: make(array, array.shape if whole else None) for name, array in tree.items()}
