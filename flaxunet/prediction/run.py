"""Predicts files into a folder of results; an input that fails is reported, and the others are done."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from flaxunet.files import first_line
from flaxunet.io import images, volumes
from flaxunet.io.images import ImageError, Picture
from flaxunet.io.volumes import Volume
from flaxunet.lookahead import read_ahead
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
      done: inputs that were predicted.
      skipped: inputs that an earlier run had predicted.
      pictures: pictures, pages and slices.
      pixels: of all pictures.
      failures: a line for each input that could not be used.
    """

    done: int = 0
    skipped: int = 0
    pictures: int = 0
    pixels: int = 0
    failures: list[str] = field(default_factory=list)


def run(
    predictor: Predictor,
    inputs: Sequence[Input],
    results: Results,
    *,
    workers: int = 2,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Predicts all inputs; files are read ahead and written while the device works.

    Args:
      predictor: as `flaxunet.Predictor.load` makes it.
      inputs: as `flaxunet.prediction.inputs.find` returns them.
      results: where predictions are written; inputs that are done there are skipped.
      workers: threads that read.
      progress: called with the report after each picture, or batch of slices, and after each input.
    Returns: the report.
    Raises: WriteError if a result cannot be written; what was written before is whole.
    """
    return _Run(predictor, inputs, results, progress).run(workers)


@dataclass(frozen=True)
class _Task:
    """A picture, or a page of several, a volume, or a large image that is predicted in parts."""

    source: Input
    kind: str
    page: int = 0
    pages: int = 1

    @property
    def is_last(self) -> bool:
        """Whether its input is done with it."""
        return self.page + 1 == self.pages


class _Run:
    """The state of `run`: its report, and the writes that are under way."""

    def __init__(
        self,
        predictor: Predictor,
        inputs: Sequence[Input],
        results: Results,
        progress: Callable[[Report], None],
    ):
        self._predictor, self._results, self._progress = predictor, results, progress
        self._left = [one for one in inputs if not results.is_done(one)]
        self._report = Report(skipped=len(inputs) - len(self._left))
        self._writer = ThreadPoolExecutor(1)
        self._writing: deque[tuple[Input | None, Future[None]]] = deque()

    def run(self, workers: int) -> Report:
        """Predicts what is left."""
        failed: set[Input] = set()
        predict = {"picture": self._picture, "volume": self._volume, "large": self._large}
        try:
            with closing(read_ahead(_read, _tasks(self._left), workers)) as tasks:
                for task, content in tasks:
                    if task.source in failed:
                        continue
                    try:
                        write = predict[task.kind](task, content.result())
                    except WriteError:
                        raise
                    except (ValueError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
                        failed.add(task.source)
                        self._report.failures.append(_failure(task, error))
                        self._write(None, lambda source=task.source: self._results.abandon(source))
                        self._progress(self._report)
                        continue
                    self._write(task.source if task.is_last else None, write)
                    self._wait(_WAITING)
                self._wait(0)
        finally:
            self._writer.shutdown(cancel_futures=True)
            self._results.close()
        return self._report

    def _write(self, done: Input | None, write: Callable[[], None]) -> None:
        """Gives a write to the thread that writes; after it an input is done, or none."""
        self._writing.append((done, self._writer.submit(write)))

    def _wait(self, count: int) -> None:
        """Waits until so many writes are left."""
        while len(self._writing) > count:
            done, written = self._writing.popleft()
            try:
                written.result()
            except (OSError, ImageError, MemoryError) as error:
                raise WriteError(_line(error)) from error
            if done is not None:
                self._report.done += 1
                self._progress(self._report)

    def _advance(self, pixels: int, pictures: int = 1) -> None:
        self._report.pictures += pictures
        self._report.pixels += pixels
        self._progress(self._report)

    def _picture(self, task: _Task, picture: Picture) -> Callable[[], None]:
        """Predicts a picture; returns what writes its results."""
        probabilities = self._predictor(picture.image)
        labels = self._predictor.labels(probabilities, self._results.outputs.threshold)
        self._advance(labels.size)
        page = task.page, task.pages
        return lambda: self._results.add_picture(task.source, page, picture, labels, probabilities)

    def _volume(self, task: _Task, volume: Volume) -> Callable[[], None]:
        """Predicts the slices of a volume in batches; returns what writes its results."""
        outputs, batch = self._results.outputs, self._predictor.tiling.batch or 1
        slices = volumes.training_slices(volume, outputs.axis, self._predictor.intensity)
        labels, kept = [], []
        for first in range(0, len(slices), batch):
            probabilities = self._predictor(slices[first : first + batch])
            labels.append(self._predictor.labels(probabilities, outputs.threshold))
            kept += [probabilities.astype(np.float16)] if outputs.probabilities else []
            self._advance(labels[-1].size, len(probabilities))
        mask, stacked = np.concatenate(labels), np.concatenate(kept) if kept else None
        return lambda: self._results.add_volume(task.source, volume, mask, stacked)

    def _large(self, task: _Task, content: None) -> Callable[[], None]:
        """Predicts a large image into its files; returns what writes its rows of the tables."""
        source, results, outputs = task.source, self._results, self._results.outputs
        if outputs.steps:
            raise ValueError(
                "too large for --min-size, --keep-largest, --fill-holes and --instances, whose images are "
                f"held in memory; expected at most {slides.LARGE:,} pixels"
            )
        _, width = slides.image_size(source.path)
        finished = 0

        def advance(rows: int, height: int) -> None:
            nonlocal finished
            self._advance((rows - finished) * width, rows == height)
            finished = rows

        slides.predict_file(
            self._predictor,
            source.path,
            results.large_file(MASKS, source),
            probabilities=results.large_file(PROBABILITIES, source) if outputs.probabilities else None,
            threshold=outputs.threshold,
            progress=advance,
        )
        return lambda: results.add_large(source)


def _tasks(inputs: Sequence[Input]) -> Iterator[_Task]:
    for source in inputs:
        kind = source.kind()
        if kind == "volume":
            yield _Task(source, "volume")
        elif kind == "tiff" and slides.is_large(source.path):
            yield _Task(source, "large")
        else:
            try:
                pages = images.page_count(source.path)
            except ImageError:  # reading it says why
                pages = 1
            yield from (_Task(source, "picture", page, pages) for page in range(pages))


def _read(task: _Task) -> Picture | Volume | None:
    if task.kind == "large":
        return None
    if task.kind == "picture":
        return images.read_picture(task.source.path, page=task.page if task.pages > 1 else None)
    first, *others = (volumes.read_volume(path) for path in task.source.files)
    for path, other in zip(task.source.other_channels, others, strict=True):
        same = other.voxels.shape == first.voxels.shape
        if not same or not np.allclose(other.affine, first.affine, atol=1e-2):
            raise ImageError(f"{path}: another size or place than {task.source.path}; expected equal ones")
    return replace(first, voxels=np.concatenate([first.voxels, *(one.voxels for one in others)], axis=-1))


def _failure(task: _Task, error: Exception) -> str:
    """One line that names the file."""
    name, line = str(task.source.path), _line(error)
    if line.startswith(name):
        return line
    return f"{name}{f' page {task.page}' if task.pages > 1 else ''}: {line}"


def _line(error: Exception) -> str:
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory: try a smaller --window or --batch"
    if isinstance(error, OSError):
        return f"{error.filename or 'a result'}: {error.strerror or error}"
    return first_line(error)
