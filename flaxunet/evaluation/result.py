"""Summarizes scores: means with intervals, pooled scores, a comparison, and the content of the files."""

import csv
import importlib.metadata
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flaxunet import metrics
from flaxunet.evaluation.plan import Plan
from flaxunet.evaluation.score import Case, ScoreOptions, UnitScores
from flaxunet.metrics import SCORES, Detections, statistics
from flaxunet.metrics.objects import IOU
from flaxunet.metrics.overlap import quotient
from flaxunet.metrics.statistics import Difference, Mean

# The column of the mean over foreground classes, taken for each unit before the mean over units.
MEAN = "mean of classes"
PIXEL_COUNTS = ("true_pixels", "found_pixels")
# The scores of objects by their names in files, in which those of scores.csv have a prefix.
OBJECT_SCORES = {"hits": "tp", "extra": "fp", "missed": "fn", "f1": "f1", "ap": "ap"}


@dataclass(frozen=True)
class Outcome:
    """The scores of one source.

    Attributes:
      title: of the source.
      class_names: background first.
      units: in the order of the plan.
      groups: of the units, or None if none is known.
    """

    title: str
    class_names: tuple[str, ...]
    units: tuple[UnitScores, ...]
    groups: tuple[str, ...] | None

    @property
    def columns(self) -> tuple[str, ...]:
        """The foreground classes, and their mean if there are several."""
        return (*self.class_names[1:], *([MEAN] if len(self.class_names) > 2 else []))

    @cached_property
    def tables(self) -> np.ndarray:
        """(N, columns, S) scores; the mean of a unit is over the classes that have a score."""
        tables = np.stack([unit.table for unit in self.units])
        if MEAN not in self.columns:
            return tables
        sums = np.where(np.isnan(tables), 0, tables).sum(1, keepdims=True)
        counts = (~np.isnan(tables)).sum(1, keepdims=True)
        return np.concatenate([tables, quotient(sums, counts)], axis=1)

    @cached_property
    def means(self) -> dict[str, dict[str, Mean]]:
        """For each column, the mean over units of each score."""
        flat = self.tables.reshape(len(self.units), -1)
        means = iter(statistics.means(flat, self.groups))
        return {column: {score: next(means) for score in SCORES} for column in self.columns}

    @cached_property
    def confusion(self) -> np.ndarray:
        """(K, K) int64, summed over units."""
        return np.sum([unit.confusion for unit in self.units], axis=0)

    @cached_property
    def pooled(self) -> dict[str, dict[str, float]]:
        """For each column, the overlap scores of all pixels together, as training counts them."""
        table = metrics.overlap_scores(self.confusion)
        pooled = {
            name: {score: float(values[label]) for score, values in table.items()}
            for label, name in enumerate(self.class_names[1:], 1)
        }
        if MEAN in self.columns:
            means = {score: metrics.mean_foreground(values) for score, values in table.items()}
            absent = {score for score, values in table.items() if np.isnan(values[1:]).all()}
            pooled[MEAN] = means | dict.fromkeys(absent, float("nan"))
        return pooled

    @cached_property
    def objects(self) -> Detections | None:
        """Counts of objects, summed over units."""
        counted = [unit.objects for unit in self.units if unit.objects is not None]
        return sum(counted, start=Detections(0, 0, 0)) if counted else None

    @cached_property
    def object_means(self) -> dict[str, Mean]:
        """F1 and average precision of objects, means over units."""
        values = [(unit.objects.f1, unit.objects.ap) for unit in self.units if unit.objects is not None]
        return dict(zip(("f1", "ap"), statistics.means(np.array(values), self.groups), strict=True))


