"""The table at the end of a run has a row for each class."""

import numpy as np
from rich.console import Console

from train.show.terminal import class_table


def test_table_has_a_row_per_class_and_the_foreground_mean():
    console = Console(width=80, color_system=None)
    table = class_table(
        ("background", "[b]lesion", "vessel"), [0.99, 0.8, np.nan], [0.98, 0.667, np.nan], [1234567, 89, 0]
    )
    with console.capture() as capture:
        console.print(table)
    lines = [line.split() for line in capture.get().splitlines()]
    assert lines == [
        ["class", "Dice", "IoU", "pixels"],
        ["background", "0.990", "0.980", "1,234,567"],
        ["[b]lesion", "0.800", "0.667", "89"],
        ["vessel", "-", "-", "0"],
        ["foreground", "mean", "0.800", "0.667", "89"],
    ]
