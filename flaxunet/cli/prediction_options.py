"""The flags of the commands that predict: how networks do it, and what is made of their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from flaxunet.cli.parse import Argument

if TYPE_CHECKING:
    from flaxunet.prediction.postprocess import Steps
    from flaxunet.prediction.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class Predicting:
    """What a command that predicts has besides its own flags."""

    window: int = 512
    """side in pixels of the windows that larger images are predicted in, a multiple of 32"""
    overlap: float = 0.25
    """of neighbouring windows, as a part of their side"""
    blend: Annotated[str, Argument("gaussian|flat")] = "gaussian"
    """weights of windows where they overlap"""
    tta: Annotated[str, Argument("none|flips|d4")] = "none"
    """average over 4 mirror images, or 8 mirror images and turns"""
    batch: Annotated[int | None, Argument("N")] = None
    """windows at once, a power of two; if left out, those of 2^18 pixels on a CPU, of 2^21 on each other
    device; they are spread over all devices"""
    dtype: Annotated[str, Argument("float32|bfloat16")] = "float32"
    """of the computation"""
    threshold: Annotated[float | None, Argument("P")] = None
    """of the foreground's probability, for networks of one output; 0.5 if left out"""
    axis: Annotated[str | None, Argument("axial|coronal|sagittal")] = None
    """of the slices that volumes are predicted in; that of the training if left out, or axial"""
    min_size: Annotated[tuple[int, ...], Argument("PIXELS")] = ()
    """remove smaller objects; one number, or one for each foreground class"""
    keep_largest: bool = False
    """remove all but the largest object of each class"""
    fill_holes: bool = False
    """fill what a class alone encloses"""

    def load(self, folders: Sequence[str]) -> "Predictor":
        """The networks, to be asked for labels above `limit`.

        Raises: ValueError if they, or flags, cannot be used.
        """
        import jax.numpy as jnp

        from flaxunet.prediction import predictor

        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"unknown dtype {self.dtype!r}; known are float32, bfloat16")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"--threshold is {self.threshold}; accepted is 0 < threshold < 1")
        loaded = predictor.load(
            folders,
            window=self.window,
            overlap=self.overlap,
            blend=self.blend,
            tta=self.tta,
            batch=self.batch,
            dtype=jnp.dtype(self.dtype),
        )
        if self.threshold is not None and loaded.outputs > 1:
            raise ValueError(
                f"--threshold is {self.threshold}; accepted with one output, and this network has "
                f"{loaded.outputs}, of which the most probable one wins"
            )
        return loaded

    @property
    def limit(self) -> float:
        """The probability above which a pixel is foreground."""
        return 0.5 if self.threshold is None else self.threshold

    def steps(self, *, instances: bool = False) -> "Steps":
        """What is made of labels; whether it fits the classes is still to be checked."""
        from flaxunet.prediction.postprocess import Steps

        return Steps(self.min_size, self.keep_largest, self.fill_holes, instances)
