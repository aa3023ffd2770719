"""Compares what an exported file computes with the network that it was written from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy import special

from flaxunet import preprocessing
from flaxunet.prediction.predictor import Predictor

Run = Callable[[np.ndarray], np.ndarray]  # from images (B, H, W, C) float32 to probabilities (B, H, W, K)
# Batches, heights and widths: whole strides, odd on every level, and less than the deepest stride.
SIZES = ((2, 64, 96), (1, 75, 53), (1, 1, 1))
TOLERANCE = (
    1e-5  # of the logits' peak: float32 rounding through up to 160 layers: docs/explanation/numerics.md
)
ROUNDING = 5e-7  # of a probability: a few times float32's own, which some runtimes' sigmoids have everywhere


class ExportError(ValueError):
    """A file that cannot be made, or is not the network; its message is one line that names the file."""


def images(predictor: Predictor, seed: int = 0) -> list[np.ndarray]:
    """Random batches (B, H, W, C) float32 in the range that the predictor's intensity accepts."""
    rng = np.random.default_rng(seed)
    batches = [rng.random((*size, predictor.channels), np.float32) for size in SIZES]
    # Numbers of any range are numbers with an offset, and an image without any structure, too.
    if predictor.intensity != "dtype":
        batches = [200 * batch + 1000 for batch in batches]
        batches[0][1] = 7
    return batches


def compare(predictor: Predictor, run: Run, name: str) -> float:
    """The largest difference of a file's probabilities from the predictor's.

    A probability p may differ by what logits that differ by `TOLERANCE` of their peak make of it, at most
    2 p (1 - p) of that, and by `ROUNDING`: a network that is sure of itself is compared as closely as one
    that is not.

    Args:
      predictor: of one network.
      run, name: what the file computes, and its name for the message.
    Raises: ExportError if the difference is larger than rounding explains.
    """
    structure, state = nnx.split(predictor.models[0])

    def _logits(state: nnx.State, image: jax.Array) -> jax.Array:
        model = nnx.merge(structure, state)
        return model(model.normalize(image))

    worst = 0.0
    for batch in images(predictor):
        image = np.stack([preprocessing.normalize_intensity(each, predictor.intensity) for each in batch])
        logits = run_once(_logits, state, image)
        expected = special.expit(logits) if logits.shape[-1] == 1 else special.softmax(logits, axis=-1)
        result, size = run(batch), " x ".join(map(str, batch.shape))
        failure = f"{name} is not the network, and was removed: for {size}"
        if result.shape != expected.shape:
            raise ExportError(f"{failure} it gives {result.shape}, not {expected.shape}")
        allowed = 2 * TOLERANCE * np.abs(logits).max() * expected * (1 - expected) + ROUNDING
        difference = np.abs(result - expected)
        if not (difference <= allowed).all():
            at = (difference / allowed).argmax()
            differs = f"a probability differs by {difference.flat[at]:.1e}"
            raise ExportError(f"{failure} {differs}; expected at most {allowed.flat[at]:.1e}")
        worst = max(worst, float(difference.max()))
    return worst


def unguided(predictor: Predictor) -> Predictor:
    """The same network, with guidance, which now finds every class in every image, and hides nothing."""
    model = nnx.clone(predictor.models[0])
    bias = model.guidance.conv.bias  # pyright: ignore[reportOptionalMemberAccess]
    assert bias is not None  # the constructor makes it
    bias[...] = jnp.full_like(bias[...], 1e6)
    return dataclasses.replace(predictor, models=(model,))


def run_once(function: Callable[..., jax.Array], *arguments: Any) -> np.ndarray:
    """A function's result, on the CPU, where products are of full precision; compiled quickly."""
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        raise ExportError("files are checked on the CPU, which JAX_PLATFORMS leaves out") from None
    with jax.default_device(cpu):
        # Most of the time goes into compiling what runs once.
        quick: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
        return np.asarray(jax.jit(function).lower(*arguments).compile(compiler_options=quick)(*arguments))
