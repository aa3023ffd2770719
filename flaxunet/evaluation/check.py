"""Reads everything that is to be scored once, and collects labels, sizes and problems."""

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
class Contents:
    """What images and masks hold.

    Attributes:
      labels: of each source, the different sets of labels above 0 that its stored masks have.
      samples: of each record, and of each stored prediction.
      problems: one line each.
      sizes: (H, W) of the images.
    """

    labels: list[set[frozenset[int]]]
    samples: list[SampleSummary] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)


def read_contents(
    units: Sequence[Unit], sources: Sequence[Source], *, target: str, ignore_label: int | None, threads: int
) -> Contents:
    """Read all images, masks and stored predictions, several files at a time, and keep none of them.

    Args:
      units, sources: to be scored.
      target: see `flaxunet.labels.relabel`.
      ignore_label: the stored label of true pixels that are left out.
      threads: that read files.
    """
    read = partial(_read_unit, sources=sources, target=target, ignore_label=ignore_label)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        parts = list(pool.map(read, units))
    return Contents(
        [set().union(*of_source) for of_source in zip(*(part.labels for part in parts), strict=True)],
        [sample for part in parts for sample in part.samples],
        list(dict.fromkeys(line for part in parts for line in part.problems)),
        list(dict.fromkeys(size for part in parts for size in part.sizes)),
    )


def _read_unit(unit: Unit, sources: Sequence[Source], target: str, ignore_label: int | None) -> Contents:
    contents, size = Contents([set() for _ in sources]), None
    for record in unit.records:
        try:
            image, mask = record.read()
        except DataError as error:
            contents.problems += error.problems
            continue
        size = (mask.shape[0], mask.shape[1])
        contents.sizes.append(size)
        values = target_values(mask, target, ignore_label)
        sample = SampleSummary(record.image_location, record.mask_location, image.shape[-1], values)
        contents.samples.append(sample)
        for source in sources:
            try:
                source.check(image)
            except ValueError as error:
                contents.problems.append(f"{record.image_location}: {error}")
    for source, label_sets in zip(sources, contents.labels, strict=True):
        try:
            stored = source.read_labels(unit)
        except ValueError as error:
            contents.problems.append(str(error))
            continue
        if stored is None:
            continue
        location, labels = stored
        label_sets.add(frozenset(np.unique(labels[labels > 0]).tolist()))
        contents.samples.append(SampleSummary(location, location, 1, target_values(labels, target)))
        expected = (len(unit.records), *(size or labels.shape[1:]))
        if labels.shape != expected:
            sizes = [" x ".join(map(str, shape[-unit.dimensions :])) for shape in (labels.shape, expected)]
            line = f"{location}: {sizes[0]} pixels; expected {sizes[1]}, the size of its image"
            contents.problems.append(line)
    return contents
