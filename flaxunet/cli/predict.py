"""`python -m flaxunet predict`: a network and images enter; masks, and what else was asked for, leave."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from flaxunet.cli.parse import Argument
from flaxunet.cli.prediction_options import Predicting


@dataclass(frozen=True)
class Predict(Predicting):
    """Write a mask for every image, and a table of areas and numbers of objects.

    DIR/masks has an indexed PNG for a picture, a TIFF for a stack, NIfTI for a volume; DIR/measures.csv the
    table. Exit codes: 0 done; 1 some images could not be used, all others are done, or results could not be
    written; 2 something cannot be used, and nothing was begun; 130 interrupted.
    """

    model: Annotated[str, Argument("MODEL", positional=True)]
    """a run's folder, or one that flaxunet.save made"""
    images: Annotated[tuple[str, ...], Argument("IMAGES", positional=True)]
    """files, folders or patterns: PNG, JPEG, TIFF, DICOM, NIfTI, folders with a DICOM series"""
    out: Annotated[str, Argument("DIR")]
    """the folder of the results"""
    also: Annotated[tuple[str, ...], Argument("MODEL", repeated=True)] = ()
    """another network of an ensemble, whose probabilities are averaged; may be said several times"""
    probabilities: bool = False
    """write them too, as float16 TIFF; of volumes as NIfTI"""
    overlays: bool = False
    """write the images with their masks painted over them too"""
    instances: bool = False
    """number the objects, and part those that touch; masks are of 16 bits, or 32 in a TIFF if need be"""
    workers: int = 2
    """threads that read ahead"""
    resume: bool = False
    """skip the images that an interrupted run with equal settings has done"""

    def run(self) -> int:
        """0 if all are done, 1 if not."""
        from rich.console import Console

        from flaxunet.io import planes
        from flaxunet.prediction import inputs as sources

        if self.axis not in (None, *planes.AXES):
            raise ValueError(f"unknown axis {self.axis!r}; known are {', '.join(planes.AXES)}")
        if self.workers < 1:
            raise ValueError(f"--workers is {self.workers}; accepted are whole numbers >= 1")
        out = Path(self.out)
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is a file; accepted is a folder for --out")
        found = sources.find(self.images, out)
        console = Console(highlight=False)
        with console.status("loading"):
            predictor = self.load((self.model, *self.also))
        found = sources.join_channels(found, predictor.channels)
        steps = self.steps(instances=self.instances)
        steps.check(predictor.classes)
        return self._predict(console, predictor, self._settings(predictor), found, steps)

    def _settings(self, predictor: Any) -> dict[str, Any]:
        """All that results depend on."""
        import json

        from flaxunet.io import planes
        from flaxunet.weights import store

        apart = ("model", "images", "out", "also", "batch", "workers", "resume", "probabilities", "overlays")
        options = {name: value for name, value in dataclasses.asdict(self).items() if name not in apart}
        places = [store.network_folder(folder) / store.CONFIG for folder in (self.model, *self.also)]
        return {
            "networks": [json.loads(place.read_text())["weights"]["sha256"] for place in places],
            "classes": dict(enumerate(predictor.classes)),
            **options,
            "axis": self.axis or predictor.axis or planes.DEFAULT_AXIS,
        }

    def _predict(self, console: Any, predictor: Any, settings: Any, found: Any, steps: Any) -> int:
        """Fills the folder, and says with what."""
        import sys

        from flaxunet.prediction import inputs as sources
        from flaxunet.prediction.results import MEASURES, OBJECTS, SETTINGS, Results, Wanted
        from flaxunet.prediction.run import Report, WriteError, run
        from flaxunet.report.console import Throughput, progress

        out = Path(self.out)
        axis = settings["axis"]
        asked = self.probabilities, self.overlays
        wanted = Wanted(out, predictor.classes, *asked, steps, axis, predictor.colors)
        written = [path for one in found for paths in wanted.paths(one) for path in paths]
        sources.refuse_overwriting(found, [*written, *(out / name for name in (MEASURES, OBJECTS, SETTINGS))])
        results = Results(wanted, found, settings, resume=self.resume)
        if axis != (predictor.axis or axis):
            console.print(f"note: slices are {axis}, and were {predictor.axis} in training")
        pace = Throughput()

        def moved(now: Report) -> None:
            pace.update(now.pictures, now.pixels)
            through(now.done + now.skipped + len(now.failures))

        with progress(console, len(found), pace) as through:
            try:
                report = run(
                    predictor,
                    found,
                    results,
                    threshold=self.limit,
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
