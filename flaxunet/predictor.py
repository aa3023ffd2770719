"""Stored networks enter; a function from an image of any size to the probabilities of its classes leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxunet import intensity, store
from flaxunet.fold import fold
from flaxunet.segmenter import Segmenter
from flaxunet.store import StoreError


@dataclass(frozen=True)
class Predictor:
    """Networks that predict together.

    Attributes:
      models: segmenters in evaluation mode; of several the probabilities are averaged.
      classes: names, background first; two of them for one sigmoid channel.
      channels: C of the images.
      intensity: what `flaxunet.intensity.apply` is to make of an image.
    """

    models: tuple[Segmenter, ...]
    classes: tuple[str, ...]
    channels: int
    intensity: str

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Probabilities.

        Args:
          image: (H, W, C) float32 as `flaxunet.images.read_image` gives it; gray where the networks
            expect several equal channels.
        Returns: (H, W, K) float32; K = 1 is the probability of the foreground.
        Raises: ValueError for an image of other channels, or of a range that the intensity refuses.
        """
        if image.shape[-1] == 1:
            image = np.repeat(image, self.channels, axis=-1)
        if image.shape[-1] != self.channels:
            raise ValueError(f"{image.shape[-1]} channels; accepted are {self.channels}")
        x = jnp.asarray(intensity.apply(image, self.intensity))[None]
        return np.asarray(sum(_probabilities(model, x)[0] for model in self.models) / len(self.models))

    @staticmethod
    def labels(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
        """(H, W, K) to (H, W) int32: the most probable class; for K = 1, what is above the threshold."""
        if probabilities.shape[-1] == 1:
            return (probabilities[..., 0] > threshold).astype(np.int32)
        return probabilities.argmax(-1).astype(np.int32)


def load(folders: Sequence[str | Path]) -> Predictor:
    """A predictor of one stored network or of several that were trained for the same.

    Args:
      folders: each a run's folder, whose best network is meant, or what `flaxunet.save` made.
    Raises: StoreError if one cannot be used, or they do not belong together.
    """
    stored = [store.read(_network(Path(folder))) for folder in folders]
    for one in stored:
        if not one.spec.segments:
            raise StoreError(f"{one.folder} is {one.spec}; accepted is a whole segmenter")
    first = stored[0]
    names = (first.content.get("source") or {}).get("classes")
    usual = ["background", *(f"class {k}" for k in range(1, first.spec.classes))]
    usual = usual if first.spec.classes > 1 else ["background", "foreground"]
    return Predictor(
        tuple(fold(store.restore(one)) for one in stored),
        tuple(names or usual),
        first.spec.in_channels,
        first.spec.intensity,
    )


def _network(folder: Path) -> Path:
    """Where the network of a run or of a folder is."""
    return folder / "model" if (folder / "model" / store.CONFIG).is_file() else folder


@nnx.jit
def _probabilities(model: Segmenter, x: jax.Array) -> jax.Array:
    logits = model(model.normalize(x))
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits, axis=-1)
