"""Stored networks enter; a function from an image of any size to the probabilities of its classes leaves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from flaxunet import labels as targets
from flaxunet import preprocessing
from flaxunet import preprocessing as intensities
from flaxunet.labels import PALETTE, Color
from flaxunet.models.fold import fold as folded
from flaxunet.models.segmenter import Segmenter
from flaxunet.prediction import tiling
from flaxunet.prediction.tiling import Tiling
from flaxunet.weights import store
from flaxunet.weights.store import Stored, StoreError

Scaled = Callable[[np.ndarray, str], np.ndarray]
"""What an intensity, by its name, makes of an image (H, W, C)."""
PIXELS = {"cpu": 2**18, "other": 2**21}
"""Of a batch of windows on one device, by backend: docs/explanation/tiling.md."""


@dataclass(frozen=True)
class Predictor:
    """Networks that predict together.

    Attributes:
      models: segmenters in evaluation mode; of several the probabilities are averaged.
      classes: names, background first; two of them for one sigmoid channel.
      channels: C of the images.
      intensity: what `flaxunet.preprocessing.apply` is to make of an image.
      side: pixels of the longer side that every image is resized to before the networks see it, as they were
        trained; None leaves images as they are.
      axis: of the slices of volumes that they were trained on; None if that were pictures.
      colors: of the labels from 1 on, as the masks had them that they were trained on.
      tiling: windows, blending and test-time augmentation.
    """

    models: tuple[Segmenter, ...]
    classes: tuple[str, ...]
    channels: int
    intensity: str
    side: int | None = None
    tiling: Tiling = field(default_factory=Tiling)
    axis: str | None = None
    colors: tuple[Color, ...] = PALETTE

    def __call__(self, image: np.ndarray, scaled: Scaled = intensities.apply) -> np.ndarray:
        """Probabilities.

        Args:
          image: (H, W, C) float32 as `flaxunet.io.images.read_image` gives it, or several of one size
            (N, H, W, C), whose windows share batches; or gray where the networks expect RGB.
          scaled: stands in for `flaxunet.preprocessing.apply` where the image is a part of a larger one.
        Returns: (H, W, K), or (N, H, W, K), float32 in [0, 1]; K = 1 is the probability of the foreground.
        Raises: ValueError for an image of other channels, or of a range that the intensity refuses.
        """
        return self._resized(image, lambda x: tiling.predict(self.windows, x, self.tiling), scaled)

    def whole(
        self, image: np.ndarray, frame: tuple[int, int], scaled: Scaled = intensities.apply
    ) -> np.ndarray:
        """The same without windows: the image in the corner of a frame of zeros, as training evaluates.

        Each frame is compiled for itself, and a large one takes much memory.

        Args:
          image, scaled: as of calling.
          frame: (H, W) that hold the image, after it was resized to `side`.
        Returns: (H, W, K) float32 in [0, 1] of the image.
        """

        def predict(x: np.ndarray) -> np.ndarray:
            height, width = x.shape[:2]
            framed = np.zeros((*frame, x.shape[-1]), np.float32)
            framed[:height, :width] = x
            return tiling.whole(self.windows, framed, self.tiling.tta)[:height, :width]

        return self._resized(image, predict, scaled)

    def seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) in which the networks see an image of a size."""
        return size if self.side is None else preprocessing.fitted(size, self.side)

    @property
    def outputs(self) -> int:
        """K of the probabilities."""
        return self.models[0].heads[0].out_features

    def prepared(self, image: np.ndarray, scaled: Scaled = intensities.apply) -> np.ndarray:
        """(H, W, C) after channels and intensity, as the networks expect it; errors as of calling."""
        return self.over_channels(scaled(image, self.intensity))

    def over_channels(self, image: np.ndarray) -> np.ndarray:
        """(..., C) with the networks' channels: gray becomes RGB, as in training. ValueError for others."""
        if image.shape[-1] == 1 and self.channels == 3:
            return np.broadcast_to(image, (*image.shape[:-1], self.channels))
        if image.shape[-1] != self.channels:
            accepted = f"{self.channels} or 1" if self.channels == 3 else self.channels
            raise ValueError(f"{image.shape[-1]} channels; accepted are {accepted}")
        return image

    def windows(self, x: np.ndarray) -> jax.Array:
        """Probabilities (B, h, w, K) of windows (B, h, w, C), after the intensity; still being computed.

        They are spread over this process's devices, as far as B can be divided.
        """
        count = min(len(x) & -len(x), _devices())
        if count not in self._parts:
            everywhere = _over(count, PartitionSpec())
            self._parts[count] = [
                (graph, jax.device_put(nnx.to_pure_dict(arrays), everywhere))
                for graph, arrays in map(nnx.split, self.models)
            ]
        x = jax.device_put(x, _over(count, PartitionSpec("batch")))
        found = [_probabilities(graph, arrays, x) for graph, arrays in self._parts[count]]
        return found[0] if len(found) == 1 else _mean(tuple(found))

    @staticmethod
    def labels(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
        """(..., K) to (...) int32: the most probable class; for K = 1, what is above the threshold."""
        if probabilities.shape[-1] == 1:
            return (probabilities[..., 0] > threshold).astype(np.int32)
        return probabilities.argmax(-1).astype(np.int32)

    def _resized(
        self, image: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], scaled: Scaled
    ) -> np.ndarray:
        """Probabilities of images that are predicted at the size that the networks were trained for."""
        x = _each(lambda one: self.prepared(one, scaled), image)
        if self.side is None:
            return predict(x)
        size = image.shape[-3], image.shape[-2]
        found = predict(_each(lambda one: preprocessing.resized(one, self.seen(size)), x))
        return np.clip(_each(lambda one: preprocessing.resized(one, size), found), 0, 1)

    @cached_property
    def _parts(self) -> dict[int, list[tuple[Any, Any]]]:
        """By the number of devices, each network as what it is and its arrays: those that are alike share
        what is compiled."""
        return {}


