"""Runs of `python -m flaxunet inspect`, and masks for it."""

import json
from pathlib import Path

import numpy as np

from flaxunet.__main__ import main


def finding_lines(report, error=True):
    """The errors or the warnings of a report, each as a line."""
    return [str(one) for one in (report.errors if error else report.warnings)]


def inspect_command(capsys, root, *flags, code=0):
    """What the command prints, and the content of inspect.json."""
    out = Path(root).parent / "inspected"
    assert main(["inspect", str(root), "--out", str(out), *flags]) == code
    assert not list(out.glob("*.part"))
    return capsys.readouterr().out, json.loads((out / "inspect.json").read_text())


def stripes(labels, size=40):
    """A square mask that holds the labels in stripes."""
    return np.repeat(np.array(labels, np.uint8), -(-size // len(labels)))[:size, None].repeat(size, axis=1)
