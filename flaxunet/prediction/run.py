"""Predicts files into a folder of results; an input that fails is reported, and the others are done."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from flaxunet.files import first_line
from flaxunet.io import images, volumes
from flaxunet.io.images import ImageError, Picture
from flaxunet.io.volumes import Volume
from flaxunet.lookahead import lookahead, read_ahead
from flaxunet.prediction import slides
from flaxunet.prediction.inputs import Input
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.results import MASKS, PROBABILITIES, Results
from flaxunet.prediction.slides import WriteError

_WAITING = 2  # pictures that are predicted but not written yet


@dataclass
class Report:
    """What became of the inputs.

    Attributes:
      done, skipped: inputs that were predicted, and those that an earlier run had predicted.
      pictures, pixels: pictures, pages and slices, and the pixels of all of them.
      failures: a line for each input that could not be used.
    """

    done: int = 0
    skipped: int = 0
    pictures: int = 0
    pixels: int = 0
    failures: list[str] = field(default_factory=list)


Progress = Callable[[Report], None]
Write = Callable[[], None]


def run(
    predictor: Predictor, inputs: Sequence[Input], results: Results, *, workers: int, progress: Progress
) -> Report:
    """Predicts all inputs; files are read ahead and written while the device works.

    Args:
      predictor, inputs: as `Predictor.load` and `flaxunet.prediction.inputs.find` return them.
      results: where predictions are written; inputs that are done there are skipped.
      workers: threads that read.
      progress: called with the report after each picture, or batch of slices, and after each input.
    Raises: WriteError if a result cannot be written; what was written before is whole.
    """
    left = [one for one in inputs if not results.is_done(one)]
    report = Report(skipped=len(inputs) - len(left))
    writer = ThreadPoolExecutor(1)
    try:
        with closing(read_ahead(_read, _tasks(left), workers)) as tasks:
            writes = _Run(predictor, results, report, progress).writes(tasks)
            started = ((source, writer.submit(write)) for source, write in writes)
            for source, written in lookahead(started, _WAITING):
                try:
                    written.result()
                except (OSError, ImageError, MemoryError) as error:
                    raise WriteError(_line(error)) from error
                if source is not None:
                    report.done += 1
                    progress(report)
    finally:
        writer.shutdown(cancel_futures=True)
        results.close()
    return report


@dataclass(frozen=True)
class _Task:
    """A picture, or a page of several, a volume, or a large image of a size that is predicted in parts."""

    source: Input
    kind: str
    page: int = 0
    pages: int = 1
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Run:
    """Predicts tasks, and counts what is predicted in a report."""

    predictor: Predictor
    results: Results
    report: Report
    progress: Progress

    def writes(self, tasks: Iterable[tuple[_Task, Future[Any]]]) -> Iterator[tuple[Input | None, Write]]:
        """Yields what writes the results of each task, and the input that is done after it, if any."""
        failed: set[Input] = set()
        predict = {"picture": self._picture, "volume": self._volume, "large": self._large}
        for task, content in tasks:
            source = task.source
            if source in failed:
                continue
            try:
                write = predict[task.kind](task, content.result())
            except WriteError:
                raise
            except (ValueError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
                failed.add(source)
                self.report.failures.append(_failure(task, error))
                self.progress(self.report)
                yield None, partial(self.results.abandon, source)
            else:
                yield (source if task.page + 1 == task.pages else None), write

    def _advance(self, pixels: int, pictures: int = 1) -> None:
        self.report.pictures += pictures
        self.report.pixels += pixels
        self.progress(self.report)

    def _picture(self, task: _Task, picture: Picture) -> Write:
        probabilities = self.predictor(picture.image)
        labels = self.predictor.labels(probabilities, self.results.outputs.threshold)
        self._advance(labels.size)
        page = task.page, task.pages
        return lambda: self.results.add_picture(task.source, page, picture, labels, probabilities)

    def _volume(self, task: _Task, volume: Volume) -> Write:
        """Predicts the slices of a volume in batches."""
        outputs, batch = self.results.outputs, self.predictor.tiling.batch or 1
        slices = volumes.training_slices(volume, outputs.axis, self.predictor.intensity)
        labels, kept = [], []
        for first in range(0, len(slices), batch):
            probabilities = self.predictor(slices[first : first + batch])
            labels.append(self.predictor.labels(probabilities, outputs.threshold))
            kept += [probabilities.astype(np.float16)] if outputs.probabilities else []
            self._advance(labels[-1].size, len(probabilities))
        mask, stacked = np.concatenate(labels), np.concatenate(kept) if kept else None
        return lambda: self.results.add_volume(task.source, volume, mask, stacked)

    def _large(self, task: _Task, content: None) -> Write:
        """Predicts a large image into its files; what is left to write are its rows of the tables."""
        source, outputs, finished = task.source, self.results.outputs, 0
        if outputs.steps:
            raise ValueError(
                "too large for --min-size, --keep-largest, --fill-holes and --instances, whose images are "
                f"held in memory; expected at most {slides.LARGE:,} pixels"
            )

        def advance(rows: int, height: int) -> None:
            nonlocal finished
            self._advance((rows - finished) * task.size[1], rows == height)
            finished = rows

        mask, threshold = self.results.path(MASKS, source, ".tif"), outputs.threshold
        file = self.results.path(PROBABILITIES, source, ".tif") if outputs.probabilities else None
        slides.predict_file(
            self.predictor, source.path, mask, probabilities=file, threshold=threshold, progress=advance
        )
        return lambda: self.results.add_large(source)


def _tasks(inputs: Sequence[Input]) -> Iterator[_Task]:
    for source in inputs:
        kind = source.kind()
        if kind == "volume":
            yield _Task(source, "volume")
        elif kind == "tiff" and (size := slides.large_size(source.path)):
            yield _Task(source, "large", size=size)
        else:
            pages = 1
            with suppress(ImageError):  # reading it says why
                pages = images.page_count(source.path)
            yield from (_Task(source, "picture", page, pages) for page in range(pages))


def _read(task: _Task) -> Picture | Volume | None:
    if task.kind == "large":
        return None
    if task.kind == "picture":
        return images.read_picture(task.source.path, page=task.page if task.pages > 1 else None)
    paths = task.source.path, *task.source.other_channels
    first, *others = map(volumes.read_volume, paths)
    for path, other in zip(paths[1:], others, strict=True):
        same = other.voxels.shape == first.voxels.shape
        if not same or not np.allclose(other.affine, first.affine, atol=1e-2):
            raise ImageError(f"{path}: another size or place than {task.source.path}; expected equal ones")
    return replace(first, voxels=np.concatenate([first.voxels, *(one.voxels for one in others)], axis=-1))


def _failure(task: _Task, error: Exception) -> str:
    """One line that names the file."""
    name, line = str(task.source.path), _line(error)
    page = f" page {task.page}" if task.pages > 1 else ""
    return line if line.startswith(name) else f"{name}{page}: {line}"


def _line(error: Exception) -> str:
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory: try a smaller --window or --batch"
    if isinstance(error, OSError):
        return f"{error.filename or 'a result'}: {error.strerror or error}"
    return first_line(error)
