"""`python -m flaxunet predict`: writes masks, and other results, of images and volumes."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from flaxunet.cli.parse import Argument
from flaxunet.cli.prediction_options import PredictionOptions

if TYPE_CHECKING:
    from flaxunet.prediction.predictor import Predictor


@dataclass(frozen=True)
class Predict(PredictionOptions):
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
    """another network of an ensemble, whose probabilities are averaged; may be given several times"""
    probabilities: bool = False
    """write probabilities too, as float16 TIFF; of volumes as NIfTI"""
    overlays: bool = False
    """write the images with their masks painted over them too"""
    instances: bool = False
    """number the objects, and split those that touch; masks are of 16 bits, or 32 in a TIFF if need be"""
    workers: int = 2
    """threads that read ahead"""
    resume: bool = False
    """skip the images that an interrupted run with equal settings has done"""

    def run(self) -> int:
        """Predicts into the folder, and prints what was written; 0 if all images are done, 1 if not."""
        import sys

        from rich.console import Console

        from flaxunet.io import planes
        from flaxunet.prediction import inputs
        from flaxunet.prediction.results import MEASURES, Outputs, Results
        from flaxunet.prediction.run import Report, WriteError, run
        from flaxunet.report.console import Throughput, progress

        if self.axis not in (None, *planes.AXES):
            raise ValueError(f"unknown axis {self.axis!r}; expected one of {', '.join(planes.AXES)}")
        if self.workers < 1:
            raise ValueError(f"--workers is {self.workers}; expected a whole number >= 1")
        out = Path(self.out)
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is a file; expected a folder for --out")
        images = inputs.find(self.images, out)
        console = Console(highlight=False)
        with console.status("loading"):
            predictor = self.load((self.model, *self.also))
        images = inputs.join_channels(images, predictor.channels)
        axis, steps = self.axis or predictor.axis or planes.DEFAULT_AXIS, self.steps(instances=self.instances)
        steps.check(predictor.classes)
        kinds, threshold = (self.probabilities, self.overlays), self.threshold or 0.5
        outputs = Outputs(out, predictor.classes, *kinds, threshold, steps, axis, predictor.colors)
        files = [path for one in images for paths in outputs.paths(one) for path in paths]
        inputs.refuse_overwriting(images, [*files, *outputs.tables])
        results = Results(outputs, images, self._settings(predictor, axis), resume=self.resume)
        if axis != (predictor.axis or axis):
            console.print(f"note: slices are {axis}, and were {predictor.axis} in training")
        throughput = Throughput()

        def update(report: Report) -> None:
            throughput.update(report.pictures, report.pixels)
            advance(report.done + report.skipped + len(report.failures))

        with progress(console, len(images), throughput) as advance:
            try:
                report = run(predictor, images, results, workers=self.workers, progress=update)
            except WriteError as error:
                print(f"error: {error}; what is done stays, and --resume goes on", file=sys.stderr)
                return 1
        before = f", {report.skipped} were there" if report.skipped else ""
        summary = f"{report.done} of {len(images)} images{before}{_duration(report.pictures, throughput)}"
        console.print(summary, soft_wrap=True)
        for what, name in ({kind: kind for kind in outputs.kinds} | {"table": MEASURES}).items():
            console.print(f"{what:<14} {out / name}", markup=False, soft_wrap=True)
        for line in report.failures:
            print(f"error: {line}", file=sys.stderr)
        return 1 if report.failures else 0

    def _settings(self, predictor: "Predictor", axis: str) -> dict[str, Any]:
        """The settings that results depend on."""
        from flaxunet.weights import store

        apart = ("model", "images", "out", "also", "batch", "workers", "resume", "probabilities", "overlays")
        options = {name: value for name, value in dataclasses.asdict(self).items() if name not in apart}
        configs = [store.network_folder(folder) / store.CONFIG for folder in (self.model, *self.also)]
        return {
            "networks": [json.loads(config.read_text())["weights"]["sha256"] for config in configs],
            "classes": dict(enumerate(predictor.classes)),
            **options,
            "axis": axis,
        }


def _duration(pictures: int, throughput: Any) -> str:
    """How long the first picture took, and how fast the others were."""
    if throughput.first is None:
        return ""
    then = f", then {throughput}" if str(throughput) else ""
    return f": {pictures:,} picture{'s' * (pictures != 1)}, the first after {throughput.first:.1f} s{then}"