def load(
    folders: Sequence[str | Path],
    *,
    window: int = Tiling.window,
    overlap: float = Tiling.overlap,
    blend: str = Tiling.blend,
    batch: int | None = None,
    tta: str = Tiling.tta,
    dtype: DTypeLike | None = None,
    fold: bool = True,
) -> Predictor:
    """A predictor of one stored network or of several that were trained for the same.

    Args:
      folders: each a run's folder, whose best network is meant, or what `flaxunet.save` made. Several, such
        as the runs of a cross-validation, are an ensemble.
      window, overlap, blend, tta: as in `flaxunet.prediction.tiling.Tiling`.
      batch: windows at once; None means as many on each device as have `PIXELS`: on a CPU one of 512, four of
        256, ...
      dtype: of the computation, e.g. jnp.bfloat16; None means float32.
      fold: fold batch norms into convolutions: the same numbers for less work.
    Raises: StoreError if one cannot be used, or they do not belong together; ValueError for other arguments.
    """
    how = Tiling(window, overlap, blend, _batch(batch, window), tta)
    if not folders:
        raise StoreError("no network is given; accepted are folders of runs or stored networks")
    stored = [store.read(store.network_folder(folder)) for folder in folders]
    for one in stored:
        if not one.spec.segments:
            raise StoreError(f"{one.folder} is {one.spec}; accepted is a whole segmenter")
        _check_alike(stored[0], one)
    models = [store.restore(one, dtype=dtype) for one in stored]
    first = stored[0]
    return Predictor(
        tuple(folded(model) if fold else model for model in models),
        _classes(first),
        first.spec.in_channels,
        first.spec.intensity,
        _side(first),
        how,
        _axis(first),
        _colors(first),
    )


