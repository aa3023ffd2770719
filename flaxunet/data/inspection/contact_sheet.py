"""Draws a contact sheet: a few samples of each split, with their masks painted over them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flaxunet.data.inspection.facts import Facts
from flaxunet.data.inspection.report import Report
from flaxunet.files import write_whole
from flaxunet.labels import class_color, mark_ignored
from flaxunet.report import overlay

SAMPLES = {"train": 12, "validation": 6, "test": 6}
COLUMNS = 6
SIDE = 200  # pixels of a picture; each sample has two, one above the other
GAP = 12
LINE = 16
LEGEND = 28
PAPER, INK, FAINT = (250, 250, 250), (20, 20, 20), (110, 110, 110)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write(report: Report, path: Path) -> None:
    """Draws samples of each split, evenly spread over it: the image, and below it the same with its mask.

    Classes, which the legend names, or objects have the colours of `flaxunet.labels.PALETTE`; ignored pixels
    are striped. Images are stretched between their 0.5th and 99.5th percentile; of an image with other than
    three channels, the first is shown. The file is written whole or not at all.

    Args:
      report: of the dataset.
      path: of the PNG.
    Raises: OSError if it cannot be written.
    """
    chosen = [
        (split, one) for split, members in report.splits.items() for one in _spread(members, SAMPLES[split])
    ]
    rows = max(1, -(-len(chosen) // COLUMNS))
    height = 2 * SIDE + 2 * LINE + 3 * GAP
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, LEGEND + rows * height + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    _legend(report, pen, font)
    for index, (split, one) in enumerate(chosen):
        left, top = GAP + index % COLUMNS * (SIDE + GAP), LEGEND + GAP + index // COLUMNS * height
        image, mask = one.record.read()
        label = mark_ignored(mask, report.ignore_label)
        base = overlay.gray_or_rgb(image)
        pen.text((left, top), _shorten(one.record.name, pen, font), INK, font)
        about = f"{split}, {one.shape[0]} x {one.shape[1]}, {_count_labels(one, report.ignore_label)}"
        pen.text((left, top + LINE), _shorten(about, pen, font), FAINT, font)
        y = top + 2 * LINE + 4
        for picture in map(_resize, (base, overlay.overlay(base, label))):
            sheet.paste(picture, (left, y))
            y += picture.height + 4
    file = io.BytesIO()
    sheet.save(file, "PNG")
    write_whole(path, file.getvalue())


def _legend(report: Report, pen: ImageDraw.ImageDraw, font: Font) -> None:
    """Draws the colours of as many classes as there is room for."""
    if report.target != "classes":
        pen.text((GAP, GAP), "every label in a colour of its own", FAINT, font)
        return
    left = GAP
    for label in report.labels[1:]:
        pen.rectangle((left, GAP, left + 12, GAP + 12), class_color(label.value))
        pen.text((left + 18, GAP), label.name, INK, font)
        left += 18 + round(pen.textlength(label.name, font)) + 2 * GAP
        if left > COLUMNS * SIDE:
            return


def _spread(members: Sequence[Facts], count: int) -> list[Facts]:
    """Chooses evenly spread members, without empty masks if there are enough others."""
    labelled = [one for one in members if one.values.max() > 0]
    members = labelled if len(labelled) >= min(count, len(members)) else members
    indices = np.unique(np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(int))
    return [members[index] for index in indices]


def _count_labels(facts: Facts, ignore_label: int | None) -> str:
    values = [value for value in facts.values.tolist() if value not in (0, ignore_label)]
    return f"{len(values)} label{'' if len(values) == 1 else 's'}" if values else "empty"


def _resize(picture: np.ndarray) -> Image.Image:
    """Resizes into SIDE x SIDE, keeping the aspect ratio; small pictures keep square pixels."""
    image = Image.fromarray((255 * picture + 0.5).astype(np.uint8))
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _shorten(text: str, pen: ImageDraw.ImageDraw, font: Font) -> str:
    """Shortens a text in the middle, to the width of a picture."""
    if pen.textlength(text, font) <= SIDE:
        return text
    keep = len(text) // 2
    while keep > 1 and pen.textlength(f"{text[:keep]}...{text[-keep:]}", font) > SIDE:
        keep -= 1
    return f"{text[:keep]}...{text[-keep:]}"
