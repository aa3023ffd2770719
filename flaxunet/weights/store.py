"""Saves and loads networks: model.safetensors has the arrays, config.json the network. No pickle, no torch.

The arrays carry our own dotted paths ("encoder.stem.conv.kernel") and layouts (HWIO kernels), all float32.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jax.typing import DTypeLike
from safetensors import SafetensorError

from flaxunet.files import first_line, whole_folder, write_json
from flaxunet.models.segmenter import build, build_encoder
from flaxunet.models.spec import Spec, over_channels

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
CONTENT = nnx.Any(nnx.Param, nnx.BatchStat)

Tensors = dict[str, np.ndarray]


class StoreError(ValueError):
    """A stored network that cannot be used; its message is one line that names the file."""


@dataclass(frozen=True)
class Stored:
    """What a folder holds.

    Attributes:
      folder, spec: where it was read, and of the network.
      tensors, content: dotted path to float32 array; the whole of config.json.
    """

    folder: Path
    spec: Spec
    tensors: Tensors
    content: dict[str, Any]

    def normalisation(
        self, channels: int, intensity: str = "dtype"
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of the images it expects, for an image of another number of channels if need be.

        Empty, for the usual ones, where either has z-scores and the other has not: their units differ.
        """
        if (self.spec.intensity == "zscore") != (intensity == "zscore"):
            return (), ()
        return over_channels(self.spec.mean, channels), over_channels(self.spec.std, channels)


