"""`python -m flaxunet predict`: a network and images enter; masks, and what else was asked for, leave."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg


@dataclass(frozen=True)
class Predict:
    """Write a mask for every image, and a table of areas and numbers of objects.

    DIR/masks has an indexed PNG for a picture, a TIFF for a stack, NIfTI for a volume; DIR/measures.csv the
    table. Exit codes: 0 done; 1 some images could not be used, all others are done, or results could not be
    written; 2 something cannot be used, and nothing was begun; 130 interrupted.
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """a run's folder, or one that flaxunet.save made"""
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES", help_behavior_hint="")]
    """files, folders or patterns: PNG, JPEG, TIFF, DICOM, NIfTI, folders with a DICOM series"""
    out: Annotated[str, arg(metavar="DIR")]
    """the folder of the results"""
    also: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="MODEL", help_behavior_hint="")]] = ()
    """another network of an ensemble, whose probabilities are averaged; may be said several times"""
    window: int = 512
    """side in pixels of the windows that larger images are predicted in, a multiple of 32"""
    overlap: float = 0.25
    """of neighbouring windows, as a part of their side"""
    blend: Annotated[str, arg(metavar="gaussian|flat")] = "gaussian"
    """weights of windows where they overlap"""
    tta: Annotated[str, arg(metavar="none|flips|d4")] = "none"
    """average over 4 mirror images, or 8 mirror images and turns"""
    batch: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None
    """windows at once, a power of two; if left out, those of 2^18 pixels on a CPU, of 2^21 on each other
    device; they are spread over all devices"""
    dtype: Annotated[str, arg(metavar="float32|bfloat16")] = "float32"
    """of the computation"""
    threshold: Annotated[float | None, arg(metavar="P", help_behavior_hint="")] = None
    """of the foreground's probability, for networks of one output; 0.5 if left out"""
    axis: Annotated[str | None, arg(metavar="axial|coronal|sagittal", help_behavior_hint="")] = None
    """of the slices that volumes are predicted in; that of the training if left out, or axial"""
    probabilities: bool = False
    """write them too, as float16 TIFF; of volumes as NIfTI"""
    overlays: bool = False
    """write the images with their masks painted over them too"""
    min_size: Annotated[tuple[int, ...], arg(metavar="PIXELS", help_behavior_hint="")] = ()
    """remove smaller objects; one number, or one for each foreground class"""
    keep_largest: bool = False
    """remove all but the largest object of each class"""
    fill_holes: bool = False
    """fill what a class alone encloses"""
    instances: bool = False
    """number the objects, and part those that touch; masks are of 16 bits, or 32 in a TIFF if need be"""
    workers: int = 2
    """threads that read ahead"""
    resume: bool = False
    """skip the images that an interrupted run with equal settings has done"""

    def run(self) -> int:
        """0 if all are done, 1 if not."""
        from rich.console import Console

        from flaxunet import planes
        from flaxunet.postprocess import Steps
        from flaxunet.prediction import sources

        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"unknown dtype {self.dtype!r}; known are float32, bfloat16")
        if self.axis not in (None, *planes.PLANES):
            raise ValueError(f"unknown axis {self.axis!r}; known are {', '.join(planes.PLANES)}")
        if self.workers < 1:
            raise ValueError(f"--workers is {self.workers}; accepted are whole numbers >= 1")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"--threshold is {self.threshold}; accepted is 0 < threshold < 1")
        if not self.images:
            raise ValueError("no images are given; accepted are files, folders and patterns after MODEL")
        out = Path(self.out)
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is a file; accepted is a folder for --out")
        found = sources.find(self.images, out)
        console = Console(highlight=False)
        with console.status("loading"):
            predictor, settings = self._load()
        found = sources.join_channels(found, predictor.channels)
        steps = Steps(self.min_size, self.keep_largest, self.fill_holes, self.instances)
        steps.check(predictor.classes)
        if self.threshold is not None and predictor.outputs > 1:
            raise ValueError(
                f"--threshold is {self.threshold}; accepted with one output, and this network has "
                f"{predictor.outputs}, of which the most probable one wins"
            )
        return self._predict(console, predictor, settings, found, steps)

    def _load(self) -> tuple[Any, dict[str, Any]]:
        """The predictor, and all that its results depend on."""
        import json

        import jax.numpy as jnp

        from flaxunet import planes, predictor, store

        folders = (self.model, *self.also)
        loaded = predictor.load(
            folders,
            window=self.window,
            overlap=self.overlap,
            blend=self.blend,
            tta=self.tta,
            batch=self.batch,
            dtype=jnp.dtype(self.dtype),
        )
        apart = ("model", "images", "out", "also", "batch", "workers", "resume", "probabilities", "overlays")
        options = {name: value for name, value in dataclasses.asdict(self).items() if name not in apart}
        places = [store.network_folder(folder) / store.CONFIG for folder in folders]
        return loaded, {
            "networks": [json.loads(place.read_text())["weights"]["sha256"] for place in places],
            "classes": dict(enumerate(loaded.classes)),
            **options,
            "axis": self.axis or loaded.axis or planes.USUAL,
        }

    def _predict(self, console: Any, predictor: Any, settings: Any, found: Any, steps: Any) -> int:
        """Fills the folder, and says with what."""
        import sys

        from flaxunet.prediction import sources
        from flaxunet.prediction.results import MEASURES, OBJECTS, SETTINGS, Results, Wanted
        from flaxunet.prediction.run import Report, WriteError, run
        from flaxunet.terminal import Pace, progress

        out = Path(self.out)
        axis = settings["axis"]
        wanted = Wanted(out, predictor.classes, self.probabilities, self.overlays, steps, axis)
        written = [path for one in found for paths in wanted.paths(one) for path in paths]
        sources.refuse_overwriting(found, [*written, *(out / name for name in (MEASURES, OBJECTS, SETTINGS))])
        results = Results(wanted, found, settings, resume=self.resume)
        if axis != (predictor.axis or axis):
            console.print(f"note: slices are {axis}, and were {predictor.axis} in training")
        pace = Pace()

        def moved(now: Report) -> None:
            pace.update(now.pictures, now.pixels)
            through(now.done + now.skipped + len(now.failures))

        with progress(console, len(found), pace) as through:
            try:
                report = run(
                    predictor,
                    found,
                    results,
                    threshold=0.5 if self.threshold is None else self.threshold,
                    workers=self.workers,
                    told=moved,
                )
            except WriteError as error:
                print(f"error: {error}; what is done stays, and --resume goes on", file=sys.stderr)
                return 1
        before = f", {report.skipped} were there" if report.skipped else ""
        console.print(
            f"{report.done} of {len(found)} images{before}{_told(report.pictures, pace)}", soft_wrap=True
        )
        for kind in wanted.kinds():
            console.print(f"{kind:<14} {out / kind}", markup=False, soft_wrap=True)
        console.print(f"{'table':<14} {out / MEASURES}", markup=False, soft_wrap=True)
        for line in report.failures:
            print(f"error: {line}", file=sys.stderr)
        return 1 if report.failures else 0


def _told(pictures: int, pace: Any) -> str:
    """How long it took."""
    if pace.first is None:
        return ""
    then = f", then {pace}" if str(pace) else ""
    return f": {pictures:,} picture{'s' * (pictures != 1)}, the first after {pace.first:.1f} s{then}"