def predict(
    model: Segmenter | Sequence[Segmenter],
    image: np.ndarray,
    *,
    window: int = Tiling.window,
    overlap: float = Tiling.overlap,
    blend: str = Tiling.blend,
    batch: int | None = None,
    tta: str = Tiling.tta,
) -> np.ndarray:
    """Probabilities of an image of any size, by a network in memory; of several the mean.

    Args:
      model: one or more segmenters with a spec, as `flaxunet.create` and `flaxunet.load` make them. They
        predict with their running statistics, whatever their mode is.
      image: (H, W, C) float32 as `flaxunet.io.images.read_image` gives it, or several of one size
        (N, H, W, C); or gray for RGB.
      window, overlap, blend, batch, tta: as in `load`.
    Returns: (H, W, K), or (N, H, W, K), float32 in [0, 1]; K = 1 is the probability of the foreground.
    Raises: ValueError if a network has no spec, they differ in channels, classes or intensity, or the image
      or another argument cannot be used.
    """
    models = [model] if isinstance(model, Segmenter) else list(model)
    specs = [one.spec for one in models]
    first = specs[0] if specs else None
    if first is None or None in specs:
        raise ValueError("a network without a spec; accepted is what flaxunet.create or flaxunet.load makes")
    facts = {(spec.in_channels, spec.classes, spec.intensity) for spec in specs if spec is not None}
    if len(facts) > 1:
        raise ValueError(
            f"networks of channels, classes and intensity {sorted(facts)}; accepted are equal ones"
        )
    return Predictor(
        tuple(map(folded, models)),
        targets.usual_names(first.classes),
        first.in_channels,
        first.intensity,
        tiling=Tiling(window, overlap, blend, _batch(batch, window), tta),
    )(image)


def _check_alike(first: Stored, other: Stored) -> None:
    """Raises StoreError if two networks do not predict the same classes from the same images."""
    for what, of in (
        ("classes", lambda one: ", ".join(_classes(one)) + f" in {one.spec.classes} channels"),
        ("channels of the image", lambda one: one.spec.in_channels),
        ("intensity", lambda one: one.spec.intensity),
        ("side of the resized image", _side),
        ("axis of the slices", _axis),
    ):
        if of(first) != of(other):
            raise StoreError(
                f"{first.folder} and {other.folder} do not belong together: {what} {of(first)}, and "
                f"{of(other)}; accepted are networks that were trained for the same"
            )


def _classes(stored: Stored) -> tuple[str, ...]:
    return tuple(
        (stored.content.get("source") or {}).get("classes") or targets.usual_names(stored.spec.classes)
    )


def _side(stored: Stored) -> int | None:
    source = stored.content.get("source") or {}
    return source.get("size") if source.get("fit") == "resize" else None


def _axis(stored: Stored) -> str | None:
    return (stored.content.get("source") or {}).get("axis")


def _colors(stored: Stored) -> tuple[Color, ...]:
    given = (stored.content.get("source") or {}).get("colors")
    if given is None:
        return PALETTE
    try:
        colors = [(int(red), int(green), int(blue)) for red, green, blue in given]
    except (TypeError, ValueError):
        colors = []
    if not colors or not all(0 <= part <= 255 for color in colors for part in color):
        raise StoreError(
            f"{stored.folder / store.CONFIG}: its colors are {given!r}; accepted are triples of 0 to 255"
        )
    return tuple(colors)


def _batch(batch: int | None, window: int) -> int:
    """As given; else on each device as many windows as have `PIXELS` together, a power of two up to 16."""
    if batch is not None:
        return batch
    pixels = PIXELS["cpu" if jax.default_backend() == "cpu" else "other"]
    return _devices() << min(max(pixels // max(window, 1) ** 2, 1).bit_length() - 1, 4)


def _devices() -> int:
    """How many of this process's devices are used: a power of two."""
    return 1 << (jax.local_device_count().bit_length() - 1)


@cache
def _over(count: int, spec: PartitionSpec) -> Sharding:
    """How an array lies on so many devices."""
    return NamedSharding(Mesh(np.array(jax.local_devices()[:count]), ("batch",)), spec)


def _each(change: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Of an image (H, W, C), or of each of several (N, H, W, C)."""
    return np.stack([change(one) for one in x]) if x.ndim == 4 else change(x)


@partial(jax.jit, static_argnums=0)
def _probabilities(graph: Any, arrays: Any, x: jax.Array) -> jax.Array:
    model = nnx.merge(graph, arrays)
    logits = model(model.normalize(x))
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits, axis=-1)


@jax.jit
def _mean(found: tuple[jax.Array, ...]) -> jax.Array:
    return sum(found[1:], jnp.asarray(found[0])) / len(found)
