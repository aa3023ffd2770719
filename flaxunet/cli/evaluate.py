"""`python -m flaxunet evaluate`: a network and a dataset enter; scores, a comparison and a page leave."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from flaxunet.cli.parse import Argument
from flaxunet.cli.prediction_options import Predicting

if TYPE_CHECKING:
    from flaxunet.evaluation.predictions import Source


@dataclass(frozen=True)
class Evaluate(Predicting):
    """Score a network, or masks that it has predicted, on a dataset of any layout.

    Of a run that was trained on the same DATA, --layout, --group, --target, --ignore-label and the split are
    those of its training if left out.

    Writes scores.csv, scores.json and report.html. Exit codes: 0 done; 2 something cannot be used or read,
    and nothing was written.
    """

    paths: Annotated[tuple[str, ...], Argument("[MODEL ...] DATA", positional=True)]
    """run or stored network, of several the probabilities are averaged; and folder, CSV or JSON file"""
    predictions: Annotated[str | None, Argument("DIR")] = None
    """masks with the names of the images, instead of a MODEL"""
    against: Annotated[str | None, Argument("OTHER")] = None
    """a second network, or folder of masks, that is compared with the first on the same images"""
    layout: Annotated[str | None, Argument("NAME")] = None
    """as of python -m train; found if left out"""
    split: Annotated[str | None, Argument("train|val|test|all")] = None
    """test if left out; of --predictions all, where the data have no test split"""
    group: Annotated[str | None, Argument("COLUMN|REGEX")] = None
    """as of python -m train; groups are drawn whole for intervals"""
    slices: bool = False
    """score each slice of a volume by itself, instead of whole volumes"""
    target: Annotated[str | None, Argument("NAME")] = None
    """as of python -m train; told by the classes of MODEL if masks number objects"""
    objects: bool = False
    """number the objects of coco and yolo and count them, as is done for other masks that number objects"""
    ignore_label: Annotated[int | None, Argument("INT")] = None
    """as of python -m train"""
    spacing: Annotated[tuple[float, ...] | None, Argument("MM ...")] = None
    """from a pixel to the next along rows and columns, of volumes along slices before; what NIfTI and DICOM
    files say if left out"""
    whole: bool = True
    """predict images that fit into a window as training evaluates them, in one frame of zeros that holds all;
    else as predict does, with the image mirrored beyond its border"""
    tolerance: float = 1.0
    """of the normalised surface distance, in mm, or in pixels where no spacing is known"""
    surface: Annotated[str, Argument("border|pieces")] = "border"
    """pixels at the border, or the lines and faces between pixels"""
    cases: int = 8
    """images with the lowest Dice that the page shows"""
    seed: Annotated[int | None, Argument("INT")] = None
    """cut splits that are not given, as training with this seed; if left out the run's are taken, else 0"""
    workers: int = 2
    """threads that read files"""
    out: Annotated[str, Argument("DIR")] = "evaluation"
    """where the files go; older ones are replaced"""

    def run(self) -> int:
        """0 when all is written."""
        import json
        import math

        from rich.console import Console

        from flaxunet import evaluation
        from flaxunet.evaluation import page
        from flaxunet.evaluation import terminal as table
        from flaxunet.files import write_whole
        from flaxunet.metrics.surface import SURFACES

        *models, data = self.paths
        if bool(models) == (self.predictions is not None) or not data:
            raise ValueError(
                f"{' '.join(self.paths)}: accepted are MODEL ... DATA, or --predictions DIR and DATA"
            )
        if self.surface not in SURFACES:
            raise ValueError(f"--surface is {self.surface!r}; accepted are {', '.join(SURFACES)}")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"--tolerance is {self.tolerance}; accepted are numbers from 0")
        for name, least in (("workers", 1), ("cases", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}; accepted are whole numbers >= {least}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed is {self.seed}; accepted are whole numbers from 0 to {2**32 - 1}")
        console, out = Console(highlight=False), Path(self.out)
        with console.status("reading") as status:
            plan = evaluation.prepare(
                self._sources(models),
                Path(data),
                layout=self.layout,
                group=self.group,
                axis=self.axis,
                split=self.split,
                seed=self.seed,
                target=self.target,
                ignore_label=self.ignore_label,
                objects=self.objects,
                slices=self.slices,
                spacing=self.spacing,
                threads=self.workers,
            )
            count = iter(range(1, len(plan.units) + 1))
            scored, cases = evaluation.measure(
                plan,
                tolerance=self.tolerance,
                kind=self.surface,
                cases=self.cases,
                done=lambda: status.update(f"scored {next(count):,} of {len(plan.units):,}"),
            )
            result = evaluation.Result.of(plan, scored, cases, tolerance=self.tolerance, kind=self.surface)
            settings = {**asdict(self), **plan.flags}
            contents = {
                # Names of files that are no UTF-8 keep their bytes.
                "scores.csv": result.rows().encode("utf-8", "surrogateescape"),
                "scores.json": (json.dumps(result.content(settings), indent=1) + "\n").encode(),
                "report.html": page.render(result, settings).encode("utf-8", "replace"),
            }
            out.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                write_whole(out / name, content)
        files = {"scores": out / "scores.csv", "summary": out / "scores.json", "page": out / "report.html"}
        table.show(console, result, files)
        return 0

    def _sources(self, models: list[str]) -> "list[Source]":
        from flaxunet.evaluation.predictions import Masks, is_network

        sources: list[Source] = [self._networks(models) if models else Masks(str(self.predictions))]
        if self.against is not None:
            stored = is_network(self.against)
            sources.append(self._networks([self.against]) if stored else Masks(self.against))
        if (self.steps() or self.threshold is not None) and not any(source.networks for source in sources):
            flags = "--threshold, --min-size, --keep-largest, --fill-holes"
            raise ValueError(f"{flags}: accepted with networks; {self.predictions} is scored as it is")
        return sources

    def _networks(self, folders: list[str]) -> "Source":
        from flaxunet.evaluation.predictions import Networks

        loaded = self.load(folders)
        return Networks(folders, loaded, whole=self.whole, threshold=self.limit, steps=self.steps())