def save(
    model: nnx.Module,
    folder: str | Path,
    *,
    spec: Spec | None = None,
    source: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> None:
    """Writes a network, whole or not at all.

    Args:
      model: a segmenter, or an encoder with its spec.
      folder: a new one; its parent is made too. With `replace` it may hold a stored network.
      spec: of the network; that which the segmenter was built from, if left out.
      source: where the numbers are from, for config.json.
    Raises: StoreError if the folder exists and must not be replaced, or cannot be written; ValueError if the
      network has no spec.
    """
    spec = spec or getattr(model, "spec", None)
    if spec is None:
        raise ValueError("the network was not built from a spec; expected what flaxunet.create makes")
    target = Path(folder).absolute()
    if target.exists() and not (replace and (target / CONFIG).is_file()):
        raise StoreError(f"{folder} exists; expected a new folder")
    try:
        with whole_folder(target, replace=replace) as part:
            arrays = {path: np.asarray(leaf[...]) for path, leaf in leaves(model).items()}
            (part / WEIGHTS).write_bytes(safetensors.numpy.save(arrays, {"format": "flaxunet"}))
            fields = dataclasses.asdict(spec)
            alone = ("arch", "encoder", "in_channels", "norm", "mean", "std", "intensity")
            content = {
                "format": FORMAT,
                "model": fields if spec.segments else {name: fields[name] for name in alone},
                "weights": {"file": WEIGHTS, "sha256": _sha256(part / WEIGHTS)},
                "source": None if source is None else dict(source),
                "versions": {name: importlib.metadata.version(name) for name in ("flaxunet", "jax", "flax")},
            }
            write_json(part / CONFIG, content)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def read(folder: str | Path) -> Stored:
    """Reads a stored network and checks it against its own sha256.

    Raises: StoreError if it holds no stored network, one of another format, or a damaged one.
    """
    folder = Path(folder)
    weights = folder / WEIGHTS
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            advice = " (RUN/model of a finished run)" if (folder / "model" / CONFIG).is_file() else ""
            makers = "flaxunet.save, a run or python -m porting to-flax"
            raise StoreError(f"{folder} holds no {name}; expected a folder that {makers} made{advice}")
    spec, content = describe(folder / CONFIG)
    try:
        if _sha256(weights) != content["weights"]["sha256"]:
            raise StoreError(f"{weights} is damaged: its sha256 is not the one in {CONFIG}")
        tensors = safetensors.numpy.load_file(weights)
    except (OSError, SafetensorError, KeyError) as error:
        raise StoreError(f"{weights} cannot be read: {first_line(error)}") from None
    return Stored(folder, spec, tensors, content)


def describe(config: Path) -> tuple[Spec, dict[str, Any]]:
    """Reads a config.json: the network that lies beside it, and the whole content.

    Raises: StoreError if it is of another format, or says nothing of a network and of its weights.
    """
    try:
        content = json.loads(config.read_text())
        if content["format"] != FORMAT:
            raise StoreError(f"{config} is of format {content['format']!r}; expected {FORMAT}")
        spec, _ = Spec(**content["model"]), content["weights"]["sha256"]
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise StoreError(f"{config} does not describe a network: {first_line(error)}") from None
    return spec, content


def network_folder(folder: str | Path) -> Path:
    """Finds the folder of a network in a run, or the folder itself; `read` says whether a network is there.

    Raises: StoreError for a run that has none yet.
    """
    folder = Path(folder)
    if (folder / "checkpoints").is_dir() and not (folder / "model").exists():
        expected = f"expected one that is done, as after python -m train --resume {folder}"
        raise StoreError(f"{folder} is a run that has not stored its best network in model/ yet; {expected}")
    return folder / "model" if (folder / "model" / CONFIG).is_file() else folder


def load(folder: str | Path, *, dtype: DTypeLike | None = None) -> Any:
    """Loads a stored network, in evaluation mode.

    Args:
      folder: what `save` or `python -m porting to-flax` made.
      dtype: of the computation, e.g. jnp.bfloat16; None means float32.
    Returns: a `Segmenter`; a `ResNetEncoder` or `PlainEncoder` where the folder holds an encoder alone.
    Raises: StoreError if the folder cannot be used.
    """
    return restore(read(folder), dtype=dtype)


def restore(stored: Stored, *, dtype: DTypeLike | None = None) -> Any:
    """Builds the network of a `Stored`, in evaluation mode; as `load`."""
    config = stored.folder / CONFIG
    try:
        model = abstract(stored.spec, dtype=dtype)
    except ValueError as error:  # a level to which this network cannot be pruned
        raise StoreError(f"{config} does not describe a network: {first_line(error)}") from None
    check_fit(stored, leaves(model), stored.tensors)
    fill(model, stored.tensors)
    _start_streams(model)
    model.eval()
    return model


def abstract(spec: Spec, *, dtype: DTypeLike | None = None) -> Any:
    """Builds the network of a spec without its numbers: shapes and dtypes only."""
    make = build if spec.segments else build_encoder
    return nnx.eval_shape(lambda: make(spec, dtype=dtype, rngs=nnx.Rngs(0)))


def leaves(model: nnx.Module) -> dict[str, nnx.Variable]:
    """Lists parameters and batch statistics by dotted path: what a file holds."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(model, CONTENT))}


def fill(model: nnx.Module, tensors: Mapping[str, np.ndarray]) -> None:
    """Fills some paths of a model, abstract or not, in place."""
    paths = {path: ".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, CONTENT))}
    arrays = {path: jnp.asarray(tensors[name]) for path, name in paths.items() if name in tensors}
    nnx.update(model, nnx.from_flat_state(arrays))


def check_fit(stored: Stored, expected: Mapping[str, Any], tensors: Tensors) -> None:
    """Raises StoreError that lists every array that is missing, misshapen, of another dtype or left over."""
    problems = [f"missing {path}" for path in expected.keys() - tensors.keys()]
    for path, x in tensors.items():
        if path not in expected:
            problems.append(f"unused {path}")
        elif x.shape != expected[path].shape or x.dtype != np.float32:
            problems.append(f"{path} is {x.dtype}{list(x.shape)}, not float32{list(expected[path].shape)}")
    if problems:
        raise StoreError(f"{stored.folder / WEIGHTS} is not {stored.spec}: " + "; ".join(sorted(problems)))


def _start_streams(model: nnx.Module) -> None:
    """Gives an abstract model's random streams keys; parameters and statistics have theirs."""
    random = nnx.state(model, nnx.RngState)
    streams = iter(range(len(jax.tree.leaves(random))))

    def start(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(next(streams))
        return jnp.zeros(leaf.shape, leaf.dtype)

    nnx.update(model, jax.tree.map(start, random))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
