"""Finds what is to be scored, checks that all of it can be read and fits, and settles how it is scored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from flaxunet import data, labels
from flaxunet.data import DataError, Listing
from flaxunet.data.classes import check_classes
from flaxunet.data.layouts import brain
from flaxunet.evaluation.check import read_contents
from flaxunet.evaluation.predictions import Source
from flaxunet.evaluation.runs import TRAINING_SPLITS, Run, Split, choose_split, common_flag
from flaxunet.evaluation.units import Unit, group_records
from flaxunet.io import planes

# The labels of a source are classes of the target, foreground where above 0, or numbers of objects.
CLASSES, FOREGROUND, NUMBERS = "classes", "foreground", "numbers"
# The flags of training that a dataset is read with; those of a run are the defaults on its dataset.
FLAGS = ("layout", "group", "target", "ignore_label")


@dataclass(frozen=True)
class DataOptions:
    """How a dataset is read. None takes the value of the run, of the network or of the data.

    Attributes:
      layout, group: see `flaxunet.data.find`.
      axis: the plane of the slices of volumes; by default that of the training, or axial.
      split: "train", "val", "test" or "all"; by default the test split if the layout has one, else that which
        training cuts, and of stored masks all.
      seed: of the split that is cut; 0 by default, if the run has none.
      target: see `flaxunet.labels.relabel`; if masks number objects, by default from the names of classes.
      ignore_label: the stored label of true pixels that are left out.
      objects: number the objects of coco and yolo, as other layouts do by themselves, and count them.
      slices: score each slice of a volume by itself.
      spacing: see `flaxunet.evaluation.units.group_records`.
    """

    layout: str | None = None
    group: str | None = None
    axis: str | None = None
    split: str | None = None
    seed: int | None = None
    target: str | None = None
    ignore_label: int | None = None
    objects: bool = False
    slices: bool = False
    spacing: Sequence[float] | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be scored: all of it can be read and fits together.

    Attributes:
      dataset: as its layout lists it.
      options: that it was read with, defaults filled in.
      split, units: of the dataset, and the images or volumes of the split.
      sources: of predictions; the second one is compared with the first.
      class_names: background first.
      target: what the masks are relabelled to; see `flaxunet.labels.relabel`.
      count_objects: whether objects are counted.
      label_kinds: of each source, `CLASSES`, `FOREGROUND` or `NUMBERS`.
    """

    dataset: Listing
    options: DataOptions
    split: Split
    units: tuple[Unit, ...]
    sources: tuple[Source, ...]
    class_names: tuple[str, ...]
    target: str
    count_objects: bool
    label_kinds: tuple[str, ...]

    @property
    def flags(self) -> dict[str, Any]:
        """The flags of training that the dataset was read with."""
        options = replace(self.options, layout=self.dataset.layout, target=self.target)
        return {name: getattr(options, name) for name in FLAGS}

    @property
    def unit_name(self) -> str:
        """What is scored as one: "volume" or "image"."""
        return "volume" if self.units[0].axis else "image"

    @property
    def length_unit(self) -> str:
        """Of distances: "mm", or "px" where the spacing is not known."""
        return "px" if self.units[0].spacing is None else "mm"

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What may keep the scores from meaning what they seem to, one line each."""
        lines = []
        for source in self.sources if data.LAYOUTS[self.dataset.layout].has_volumes else ():
            if source.axis not in (None, self.options.axis):
                trained = f"those that {source.title} was trained on were {source.axis}"
                lines.append(f"slices are {self.options.axis}; {trained}")
        of_data = self.dataset.class_names
        if self.target == "classes" and of_data is not None and of_data != self.class_names:
            both = f"{', '.join(of_data)} in the data and {', '.join(self.class_names)} in the network"
            lines.append(f"classes are called {both}")
        for source in self.sources:
            runs = _runs_on(source, self.dataset.root)
            trained = {id(record) for run in runs for record in run.records(self.dataset, *TRAINING_SPLITS)}
            if count := sum(id(record) in trained for record in self.split.records):
                use = f"training or validation of {source.title}; its scores are too high"
                lines.append(f"{count:,} of {len(self.split.records):,} samples were for {use}")
        return tuple(lines)


def prepare(sources: Sequence[Source], root: Path, options: DataOptions, *, threads: int = 2) -> Plan:
    """Find the data, and read all of it once to check that it fits.

    For networks of runs on the same data, layout, group, target and ignore_label are those of the runs unless
    they are given; without a seed, so are train and validation, and test if the layout has none.

    Args:
      sources: one, or two to be compared; the runs are those of the first one that has any.
      root: the folder or file of the dataset.
      options: how it is read.
      threads: that read files.
    Returns: what is to be scored.
    Raises: DataError that lists every file that cannot be read or does not fit; ValueError for options that
      do not fit, and for runs that differ in what is taken from them.
    """
    if options.target is not None and options.target not in labels.TARGETS:
        raise ValueError(f"unknown target {options.target!r}; expected one of {', '.join(labels.TARGETS)}")
    if not root.exists() and not brain.recognize(root):
        raise ValueError(f"{root}: no such file or folder")
    runs = next((used for source in sources if (used := _runs_on(source, root))), [])
    of_runs = {name: common_flag(runs, name) for name in FLAGS if getattr(options, name) in (None, "")}
    if of_runs.get("target") == "classes":
        of_runs["target"] = None  # the default, except for masks that number objects
    options = replace(options, **of_runs)
    predicted = _predicted_class_names(sources)
    trained_axis = next((source.axis for source in sources if source.axis is not None), None)
    axis = options.axis or trained_axis or planes.DEFAULT_AXIS
    objects = options.objects or (options.target or labels.target_of(predicted)) in labels.OBJECT_TARGETS
    dataset = data.find(root, layout=options.layout, group=options.group, objects=objects, axis=axis)
    if dataset.problems:
        raise DataError(dataset.problems)
    target = options.target or (_target_of(dataset, predicted, sources) if dataset.instances else "classes")
    of_target = labels.CLASS_NAMES.get(target)
    if of_target is not None and predicted is not None and len(predicted) != len(of_target):
        both = f"{', '.join(of_target)}, {sources[0].title} has {', '.join(predicted)}"
        raise ValueError(f"--target {target} has the classes {both}; expected equal numbers")
    count_objects = dataset.instances and target != "classes"
    for source in sources:
        replace(source.steps, instances=count_objects).check(of_target or source.class_names or ())
    networks = any(source.is_network for source in sources)
    split = choose_split(dataset, options.split, options.seed, runs, networks=networks)
    units = group_records(
        split.records,
        volumes=data.LAYOUTS[dataset.layout].has_volumes and not options.slices,
        axis=axis,
        grouped=options.group is not None,
        spacing=options.spacing,
    )
    ignore_label = options.ignore_label
    contents = read_contents(units, sources, target=target, ignore_label=ignore_label, threads=threads)
    of_data = dataset.class_names if len(dataset.class_names or ()) > 1 else None
    class_names = predicted or of_target or of_data
    expected = None if class_names is None else len(class_names)
    classes = check_classes(contents.samples, expected, contents.problems, target=target)
    if contents.problems:
        raise DataError(contents.problems)
    for source in sources:
        source.set_sizes(contents.sizes)
    class_names = class_names or labels.default_names(classes)
    return Plan(
        dataset=dataset,
        options=replace(options, axis=axis),
        split=split,
        units=tuple(units),
        sources=tuple(sources),
        class_names=class_names,
        target=target,
        count_objects=count_objects,
        label_kinds=tuple(map(partial(_label_kind, target), sources, contents.labels)),
    )


def _runs_on(source: Source, root: Path) -> list[Run]:
    """The runs of a source that were trained on a dataset."""
    return [run for run in source.runs if run.used(root)]


def _predicted_class_names(sources: Sequence[Source]) -> tuple[str, ...] | None:
    """The class names of all sources that have any."""
    named = [source for source in sources if source.class_names is not None]
    for other in named[1:]:
        if other.class_names != named[0].class_names:
            both = (f"{one.title} has {', '.join(one.class_names or ())}" for one in (named[0], other))
            raise ValueError(f"{', '.join(both)}; expected networks of the same classes")
    return named[0].class_names if named else None


def _target_of(dataset: Listing, predicted: tuple[str, ...] | None, sources: Sequence[Source]) -> str:
    """The target that numbered objects were relabelled to, by the names of the predicted classes."""
    target = labels.target_of(predicted)
    if target is not None:
        return target
    if predicted is None or len(predicted) == 2:
        return "foreground"
    expected = " or ".join(f"({', '.join(names)})" for names in labels.CLASS_NAMES.values())
    raise ValueError(
        f"{dataset.root}: masks of the layout {dataset.layout} number objects, {sources[0].title} has "
        f"{', '.join(predicted)}; expected classes {expected}"
    )


def _label_kind(target: str, source: Source, label_sets: set[frozenset[int]]) -> str:
    """What the labels of a source are, which may number objects where those of the truth do."""
    classes = set(range(1, len(labels.CLASS_NAMES.get(target, ()))))
    if source.is_network or target == "classes" or set().union(*label_sets) == classes:
        return CLASSES
    return NUMBERS if any(len(one) > 1 for one in label_sets) else FOREGROUND
