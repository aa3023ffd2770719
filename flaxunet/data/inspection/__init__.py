"""A dataset enters; all that is wrong with it, what it is made of, and how to train on it leave."""

from flaxunet.data.inspection.examine import examine
from flaxunet.data.inspection.report import Finding, Report

__all__ = ["Finding", "Report", "examine"]
