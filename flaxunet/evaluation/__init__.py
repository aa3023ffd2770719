"""A network, or a folder of predicted masks, and a dataset enter; scores, a table and a page leave."""

from flaxunet.evaluation.plan import Plan, prepare
from flaxunet.evaluation.result import Result
from flaxunet.evaluation.score import measure

__all__ = ["Plan", "Result", "measure", "prepare"]
