"""`python -m flaxunet evaluate`: scores a network or stored masks on a dataset, and compares two of them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from flaxunet.cli.parse import Argument
from flaxunet.cli.prediction_options import PredictionOptions

if TYPE_CHECKING:
    from flaxunet.evaluation.predictions import Source


@dataclass(frozen=True)
class Evaluate(PredictionOptions):
    """Score a network, or masks that it has predicted, on a dataset of any layout.

    Of a run that was trained on the same DATA, --layout, --group, --target, --ignore-label and the split are
    those of its training by default.

    Writes scores.csv, scores.json and report.html. Exit codes: 0 done; 2 something cannot be used or read,
    and nothing was written.
    """

    paths: Annotated[tuple[str, ...], Argument("[MODEL ...] DATA", positional=True)]
    """runs or stored networks, whose probabilities are averaged; and the data: a folder, CSV or JSON file"""
    predictions: Annotated[str | None, Argument("DIR")] = None
    """masks with the names of the images, instead of a MODEL"""
    against: Annotated[str | None, Argument("OTHER")] = None
    """a second network, or folder of masks, that is compared with the first on the same images"""
    layout: Annotated[str | None, Argument("NAME")] = None
    """as in python -m train; detected by default"""
    split: Annotated[str | None, Argument("train|val|test|all")] = None
    """test by default; with --predictions all, if the data have no test split"""
    group: Annotated[str | None, Argument("COLUMN|REGEX")] = None
    """as in python -m train; groups are drawn whole for intervals"""
    slices: bool = False
    """score each slice of a volume by itself, instead of whole volumes"""
    target: Annotated[str | None, Argument("NAME")] = None
    """as in python -m train; by default from the classes of MODEL, if masks number objects"""
    objects: bool = False
    """number the objects of coco and yolo and count them, as is done for other masks that number objects"""
    ignore_label: Annotated[int | None, Argument("INT")] = None
    """as in python -m train"""
    spacing: Annotated[tuple[float, ...] | None, Argument("MM")] = None
    """size of a pixel along rows and columns, of volumes along slices first; by default that stored in NIfTI
    and DICOM files"""
    whole: bool = True
    """predict images that fit into a window as training evaluates them, in one frame of zeros that holds all;
    otherwise as predict does, mirroring the image beyond its border"""
    tolerance: float = 1.0
    """of the normalised surface distance, in mm, or in pixels where no spacing is known"""
    surface: Annotated[str, Argument("border|pieces")] = "border"
    """pixels at the border, or the contour or mesh between pixels"""
    cases: int = 8
    """number of images on the page, those with the lowest Dice"""
    seed: Annotated[int | None, Argument("INT")] = None
    """cut splits as training with this seed, if the data have none; by default that of the run, else 0"""
    workers: int = 2
    """threads that read files"""
    out: Annotated[str, Argument("DIR")] = "evaluation"
    """folder for the files; older ones are replaced"""

    def run(self) -> int:
        """Evaluates, writes the files and prints the tables; 0 when all is written."""
        import json
        from dataclasses import fields

        from rich.console import Console

        from flaxunet import evaluation
        from flaxunet.evaluation import page, terminal
        from flaxunet.files import write_whole

        *models, data = self.paths
        self._check(models, data)
        console, out = Console(highlight=False), Path(self.out)
        names = [field.name for field in fields(evaluation.DataOptions)]
        data_options = evaluation.DataOptions(**{name: getattr(self, name) for name in names})
        options = evaluation.ScoreOptions(self.tolerance, self.surface, self.cases)
        with console.status("reading") as status:
            plan = evaluation.prepare(self._sources(models), Path(data), data_options, threads=self.workers)
            count = iter(range(1, len(plan.units) + 1))
            scores, cases = evaluation.score_units(
                plan, options, on_unit=lambda: status.update(f"scored {next(count):,} of {len(plan.units):,}")
            )
            result = evaluation.Result.from_scores(plan, options, scores, cases)
            settings = {**asdict(self), **plan.flags}
            contents = {
                # Names of files that are no UTF-8 keep their bytes.
                "scores.csv": result.csv_text().encode("utf-8", "surrogateescape"),
                "scores.json": (json.dumps(result.content(settings), indent=1) + "\n").encode(),
                "report.html": page.render(result, settings).encode("utf-8", "replace"),
            }
            out.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                write_whole(out / name, content)
        kinds = zip(("scores", "summary", "page"), contents, strict=True)
        terminal.show(console, result, {kind: out / name for kind, name in kinds})
        return 0

    def _check(self, models: list[str], data: str) -> None:
        """Raises ValueError for flags that are out of range or do not fit together."""
        import math

        from flaxunet.metrics.surface import SURFACES

        if bool(models) == (self.predictions is not None) or not data:
            words = " ".join(self.paths)
            raise ValueError(f"{words}: expected MODEL ... DATA, or --predictions DIR and DATA")
        if self.surface not in SURFACES:
            raise ValueError(f"unknown --surface {self.surface!r}; expected one of {', '.join(SURFACES)}")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"--tolerance is {self.tolerance}; expected a number >= 0")
        for name, least in (("workers", 1), ("cases", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}; expected a whole number >= {least}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed is {self.seed}; expected a whole number from 0 to {2**32 - 1}")

    def _sources(self, models: list[str]) -> "list[Source]":
        from flaxunet.evaluation.predictions import Masks, is_network

        sources: list[Source] = [self._networks(models) if models else Masks(str(self.predictions))]
        if self.against is not None:
            stored = is_network(self.against)
            sources.append(self._networks([self.against]) if stored else Masks(self.against))
        if (self.steps() or self.threshold is not None) and not any(source.is_network for source in sources):
            flags = "--threshold, --min-size, --keep-largest, --fill-holes"
            raise ValueError(f"{flags}: expected together with a MODEL; masks are scored as they are")
        return sources

    def _networks(self, folders: list[str]) -> "Source":
        from flaxunet.evaluation.predictions import Networks

        options = {"whole": self.whole, "threshold": self.threshold or 0.5, "steps": self.steps()}
        return Networks(folders, self.load(folders), **options)
