"""Scoring of a network, or of a folder of predicted masks, on a dataset."""

from flaxunet.evaluation.plan import DataOptions, Plan, prepare
from flaxunet.evaluation.result import Result
from flaxunet.evaluation.score import ScoreOptions, score_units

__all__ = ["DataOptions", "Plan", "Result", "ScoreOptions", "prepare", "score_units"]
