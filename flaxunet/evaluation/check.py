"""What is to be scored enters, is read once; the labels that there are leave, and a line for each problem."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from flaxunet.data import DataError
from flaxunet.data.classes import SampleSummary
from flaxunet.evaluation.predictions import Source
from flaxunet.evaluation.units import Unit
from flaxunet.labels import target_values


@dataclass
class Looked:
    """What was seen.

    Attributes:
      seen: of each record, and of each stored prediction.
      several: of each source, whether one of its stored masks has several labels above 0.
      labels: of each source, all that its stored masks have above 0.
      problems: a line for each.
      sizes: (H, W) of the images.
    """

    several: list[bool]
    labels: list[set[int]]
    seen: list[SampleSummary] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)


def look(
    units: Sequence[Unit],
    sources: Sequence[Source],
    *,
    target: str,
    ignore_label: int | None,
    threads: int,
) -> Looked:
    """Read everything, several files at a time, and keep none of it.

    Args:
      units: to be scored.
      sources: that predict them.
      target: see `flaxunet.labels.relabel`.
      ignore_label: the stored label of pixels of the truth that do not count.
      threads: that read.
    """
    one = partial(_look, sources=sources, target=target, ignore_label=ignore_label)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        parts = list(pool.map(one, units))
    return Looked(
        [any(part.several[number] for part in parts) for number in range(len(sources))],
        [set().union(*(part.labels[number] for part in parts)) for number in range(len(sources))],
        [seen for part in parts for seen in part.seen],
        list(dict.fromkeys(line for part in parts for line in part.problems)),
        list(dict.fromkeys(size for part in parts for size in part.sizes)),
    )


def _look(unit: Unit, sources: Sequence[Source], target: str, ignore_label: int | None) -> Looked:
    looked = Looked([False] * len(sources), [set() for _ in sources])
    size = None
    for record in unit.records:
        try:
            image, mask = record.read()
        except DataError as error:
            looked.problems += error.problems
            continue
        size = mask.shape
        looked.sizes.append((size[0], size[1]))
        channels, values = image.shape[-1], target_values(mask, target, ignore_label)
        looked.seen.append(SampleSummary(record.image_location, record.mask_location, channels, values))
        for source in sources:
            try:
                source.check(image)
            except ValueError as error:
                looked.problems.append(f"{record.image_location}: {error}")
    for number, source in enumerate(sources):
        try:
            held = source.stored(unit)
        except ValueError as error:
            looked.problems.append(str(error))
            continue
        if held is None:
            continue
        place, labels = held
        looked.labels[number] = set(np.unique(labels[labels > 0]).tolist())
        looked.several[number] = len(looked.labels[number]) > 1
        looked.seen.append(SampleSummary(place, place, 1, target_values(labels, target)))
        wanted = (len(unit.records), *(size or labels.shape[1:]))
        if labels.shape != wanted:
            sizes = [" x ".join(map(str, shape[-unit.dimensions :])) for shape in (labels.shape, wanted)]
            line = f"{place}: {sizes[0]} pixels, its image has {sizes[1]}; accepted are equal sizes"
            looked.problems.append(line)
    return looked
