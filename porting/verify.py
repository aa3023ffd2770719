"""Compares each stage of our network with torch's on the same images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxunet.files import write_json
from porting.peers import numbered


@dataclass(frozen=True)
class Stage:
    """A stage compared."""

    name: str
    shape: tuple[int, ...]  # (B, h, w, channels)
    error: float  # largest absolute difference
    relative: float  # error over the largest absolute value of torch's array

    def within(self, tolerance: float) -> bool:
        """Whether the difference is small enough; one that is no number is not."""
        return self.relative <= tolerance


def images(channels: int, sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[np.ndarray]:
    """Two random normalised images of each size, (2, H, W, C) float32."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(2, *size, channels)).astype(np.float32) for size in sizes]


def stages(model: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    """Runs one of our networks on an image, stage by stage, with the names of `porting.peers.stages`.

    Args:
      model: a segmenter or an encoder, in evaluation mode.
      image: (B, H, W, C) float32.
    Returns: arrays (B, h, w, channels), float32. Matrix products are of full precision on every device.
    """
    with jax.default_matmul_precision("highest"):
        arrays = _run(model, image)
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


@nnx.jit
def _run(model: Any, image: np.ndarray) -> dict[str, jax.Array]:
    if not hasattr(model, "decoder"):
        return numbered("encoder", model(image))
    maps = model.encoder(image)
    decoded = {"decoder": model.decoder(maps, image.shape[1:3])[0]}
    heads = numbered("head", model.outputs(image).logits)
    return numbered("encoder", maps) | decoded | heads | {"logits": model(image)}


def compare(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> list[Stage]:
    """Compares the stages that both have, in torch's order.

    Raises: ValueError if a stage has two shapes.
    """
    out = []
    for name, expected in theirs.items():
        if name not in ours:
            continue
        if ours[name].shape != expected.shape:
            raise ValueError(f"{name} has shape {ours[name].shape}, torch's has {expected.shape}")
        error = float(np.abs(ours[name] - expected).max())
        out.append(Stage(name, expected.shape, error, error / max(float(np.abs(expected).max()), 1e-30)))
    return out


def write(path: Path, stages: Sequence[Stage], tolerance: float, about: dict[str, Any]) -> bool:
    """Writes parity.json: every stage, the tolerance, the verdict, what was compared; returns the verdict."""
    passed = all(stage.within(tolerance) for stage in stages)
    rows = [{**asdict(stage), "passed": stage.within(tolerance)} for stage in stages]
    write_json(path, {**about, "tolerance": tolerance, "passed": passed, "stages": rows})
    return passed
