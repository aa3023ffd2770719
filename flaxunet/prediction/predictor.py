"""Predicts the class probabilities of images of any size, with one network or an ensemble."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from flaxunet import labels as targets
from flaxunet.labels import PALETTE, Color
from flaxunet.models.fold import fold as fold_norms
from flaxunet.models.segmenter import Segmenter
from flaxunet.prediction import tiling as windowed
from flaxunet.prediction.networks import Network, compute, default_batch, folded
from flaxunet.prediction.tiling import Tiling
from flaxunet.prediction.tta import augment
from flaxunet.preprocessing import fit_size, normalize_intensity, resize_image
from flaxunet.weights import store
from flaxunet.weights.store import Stored, StoreError

Transform = Callable[[np.ndarray], np.ndarray]
Normalizer = Callable[[np.ndarray, str], np.ndarray]  # as `flaxunet.preprocessing.normalize_intensity`


@dataclass(frozen=True)
class Predictor:
    """Networks that predict together, with the preprocessing and windows they need; made by `Predictor.load`.

    Attributes:
      models: segmenters in evaluation mode; the probabilities of several are averaged.
      classes: names, background first; two names for one sigmoid channel.
      channels: C of the images.
      intensity: the name that `flaxunet.preprocessing.normalize_intensity` is called with.
      side: pixels that the longer side of images is resized to, as in training; None resizes nothing.
      tiling: windows, blending and test-time augmentation; its batch is never None here.
      axis: of the slices of volumes that the networks were trained on; None if these were pictures.
      colors: of the labels from 1 on, as in the masks of the training data.
    """

    models: tuple[Segmenter, ...]
    classes: tuple[str, ...]
    channels: int
    intensity: str
    side: int | None = None
    tiling: Tiling = field(default_factory=Tiling)
    axis: str | None = None
    colors: tuple[Color, ...] = PALETTE

    def __post_init__(self):
        if self.tiling.batch is None:
            tiling = dataclasses.replace(self.tiling, batch=default_batch(self.tiling.window))
            object.__setattr__(self, "tiling", tiling)

    @classmethod
    def load(
        cls,
        folders: Sequence[str | Path],
        *,
        tiling: Tiling | None = None,
        dtype: DTypeLike | None = None,
        fold: bool = True,
    ) -> "Predictor":
        """Loads one stored network, or an ensemble of several that were trained for the same task.

        Args:
          folders: of runs, whose best networks are loaded, or of networks that `flaxunet.save` wrote.
          tiling: windows, blending and test-time augmentation; None means `Tiling()`.
          dtype: of the computation, e.g. jnp.bfloat16; None means float32.
          fold: fold batch norms into convolutions: the same predictions for less work.
        Raises: StoreError if a network cannot be used, or the networks do not belong together.
        """
        if not folders:
            raise StoreError("no network is given; expected folders of runs or stored networks")
        stored = [store.read(store.network_folder(folder)) for folder in folders]
        for one in stored:
            if not one.spec.segments:
                raise StoreError(f"{one.folder} is {one.spec}; expected a whole segmenter")
            _check_alike(stored[0], one)
        models = [store.restore(one, dtype=dtype) for one in stored]
        models = tuple(fold_norms(model) if fold else model for model in models)
        classes, channels, intensity, side, axis = _facts(stored[0]).values()
        tiling, colors = tiling or Tiling(), _colors(stored[0])
        return cls(models, classes, channels, intensity, side, tiling, axis, colors)

    def __call__(self, image: np.ndarray, normalize: Normalizer = normalize_intensity) -> np.ndarray:
        """Predicts the probabilities of an image, or of several.

        Args:
          image: (H, W, C) float32 as `flaxunet.read_image` returns it, or several of one size (N, H, W, C),
            whose windows share batches; gray becomes RGB if the networks expect that.
          normalize: replaces `flaxunet.preprocessing.normalize_intensity` for a part of a larger image.
        Returns: (H, W, K), or (N, H, W, K), float32 in [0, 1]; K = 1 is the probability of the foreground.
        Raises: ValueError for an image of other channels, or of a range that the intensity refuses.
        """
        return self._at_scale(image, lambda x: windowed.predict(self.windows, x, self.tiling), normalize)

    def whole(self, image: np.ndarray, frame: tuple[int, int], normalize: Normalizer) -> np.ndarray:
        """Predicts an image without windows, in the corner of a frame of zeros, as training evaluates.

        Args:
          image, normalize: as in `__call__`.
          frame: (H, W) that hold the image after it was resized to `side`; each is compiled.
        Returns: (H, W, K) float32 in [0, 1] of the image.
        """

        def predict(x: np.ndarray) -> np.ndarray:
            height, width = x.shape[:2]
            framed = np.zeros((1, *frame, x.shape[-1]), np.float32)
            framed[0, :height, :width] = x
            return np.asarray(augment(self.windows, self.tiling.tta)(framed)[0])[:height, :width]

        return self._at_scale(image, predict, normalize)

    def network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) at which the networks see an image of a size."""
        return size if self.side is None else fit_size(size, self.side)

    @property
    def outputs(self) -> int:
        """K, the channels of the probabilities."""
        return self.models[0].heads[0].out_features

    def prepare(self, image: np.ndarray, normalize: Normalizer = normalize_intensity) -> np.ndarray:
        """Normalises an image and gives it the networks' channels: (H, W, C); raises as `__call__`."""
        return self.match_channels(normalize(image, self.intensity))

    def match_channels(self, image: np.ndarray) -> np.ndarray:
        """(..., C) with the networks' channels: gray becomes RGB, as in training. ValueError for others."""
        if image.shape[-1] == 1 and self.channels == 3:
            return np.broadcast_to(image, (*image.shape[:-1], self.channels))
        if image.shape[-1] != self.channels:
            expected = f"{self.channels} or 1" if self.channels == 3 else self.channels
            raise ValueError(f"{image.shape[-1]} channels; expected {expected}")
        return image

    def windows(self, x: np.ndarray) -> jax.Array:
        """Computes probabilities (B, h, w, K) of prepared windows (B, h, w, C) as `networks.compute`."""
        return compute(self._networks, x)

    @staticmethod
    def labels(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
        """(..., K) to (...) int32: the most probable class; for K = 1, 1 above the threshold."""
        if probabilities.shape[-1] == 1:
            return (probabilities[..., 0] > threshold).astype(np.int32)
        return probabilities.argmax(-1).astype(np.int32)

    def _at_scale(self, image: np.ndarray, predict: Transform, normalize: Normalizer) -> np.ndarray:
        """Predicts at the size that the networks were trained at, and resizes the probabilities back."""
        x = _each(lambda one: self.prepare(one, normalize), image)
        if self.side is None:
            return predict(x)
        size = image.shape[-3], image.shape[-2]
        small = predict(_each(lambda one: resize_image(one, self.network_size(size)), x))
        return np.clip(_each(lambda one: resize_image(one, size), small), 0, 1)

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        return tuple(map(Network, self.models))


def predict(
    model: Segmenter | Sequence[Segmenter], image: np.ndarray, *, tiling: Tiling | None = None
) -> np.ndarray:
    """Predicts the probabilities of an image of any size with a network in memory; with several, their mean.

    At a model's first call its batch norms are folded and its weights are uploaded, for all later calls as
    long as the model exists. Both are done again when an array of the model was replaced (by a training step,
    `nnx.update` or an assignment) or its structure changed; writes into NumPy arrays go unseen.

    Args:
      model: one or more segmenters with a spec, as `flaxunet.create` and `flaxunet.load` make them; their
        running statistics are used, whether they are in training or evaluation mode.
      image: (H, W, C) float32, or several of one size (N, H, W, C), as of `Predictor.__call__`.
      tiling: windows, blending and test-time augmentation; None means `Tiling()`.
    Returns: (H, W, K), or (N, H, W, K), float32 in [0, 1]; K = 1 is the probability of the foreground.
    Raises: ValueError if a network has no spec, they differ in channels, classes or intensity, or the image
      cannot be used.
    """
    models = [model] if isinstance(model, Segmenter) else list(model)
    specs = [one.spec for one in models if one.spec is not None]
    if not models or len(specs) < len(models):
        raise ValueError("a network without a spec; expected what flaxunet.create or flaxunet.load returns")
    facts = {(spec.in_channels, spec.classes, spec.intensity) for spec in specs}
    if len(facts) > 1:
        raise ValueError(f"networks of channels, classes and intensity {sorted(facts)}; expected equal ones")
    networks, spec = tuple(map(folded, models)), specs[0]
    models, classes = tuple(network.model for network in networks), targets.default_names(spec.classes)
    predictor = Predictor(models, classes, spec.in_channels, spec.intensity, tiling=tiling or Tiling())
    vars(predictor)["_networks"] = networks  # the value of the cached property, with what is uploaded already
    return predictor(image)


def _facts(stored: Stored) -> dict[str, Any]:
    """What networks of one task share: classes, channels, intensity, side and axis of their predictor."""
    source, spec = stored.content.get("source") or {}, stored.spec
    return {
        "classes": tuple(source.get("classes") or targets.default_names(spec.classes)),
        "channels of the image": spec.in_channels,
        "intensity": spec.intensity,
        "side of the resized image": source.get("size") if source.get("fit") == "resize" else None,
        "axis of the slices": source.get("axis"),
    }


def _check_alike(first: Stored, other: Stored) -> None:
    """Raises StoreError if two networks do not predict the same classes from the same images."""
    facts, others = _facts(first), _facts(other)
    for stored, of in ((first, facts), (other, others)):
        of["classes"] = f"{', '.join(of['classes'])} in {stored.spec.classes} channels"
    for what, value in facts.items():
        if value != others[what]:
            raise StoreError(
                f"{first.folder} and {other.folder} do not belong together: {what} {value}, and "
                f"{others[what]}; expected networks that were trained for the same task"
            )


def _colors(stored: Stored) -> tuple[Color, ...]:
    colors = (stored.content.get("source") or {}).get("colors")
    if colors is None:
        return PALETTE
    with suppress(TypeError, ValueError):
        triples = tuple((int(red), int(green), int(blue)) for red, green, blue in colors)
        if triples and all(0 <= part <= 255 for color in triples for part in color):
            return triples
    raise StoreError(
        f"{stored.folder / store.CONFIG}: its colors are {colors!r}; expected triples of 0 to 255"
    )


def _each(change: Transform, x: np.ndarray) -> np.ndarray:
    """Changes an image (H, W, C), or each of several (N, H, W, C)."""
    return np.stack([change(one) for one in x]) if x.ndim == 4 else change(x)
