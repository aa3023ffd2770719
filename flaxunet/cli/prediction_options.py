"""Flags shared by the commands that predict: windows, test-time augmentation and post-processing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from flaxunet.cli.parse import Argument

if TYPE_CHECKING:
    from flaxunet.prediction.postprocess import Steps
    from flaxunet.prediction.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """Flags of a command that predicts, besides its own."""

    window: int = 512
    """side in pixels of the windows that larger images are predicted in, a multiple of 32"""
    overlap: float = 0.25
    """overlap of neighbouring windows, as a fraction of their side"""
    blend: Annotated[str, Argument("gaussian|flat")] = "gaussian"
    """weights of windows where they overlap"""
    tta: Annotated[str, Argument("none|flips|d4")] = "none"
    """average over 4 mirror images, or 8 mirror images and turns"""
    batch: Annotated[int | None, Argument("N")] = None
    """windows computed at once, a power of two, spread over all devices; by default those of 2^18 pixels on a
    CPU, of 2^21 on each other device"""
    dtype: Annotated[str, Argument("float32|bfloat16")] = "float32"
    """dtype of the computation"""
    threshold: Annotated[float | None, Argument("P")] = None
    """probability above which a pixel is foreground, for networks of one output; 0.5 by default"""
    axis: Annotated[str | None, Argument("axial|coronal|sagittal")] = None
    """plane of the slices that volumes are predicted in; that of the training by default, or axial"""
    min_size: Annotated[tuple[int, ...], Argument("PIXELS")] = ()
    """remove smaller objects; one number, or one for each foreground class"""
    keep_largest: bool = False
    """remove all but the largest object of each class"""
    fill_holes: bool = False
    """fill holes that one class alone encloses"""

    def load(self, folders: Sequence[str]) -> "Predictor":
        """Loads the networks; raises ValueError if they, or flags, cannot be used."""
        import jax.numpy as jnp

        from flaxunet.prediction.predictor import Predictor
        from flaxunet.prediction.tiling import Tiling

        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"unknown dtype {self.dtype!r}; expected one of float32, bfloat16")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"--threshold is {self.threshold}; expected 0 < threshold < 1")
        tiling = Tiling(self.window, self.overlap, self.blend, self.batch, self.tta)
        predictor = Predictor.load(folders, tiling=tiling, dtype=jnp.dtype(self.dtype))
        if self.threshold is not None and predictor.outputs > 1:
            raise ValueError(
                f"--threshold is {self.threshold}; expected none, because this network has "
                f"{predictor.outputs} outputs and the most probable one wins"
            )
        return predictor

    def steps(self, *, instances: bool = False) -> "Steps":
        """The post-processing of labels, not yet checked against the classes."""
        from flaxunet.prediction.postprocess import Steps

        return Steps(self.min_size, self.keep_largest, self.fill_holes, instances)
