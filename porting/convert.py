"""Converts torch's state dicts to the arrays of our models and back, with nothing missing or left over."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from porting.keymap import dialect_named, torch_key

Model = TypeVar("Model", bound=nnx.Module)
Path = tuple[Any, ...]
COUNTER = "num_batches_tracked"  # the updates of torch's batch norms, which nobody reads


def load(model: Model, state_dict: Mapping[str, np.ndarray], dialect: str) -> Model:
    """Fills a model, in place, from torch's numbers.

    A bias that torch adds before a batch norm is subtracted from the running mean: the same in evaluation.

    Args:
      model: any of our modules that the dialect can hold.
      state_dict: torch keys to float32 arrays in torch's layout. What `dropped` lists is left out.
      dialect: a name in `porting.keymap.DIALECTS`.
    Returns: the same model.
    Raises: ValueError if the dialect cannot hold the model, or that counts and lists all missing, misshapen
      and unused entries; the model is then untouched.
    """
    leaves, keys = _leaves(model), _keys(model, dialect)
    biases = _biases(keys, dialect)
    shapes = {key: to_torch_layout(np.empty(leaves[path].shape, bool)).shape for path, key in keys.items()}
    shapes |= {bias: shapes[mean] for mean, bias in biases.items()}
    ignored = dropped(state_dict, dialect)
    given = {key: np.asarray(value) for key, value in state_dict.items() if key not in ignored}
    given = {key: array for key, array in given.items() if not key.endswith(COUNTER)}
    problems: dict[str, list[str]] = {"missing": [], "misshapen": []}
    for key, shape in shapes.items():
        if (array := given.get(key)) is None:
            problems["missing"].append(f"{key} {shape}")
        elif (array.shape, array.dtype) != (shape, np.float32):
            problems["misshapen"].append(f"{key} is {array.dtype} {array.shape}, not float32 {shape}")
    problems["unused"] = [key for key in given if key not in shapes]
    listed = [f"{len(keys)} {what}: {', '.join(sorted(keys))}" for what, keys in problems.items() if keys]
    if listed:
        raise ValueError(f"the weights do not fit {dialect}: {'; '.join(listed)}")
    for mean, bias in biases.items():
        given[mean] = given[mean] - given[bias]
    # Copies, since torch's arrays may change later; contiguous, or JAX compiles a program for each shape.
    arrays = {path: jnp.array(np.ascontiguousarray(to_flax_layout(given[key]))) for path, key in keys.items()}
    nnx.update(model, nnx.from_flat_state(arrays))
    return model


def export(model: nnx.Module, dialect: str) -> dict[str, np.ndarray]:
    """Converts a model's numbers to a state dict that torch loads with `strict=True`.

    Args:
      model: any of our modules that the dialect can hold.
      dialect: a name in `porting.keymap.DIALECTS`.
    Returns: torch keys to float32 arrays in torch's layout, with zeros for biases that only torch has; and
      int64 zeros for the batch norms' counters.
    Raises: ValueError if the dialect cannot hold the model.
    """
    leaves, keys = _leaves(model), _keys(model, dialect)
    arrays = {key: np.asarray(leaves[path][...]) for path, key in keys.items()}
    # A copy, since torch refuses to share JAX's memory, which is read-only.
    state = {key: np.array(to_torch_layout(array), order="C") for key, array in arrays.items()}
    state |= {bias: np.zeros_like(state[mean]) for mean, bias in _biases(keys, dialect).items()}
    means = [key for key in state if key.endswith(".running_mean")]
    return state | {key.replace("running_mean", COUNTER): np.zeros((), np.int64) for key in means}


def dropped(state_dict: Iterable[str], dialect: str) -> list[str]:
    """Lists the keys that `load` leaves out: classifiers of whole images, which our networks lack."""
    return sorted(key for key in state_dict if key.startswith(dialect_named(dialect).drops))


def to_torch_layout(array: np.ndarray) -> np.ndarray:
    """HWIO kernels to OIHW; everything else as it is."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def to_flax_layout(array: np.ndarray) -> np.ndarray:
    """OIHW kernels to HWIO; everything else as it is."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _leaves(model: nnx.Module) -> dict[Path, nnx.Variable]:
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    return {tuple(path): leaf for path, leaf in nnx.to_flat_state(state)}


def _keys(model: nnx.Module, dialect: str) -> dict[Path, str]:
    """Each leaf's torch key, once it is clear that the dialect can hold the model."""
    keys, family = {path: torch_key(path, dialect) for path in _leaves(model)}, dialect_named(dialect)
    if family.needs not in keys.values():
        raise ValueError(f"{dialect} needs {family.needs}, which this model lacks; it holds {family.holds}")
    return keys


def _biases(keys: Mapping[Path, str], dialect: str) -> dict[str, str]:
    """From each running mean to the bias before it, where torch has one and we have none."""
    means = {key: path for path, key in keys.items() if path[-1] == "mean" and dialect_named(dialect).biased}
    return {key: torch_key((*path[:-2], "conv", "bias"), dialect) for key, path in means.items()}
