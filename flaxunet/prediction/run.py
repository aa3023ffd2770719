"""Sources enter; the folder of their results leaves. What fails is listed, and the others are done."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxunet.files import first_line
from flaxunet.io import images, tiff, volumes
from flaxunet.io.images import ImageError, Picture
from flaxunet.io.volumes import Volume
from flaxunet.prediction.inputs import Source
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.results import MASKS, PROBABILITIES, Results
from flaxunet.prediction.slides import WriteError, predict_file

LARGE = 2**26
"""Pixels beyond which a TIFF is predicted in parts."""
_WAITING = 2  # pictures that are predicted but not written yet


@dataclass
class Report:
    """What became of the sources.

    Attributes:
      done: how many were predicted.
      skipped: how many had been predicted before.
      pictures: pages and slices.
      pixels: of all pictures.
      failures: a line for each source that could not be used.
    """

    done: int = 0
    skipped: int = 0
    pictures: int = 0
    pixels: int = 0
    failures: list[str] = field(default_factory=list)


def run(
    predictor: Predictor,
    sources: Sequence[Source],
    results: Results,
    *,
    threshold: float = 0.5,
    workers: int = 2,
    told: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Predict all sources. Files are read ahead and written while the device works.

    Args:
      predictor: as `flaxunet.prediction.predictor.load` makes it.
      sources: what `flaxunet.prediction.inputs.find` found.
      results: where predictions go; what is done there is left out.
      threshold: of the foreground's probability where K = 1.
      workers: threads that read.
      told: called after each picture, or batch of slices, and after each source.
    Returns: what became of the sources.
    Raises: WriteError if a result cannot be written; what was written before is whole.
    """
    report, failed = Report(), set()
    left = [source for source in sources if not results.done(source)]
    report.skipped = len(sources) - len(left)
    readers, writer = ThreadPoolExecutor(max(workers, 1)), ThreadPoolExecutor(1)
    writing: deque[Future[Source | None]] = deque()

    def finish(least: int) -> None:
        while len(writing) > least:
            try:
                whole = writing.popleft().result()
            except (OSError, ImageError, MemoryError) as error:
                raise WriteError(_line(error)) from error
            if whole is not None:
                report.done += 1
                told(report)

    def step(pixels: int, pictures: int = 1) -> None:
        report.pictures, report.pixels = report.pictures + pictures, report.pixels + pixels
        told(report)

    try:
        for task, read in _ahead(readers, _tasks(left), max(workers, 1)):
            if task.source in failed:
                continue
            try:
                write = _predicted(task, read, predictor, results, threshold, step)
            except WriteError:
                raise
            except (ValueError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
                failed.add(task.source)
                report.failures.append(_failure(task, error))
                writing.append(writer.submit(lambda source=task.source: _then(None, results.abandon(source))))
                told(report)
                continue
            writing.append(writer.submit(write))
            finish(_WAITING)
        finish(0)
    finally:
        readers.shutdown(cancel_futures=True)
        writer.shutdown(cancel_futures=True)
        results.close()
    return report


@dataclass(frozen=True)
class _Task:
    """A picture, or page of several, a volume, or a slide that is predicted in parts."""

    source: Source
    kind: str
    page: int = 0
    pages: int = 1


def _tasks(sources: Sequence[Source]) -> Iterator[_Task]:
    for source in sources:
        kind = source.kind()
        if kind == "volume" or (kind == "tiff" and _is_large(source.path)):
            yield _Task(source, kind if kind == "volume" else "slide")
            continue
        try:
            pages = images.page_count(source.path)
        except ImageError:  # reading it says why
            pages = 1
        for page in range(pages):
            yield _Task(source, "picture", page, pages)


def _is_large(path: Path) -> bool:
    """Whether it is one picture of more than `LARGE` pixels, or that of a slide scanner, that can be read in
    parts."""
    try:
        with path.open("rb") as file, tiff.open_regions(file) as parts:
            if parts is None or parts.size[0] * parts.size[1] > LARGE:
                return parts is not None
            file.seek(0)
            return tiff.page_count(file) > 1
    except Exception:  # reading it says why
        return False


def _ahead(
    pool: ThreadPoolExecutor, tasks: Iterator[_Task], count: int
) -> Iterator[tuple[_Task, "Future[Any]"]]:
    """Tasks in order, each with what is being read; some more are read meanwhile."""
    waiting: deque[tuple[_Task, Future[Any]]] = deque()
    for task in tasks:
        waiting.append((task, pool.submit(_read, task)))
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _read(task: _Task) -> Picture | Volume | None:
    if task.kind == "slide":
        return None
    if task.kind == "volume":
        first, *more = (volumes.read_volume(path) for path in (task.source.path, *task.source.more))
        for path, other in zip(task.source.more, more, strict=True):
            same = other.voxels.shape == first.voxels.shape
            if not same or not np.allclose(other.affine, first.affine, atol=1e-2):
                raise ImageError(
                    f"{path}: another size or place than {task.source.path}; accepted are equal ones"
                )
        return replace(first, voxels=np.concatenate([first.voxels, *(one.voxels for one in more)], axis=-1))
    return images.read_picture(task.source.path, page=task.page if task.pages > 1 else None)


def _predicted(
    task: _Task,
    read: "Future[Any]",
    predictor: Predictor,
    results: Results,
    threshold: float,
    step: Callable[..., None],
) -> Callable[[], Source | None]:
    """Predicts; returns what writes it, and then gives the source if it is whole."""
    source, wanted = task.source, results.wanted
    content = read.result()
    if task.kind == "slide":
        if wanted.steps:
            raise ValueError(
                "too large for --min-size, --keep-largest, --fill-holes and --instances, whose images are "
                f"held in memory; accepted are {LARGE:,} pixels"
            )
        mask = results.slide(MASKS, source)
        with source.path.open("rb") as file, tiff.open_regions(file) as parts:
            assert parts is not None
            height, width = parts.size
        seen = 0

        def moved(rows: int, _: int) -> None:
            nonlocal seen
            step((rows - seen) * width, rows == height)
            seen = rows

        kept = results.slide(PROBABILITIES, source) if wanted.probabilities else None
        predict_file(predictor, source.path, mask, probabilities=kept, threshold=threshold, progress=moved)
        return lambda: _then(source, results.add_slide(source, mask))
    if task.kind == "volume":
        labels, kept = [], []
        pictures, batch = (
            volumes.training_slices(content, wanted.axis, predictor.intensity),
            predictor.tiling.batch or 1,
        )
        for some in (pictures[first : first + batch] for first in range(0, len(pictures), batch)):
            probabilities = predictor(some)
            labels.append(predictor.labels(probabilities, threshold))
            kept += [probabilities.astype(np.float16)] if wanted.probabilities else []
            step(labels[-1].size, len(some))
        stacked = np.concatenate(kept) if kept else None
        return lambda: _then(source, results.add_volume(source, content, np.concatenate(labels), stacked))
    probabilities = predictor(content.image)
    found = predictor.labels(probabilities, threshold)
    step(found.size)
    whole = source if task.page + 1 == task.pages else None
    page = task.page, task.pages
    return lambda: _then(whole, results.add_picture(source, page, content, found, probabilities))


def _then(source: Source | None, _: None) -> Source | None:
    return source


def _failure(task: _Task, error: Exception) -> str:
    name = str(task.source.path)
    told = _line(error)
    if told.startswith(name):
        return told
    return f"{name}{f' page {task.page}' if task.pages > 1 else ''}: {told}"


def _line(error: Exception) -> str:
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "there is too little memory; accepted may be a smaller --window or --batch"
    if isinstance(error, OSError):
        return f"{error.filename or 'a result'}: {error.strerror or error}"
    return first_line(error)
