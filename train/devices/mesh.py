"""The mesh, how a batch lies on it, and how a parameter does. Sharding is spelled nowhere else."""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.config.settings import ConfigError, Devices

SMALLEST_SPLIT = 2**12  # elements; splitting less costs more in messages than it saves in memory


def make_mesh(settings: Devices, batch_size: int, parts: int = 1) -> Mesh:
    """The ("data", "fsdp") mesh over the first devices: as many as asked, or as divide the batch.

    Several processes take all their devices. Of a batch in `parts`, each part divides over the devices.

    Raises: ConfigError if there are not that many, or if they do not divide by fsdp or into the batch.
    """
    devices, fsdp = settings.count, settings.fsdp
    present, processes = jax.devices(), jax.process_count()
    fitting = [n for n in range(1, len(present) + 1) if batch_size % (n * parts) == 0 and n % fsdp == 0]
    if processes > 1:
        fitting, each = [], Counter(device.process_index for device in present)
        if devices not in (None, len(present)):
            raise ConfigError(f"--devices is {devices}; the {processes} processes have {len(present)}")
        if len(set(each.values())) > 1:
            numbers = ", ".join(str(each[process]) for process in sorted(each))
            raise ConfigError(f"the processes have {numbers} devices; accepted are equal numbers")
    count = devices or max(fitting, default=len(present))
    if count > len(present):
        raise ConfigError(f"--devices is {count}; this machine has {len(present)} ({present[0].platform})")
    if count % fsdp:
        raise ConfigError(f"--fsdp is {fsdp}; accepted are divisors of the {count} devices")
    if batch_size % (count * parts):
        each = f" times --accumulate {parts}" if parts > 1 else ""
        raise ConfigError(
            f"--batch-size is {batch_size}; accepted are multiples of the {count} devices{each}"
        )
    # Auto axes: under explicit ones a convolution with a split kernel raises.
    return jax.make_mesh(
        (count // fsdp, fsdp), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=present[:count]
    )


def batch(mesh: Mesh) -> NamedSharding:
    """Images are split over all devices, whatever else those hold."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state(mesh: Mesh, abstract: Any) -> Any:
    """Shardings of a tree of parameters, statistics and optimizer state.

    A leaf of `SMALLEST_SPLIT` elements or more is split over "fsdp" along its longest axis that divides;
    everything else is replicated.
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
    """Keeps `ahead` batches on their way to the devices; see `put`."""
    waiting: deque[dict[str, jax.Array]] = deque()
    for batch in batches:
        waiting.append(put(mesh, batch, whole=whole))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def put(mesh: Mesh, tree: dict[str, np.ndarray], *, whole: bool = False) -> dict[str, jax.Array]:
    """Puts this process's part of a batch on its devices; returns at once, with global arrays.

    Args:
      mesh: the devices.
      tree: arrays of this process's rows.
      whole: whether they are those of all processes, which takes its own of them.
    """
    rows = batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(rows, array, array.shape if whole else None)
        for name, array in tree.items()
    }
