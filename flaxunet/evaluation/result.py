"""Summarizes scores: means with intervals, pooled scores, a comparison, and the content of the files."""

import csv
import importlib.metadata
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flaxunet import metrics
from flaxunet.evaluation.plan import Plan
from flaxunet.evaluation.score import Case, ScoreOptions, UnitScores
from flaxunet.metrics import SCORES, Detections, statistics
from flaxunet.metrics.objects import IOU
from flaxunet.metrics.statistics import Difference, Mean

MEAN = "mean of classes"
"""The column of the mean over foreground classes, taken for each unit before the mean over units."""
PIXEL_COUNTS = ("true_pixels", "found_pixels")
OBJECT_SCORES: dict[str, Callable[[Detections], Any]] = {
    "object_hits": lambda objects: objects.tp,
    "object_extra": lambda objects: objects.fp,
    "object_missed": lambda objects: objects.fn,
    "object_f1": lambda objects: _cell(objects.f1),
    "object_ap": lambda objects: _cell(objects.ap),
}
"""Columns of scores.csv for objects."""
VERSIONS = ("flaxunet", "jax", "numpy", "scipy")


@dataclass(frozen=True)
class Outcome:
    """The scores of one source.

    Attributes:
      title: of the source.
      class_names: background first.
      units: in the order of the plan.
      groups: of the units, or None if none is known.
      resamples: of the intervals.
    """

    title: str
    class_names: tuple[str, ...]
    units: tuple[UnitScores, ...]
    groups: tuple[str, ...] | None
    resamples: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The foreground classes, and their mean if there are several."""
        return (*self.class_names[1:], *([MEAN] if len(self.class_names) > 2 else []))

    @cached_property
    def tables(self) -> np.ndarray:
        """(N, columns, S) scores; the mean of a unit is over the classes that have a score."""
        tables = np.stack([unit.table for unit in self.units])
        if len(self.columns) == tables.shape[1]:
            return tables
        scored = ~np.isnan(tables)
        count = scored.sum(1, keepdims=True)
        mean = np.where(scored, tables, 0).sum(1, keepdims=True) / np.maximum(count, 1)
        return np.concatenate([tables, np.where(count > 0, mean, np.nan)], axis=1)

    @cached_property
    def means(self) -> dict[str, dict[str, Mean]]:
        """For each column, the mean over units of each score."""
        flat = self.tables.reshape(len(self.units), -1)
        means = iter(statistics.means(flat, self.groups, resamples=self.resamples))
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
            pooled[MEAN] = {
                score: float("nan") if np.isnan(values[1:]).all() else metrics.mean_foreground(values)
                for score, values in table.items()
            }
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
        means = statistics.means(np.array(values), self.groups, resamples=self.resamples)
        return dict(zip(("f1", "ap"), means, strict=True))


@dataclass(frozen=True)
class Result:
    """An evaluation.

    Attributes:
      plan: of what was scored.
      options: of how it was scored.
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
        cls,
        plan: Plan,
        options: ScoreOptions,
        scores: Sequence[Sequence[UnitScores]],
        cases: Sequence[Case],
        *,
        resamples: int = statistics.RESAMPLES,
    ) -> "Result":
        """Make a result of what `score_units` returns."""
        names = [unit.group for unit in plan.units]
        groups = None
        if any(names):  # a unit without a group is a group of its own
            groups = tuple(f"group {name}" if name else f"unit {n}" for n, name in enumerate(names))
        first, *others = (
            Outcome(source.title, plan.class_names, tuple(units), groups, resamples)
            for source, units in zip(plan.sources, scores, strict=True)
        )
        return cls(plan, options, first, others[0] if others else None, tuple(cases))

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
        differences = statistics.differences(
            one, other, self.outcome.groups, resamples=self.outcome.resamples
        )
        return dict(zip(self.outcome.columns, differences, strict=True))

    def content(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The content of scores.json; NaN is null."""
        plan = self.plan
        return _without_nan(
            {
                "settings": dict(settings),
                "data": {
                    "root": str(plan.dataset.root),
                    "layout": plan.dataset.layout,
                    "split": plan.split.name,
                    "seed": plan.split.seed,
                    "run": plan.split.run,
                    "scored": f"{plan.unit_name}s",
                    "count": len(plan.units),
                    "groups": len(set(self.outcome.groups)) if self.outcome.groups else None,
                    "target": plan.target,
                    "classes": plan.class_names,
                    "unit": plan.length_unit,
                },
                "definitions": {
                    "surface": self.options.surface,
                    "tolerance": self.options.tolerance,
                    "interval": statistics.CONFIDENCE,
                    "resamples": self.outcome.resamples,
                    "iou_of_objects": IOU,
                },
                "warnings": plan.warnings,
                "models": [
                    {
                        "model": outcome.title,
                        "means": {
                            column: {score: mean._asdict() for score, mean in means.items()}
                            for column, means in outcome.means.items()
                        },
                        "pooled": outcome.pooled,
                        "confusion": outcome.confusion.tolist(),
                        "objects": _object_content(outcome),
                    }
                    for outcome in self.outcomes
                ],
                "differences_of_dice": {name: one._asdict() for name, one in self.differences.items()}
                or None,
                "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
            }
        )

    def csv_text(self) -> str:
        """The content of scores.csv: a row for each model, unit and class; empty where NaN."""
        of_objects = () if self.outcome.objects is None else tuple(OBJECT_SCORES)
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
                    cells = {name: value(unit.objects) for name, value in OBJECT_SCORES.items()}
                    table.writerow({**row, "class": "objects", **cells})
        return text.getvalue()


def _object_content(outcome: Outcome) -> dict[str, Any] | None:
    objects = outcome.objects
    if objects is None:
        return None
    counts = {"hits": objects.tp, "extra": objects.fp, "missed": objects.fn}
    return {
        "means": {name: mean._asdict() for name, mean in outcome.object_means.items()},
        "pooled": {**counts, "f1": objects.f1, "ap": objects.ap},
    }


def _cell(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.6f}"


def _without_nan(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
