"""Inspects a dataset: what is wrong with it, what it is made of, and how to train on it."""

from flaxunet.data.inspection.examine import examine
from flaxunet.data.inspection.report import Finding, Report

__all__ = ["Finding", "Report", "examine"]
