"""The scores of images and volumes enter; means, intervals, a comparison, and what is stored leave."""

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
from flaxunet.evaluation.score import Case, Scored
from flaxunet.metrics import statistics
from flaxunet.metrics.statistics import Difference, Mean

MEAN = "mean of classes"
"""What the mean of the foreground classes is called, for each image before over images."""
VERSIONS = ("flaxunet", "jax", "numpy", "scipy")


@dataclass(frozen=True)
class Outcome:
    """What one source scored.

    Attributes:
      title: of the source.
      names: of the classes, background first.
      units: in the order of the plan.
      groups: of each unit, or None if none is known.
      resamples: of the intervals.
    """

    title: str
    names: tuple[str, ...]
    units: tuple[Scored, ...]
    groups: tuple[str, ...] | None
    resamples: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The foreground classes, and their mean if there are several."""
        return (*self.names[1:], *([MEAN] if len(self.names) > 2 else []))

    @cached_property
    def tables(self) -> np.ndarray:
        """(N, columns, 7) scores of units; the mean of a unit is over the classes that have a score."""
        tables = np.stack([unit.table for unit in self.units])
        if len(self.columns) == tables.shape[1]:
            return tables
        known = ~np.isnan(tables)
        count = known.sum(1, keepdims=True)
        mean = np.where(known, tables, 0).sum(1, keepdims=True) / np.maximum(count, 1)
        return np.concatenate([tables, np.where(count > 0, mean, np.nan)], axis=1)

    @cached_property
    def means(self) -> dict[str, dict[str, Mean]]:
        """Of each column, each score's mean over units."""
        flat = self.tables.reshape(len(self.units), -1)
        found = iter(statistics.means(flat, self.groups, resamples=self.resamples))
        return {column: {score: next(found) for score in metrics.SCORES} for column in self.columns}

    @cached_property
    def confusion(self) -> np.ndarray:
        """(K, K) int64 of all units together."""
        return np.sum([unit.confusion for unit in self.units], axis=0)

    @cached_property
    def pooled(self) -> dict[str, dict[str, float]]:
        """Of each column, the overlaps counted over all pixels together, as training counts them."""
        table = metrics.overlap_scores(self.confusion)
        pooled = {
            name: {score: float(values[label]) for score, values in table.items()}
            for label, name in enumerate(self.names[1:], 1)
        }
        if MEAN in self.columns:
            pooled[MEAN] = {
                score: float("nan") if np.isnan(values[1:]).all() else metrics.mean_foreground(values)
                for score, values in table.items()
            }
        return pooled

    @cached_property
    def objects(self) -> metrics.Detections | None:
        """Of all units together."""
        counted = [unit.objects for unit in self.units if unit.objects is not None]
        return sum(counted, start=metrics.Detections(0, 0, 0)) if counted else None

    @cached_property
    def object_means(self) -> dict[str, Mean]:
        """F1 and average precision of units."""
        each = [(unit.objects.f1, unit.objects.ap) for unit in self.units if unit.objects is not None]
        found = statistics.means(np.array(each), self.groups, resamples=self.resamples)
        return dict(zip(("f1", "ap"), found, strict=True))


@dataclass(frozen=True)
class Result:
    """All that was found.

    Attributes:
      plan: what was scored.
      tolerance: of NSD.
      kind: of surface.
      outcome: of the first source.
      other: of the one that it is compared with, or None.
      cases: that went worst.
    """

    plan: Plan
    tolerance: float
    kind: str
    outcome: Outcome
    other: Outcome | None
    cases: tuple[Case, ...]

    @classmethod
    def of(
        cls,
        plan: Plan,
        scored: Sequence[Sequence[Scored]],
        cases: Sequence[Case],
        *,
        tolerance: float,
        kind: str = "border",
        resamples: int = statistics.RESAMPLES,
    ) -> "Result":
        """Of what `measure` gives."""
        each = [unit.group for unit in plan.units]
        # One without a group is its own.
        groups = tuple(f"group {g}" if g else f"unit {n}" for n, g in enumerate(each)) if any(each) else None
        first, *others = (
            Outcome(source.title, plan.names, tuple(mine), groups, resamples)
            for source, mine in zip(plan.sources, scored, strict=True)
        )
        return cls(plan, tolerance, kind, first, others[0] if others else None, tuple(cases))

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Of all sources."""
        return (self.outcome,) if self.other is None else (self.outcome, self.other)

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """Of each column's Dice, the first source's minus the other's."""
        if self.other is None:
            return {}
        one, other = self.outcome, self.other
        pair = one.tables[:, :, 0], other.tables[:, :, 0]
        found = statistics.differences(*pair, one.groups, resamples=one.resamples)
        return dict(zip(self.outcome.columns, found, strict=True))

    def content(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The content of scores.json; what is not a number is null."""
        plan = self.plan
        return _finite(
            {
                "settings": dict(settings),
                "data": {
                    "root": str(plan.found.root),
                    "layout": plan.found.layout,
                    "split": plan.split,
                    "seed": plan.seed,
                    "run": plan.run,
                    "scored": "volumes" if plan.units[0].axis else "images",
                    "count": len(plan.units),
                    "groups": len(set(self.outcome.groups)) if self.outcome.groups else None,
                    "target": plan.target,
                    "classes": plan.names,
                    "unit": plan.unit,
                },
                "definitions": {
                    "surface": self.kind,
                    "tolerance": self.tolerance,
                    "interval": statistics.CONFIDENCE,
                    "resamples": self.outcome.resamples,
                    "iou_of_objects": 0.5,
                },
                "warnings": plan.warnings,
                "models": [
                    {
                        "model": one.title,
                        "means": {c: {s: m._asdict() for s, m in of.items()} for c, of in one.means.items()},
                        "pooled": one.pooled,
                        "confusion": one.confusion.tolist(),
                        "objects": one.objects and _objects(one),
                    }
                    for one in self.outcomes
                ],
                "differences_of_dice": {name: one._asdict() for name, one in self.differences.items()}
                or None,
                "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
            }
        )

    def rows(self) -> str:
        """The content of scores.csv: a row for each model, image or volume, and class; empty where NaN."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        counts = ("true_pixels", "found_pixels")
        objects = ("object_hits", "object_extra", "object_missed", "object_f1", "object_ap")
        with_objects = self.outcome.objects is not None
        head = ("model", "name", "group", "class", *metrics.SCORES, *counts)
        table.writerow((*head, *objects) if with_objects else head)
        for outcome in self.outcomes:
            for unit in outcome.units:
                start = (outcome.title, unit.name, unit.group)
                sizes = unit.confusion.sum(1), unit.confusion.sum(0)
                for label, name in enumerate(outcome.names[1:], 1):
                    row = [*start, name, *map(_cell, unit.table[label - 1]), *(size[label] for size in sizes)]
                    table.writerow([*row, *[None] * len(objects)] if with_objects else row)
                if (one := unit.objects) is not None:
                    found = one.tp, one.fp, one.fn, _cell(one.f1), _cell(one.ap)
                    table.writerow([*start, "objects", *[None] * len((*metrics.SCORES, *counts)), *found])
        return text.getvalue()


def _objects(outcome: Outcome) -> dict[str, Any]:
    found = outcome.objects
    assert found is not None
    means = {name: one._asdict() for name, one in outcome.object_means.items()}
    counts = {"hits": found.tp, "extra": found.fp, "missed": found.fn}
    return {"means": means, "pooled": {**counts, "f1": found.f1, "ap": found.ap}}


def _cell(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.6f}"


def _finite(value: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
