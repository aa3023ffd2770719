"""Draws a contact sheet: a few samples of each split, with their masks painted over them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flaxunet.data.inspection.facts import Facts
from flaxunet.data.inspection.report import Report
from flaxunet.files import whole_file
from flaxunet.labels import class_color, mark_ignored
from flaxunet.report import overlay

SAMPLES = {"train": 12, "validation": 6, "test": 6}
COLUMNS = 6
SIDE, GAP, LINE, LEGEND = 200, 12, 16, 28  # pixels; a sample has two pictures, one above the other
PAPER, INK, FAINT = (250, 250, 250), (20, 20, 20), (110, 110, 110)


def write(report: Report, path: Path) -> None:
    """Draws samples of each split, evenly spread over it: the image, and below it the same with its mask.

    Classes, which the legend names, or objects have the colours of `flaxunet.labels.PALETTE`; ignored pixels
    are striped. Images are stretched between their 0.5th and 99.5th percentile; of an image with other than
    three channels, the first is shown. The PNG is written whole or not at all.

    Raises: OSError if it cannot be written.
    """
    splits = report.splits.items()
    chosen = [(split, one) for split, members in splits for one in _spread(members, SAMPLES[split])]
    rows = max(1, -(-len(chosen) // COLUMNS))
    height = 2 * SIDE + 2 * LINE + 3 * GAP
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, LEGEND + rows * height + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.font = ImageFont.load_default(12)
    _legend(report, pen)
    for index, (split, one) in enumerate(chosen):
        left, top = GAP + index % COLUMNS * (SIDE + GAP), LEGEND + GAP + index // COLUMNS * height
        image, mask = one.record.read()
        label, base = mark_ignored(mask, report.ignore_label), overlay.gray_or_rgb(image)
        count = sum(value not in (0, report.ignore_label) for value in one.values.tolist())
        content = f"{count} label{'' if count == 1 else 's'}" if count else "empty"
        about = f"{split}, {one.shape[0]} x {one.shape[1]}, {content}"
        pen.text((left, top), _shorten(one.record.name, pen), INK)
        pen.text((left, top + LINE), _shorten(about, pen), FAINT)
        y = top + 2 * LINE + 4
        for picture in map(_resize, (base, overlay.overlay(base, label))):
            sheet.paste(picture, (left, y))
            y += picture.height + 4
    with whole_file(path) as part:
        sheet.save(part, "PNG")


def _legend(report: Report, pen: ImageDraw.ImageDraw) -> None:
    """Draws the colours of as many classes as there is room for."""
    if report.target != "classes":
        pen.text((GAP, GAP), "every label in a colour of its own", FAINT)
        return
    left = GAP
    for label in report.labels[1:]:
        pen.rectangle((left, GAP, left + 12, GAP + 12), class_color(label.value))
        pen.text((left + 18, GAP), label.name, INK)
        left += 18 + round(pen.textlength(label.name)) + 2 * GAP
        if left > COLUMNS * SIDE:
            return


def _spread(members: Sequence[Facts], count: int) -> list[Facts]:
    """Chooses evenly spread members, without empty masks if there are enough others."""
    labelled = [one for one in members if one.values.max() > 0]
    members = labelled if len(labelled) >= min(count, len(members)) else members
    indices = np.unique(np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(int))
    return [members[index] for index in indices]


def _resize(picture: np.ndarray) -> Image.Image:
    """Resizes into SIDE x SIDE, keeping the aspect ratio; small pictures keep square pixels."""
    image = Image.fromarray((255 * picture + 0.5).astype(np.uint8))
    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _shorten(text: str, pen: ImageDraw.ImageDraw) -> str:
    """Shortens a text in the middle, to the width of a picture."""
    short, keep = text, len(text) // 2
    while keep > 0 and pen.textlength(short) > SIDE:
        short, keep = f"{text[:keep]}...{text[-keep:]}", keep - 1
    return short