@dataclass(frozen=True)
class Result:
    """An evaluation.

    Attributes:
      plan, options: what was scored, and how.
      outcome: of the first source.
      other: of the source that it is compared with, or None.
      cases: with the lowest Dice.
    """

    plan: Plan
    options: ScoreOptions
    outcome: Outcome
    other: Outcome | None
    cases: tuple[Case, ...]

    @classmethod
    def from_scores(
        cls, plan: Plan, options: ScoreOptions, scores: Sequence[Sequence[UnitScores]], cases: Sequence[Case]
    ) -> "Result":
        """Make a result of what `score_units` returns."""
        names, groups = [unit.group for unit in plan.units], None
        if any(names):  # a unit without a group is a group of its own
            groups = tuple(f"group {name}" if name else f"unit {n}" for n, name in enumerate(names))
        outcomes = [
            Outcome(source.title, plan.class_names, tuple(units), groups)
            for source, units in zip(plan.sources, scores, strict=True)
        ]
        return cls(plan, options, outcomes[0], (*outcomes[1:], None)[0], tuple(cases))

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Of all sources."""
        return (self.outcome,) if self.other is None else (self.outcome, self.other)

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """For each column, the Dice of the first source minus that of the other."""
        if self.other is None:
            return {}
        one, other = (outcome.tables[:, :, 0] for outcome in self.outcomes)
        differences = statistics.differences(one, other, self.outcome.groups)
        return dict(zip(self.outcome.columns, differences, strict=True))

    def content(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The content of scores.json; NaN is null."""
        plan, groups = self.plan, self.outcome.groups
        content = {
            "settings": dict(settings),
            "data": {
                "root": str(plan.dataset.root),
                "layout": plan.dataset.layout,
                "split": plan.split.name,
                "seed": plan.split.seed,
                "run": plan.split.run,
                "scored": f"{plan.unit_name}s",
                "count": len(plan.units),
                "groups": len(set(groups)) if groups else None,
                "target": plan.target,
                "classes": plan.class_names,
                "unit": plan.length_unit,
            },
            "definitions": {
                "surface": self.options.surface,
                "tolerance": self.options.tolerance,
                "interval": statistics.CONFIDENCE,
                "resamples": statistics.RESAMPLES,
                "iou_of_objects": IOU,
            },
            "warnings": plan.warnings,
            "models": [_model_content(outcome) for outcome in self.outcomes],
            "differences_of_dice": _as_dicts(self.differences) or None,
            "versions": versions(),
        }
        return _without_nan(content)

    def csv_text(self) -> str:
        """The content of scores.csv: a row for each model, unit and class; empty where NaN."""
        of_objects = [] if self.outcome.objects is None else [f"object_{name}" for name in OBJECT_SCORES]
        columns = ("model", "name", "group", "class", *SCORES, *PIXEL_COUNTS, *of_objects)
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        for outcome in self.outcomes:
            for unit in outcome.units:
                row = {"model": outcome.title, "name": unit.name, "group": unit.group}
                pixels = np.stack([unit.confusion.sum(1), unit.confusion.sum(0)], axis=1).tolist()
                for label, name in enumerate(outcome.class_names[1:], 1):
                    scores = dict(zip(SCORES, map(_cell, unit.table[label - 1]), strict=True))
                    counts = dict(zip(PIXEL_COUNTS, pixels[label], strict=True))
                    table.writerow({**row, "class": name, **scores, **counts})
                if unit.objects is not None:
                    cells = zip(of_objects, map(_cell, _object_scores(unit.objects).values()), strict=True)
                    table.writerow({**row, "class": "objects", **dict(cells)})
        return text.getvalue()


def versions() -> dict[str, str]:
    """Versions of the packages that scores depend on."""
    return {name: importlib.metadata.version(name) for name in ("flaxunet", "jax", "numpy", "scipy")}


def _model_content(outcome: Outcome) -> dict[str, Any]:
    objects = None
    if outcome.objects is not None:
        objects = {"means": _as_dicts(outcome.object_means), "pooled": _object_scores(outcome.objects)}
    return {
        "model": outcome.title,
        "means": {column: _as_dicts(means) for column, means in outcome.means.items()},
        "pooled": outcome.pooled,
        "confusion": outcome.confusion.tolist(),
        "objects": objects,
    }


def _as_dicts(values: Mapping[str, Mean] | Mapping[str, Difference]) -> dict[str, dict[str, Any]]:
    return {name: value._asdict() for name, value in values.items()}


def _object_scores(objects: Detections) -> dict[str, float]:
    return {name: getattr(objects, attribute) for name, attribute in OBJECT_SCORES.items()}


def _cell(value: float) -> str | int | None:
    if isinstance(value, int):
        return value
    return None if math.isnan(value) else f"{value:.6f}"


def _without_nan(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
