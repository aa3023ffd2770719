"""A network, or a folder of predicted masks, and a dataset enter; scores, a table and a page leave."""

from flaxunet.evaluation.measure import measure
from flaxunet.evaluation.prepare import Plan, prepare
from flaxunet.evaluation.result import Result

__all__ = ["Plan", "Result", "measure", "prepare"]
