"""Draws learning curves, training batches and predictions as PNG files."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from flaxunet import metrics
from flaxunet.files import whole_file
from flaxunet.labels import IGNORE, PALETTE, class_color, hex_color
from flaxunet.report.html import number
from flaxunet.report.overlay import CONFUSED, EXTRA, MISSED, errors, gray_or_rgb, overlay

Rows = Sequence[Mapping[str, float | None]]
Sample = tuple[str, np.ndarray, np.ndarray, np.ndarray]

DPI = 100
WIDTH, MARGIN, GAP, LINE = 1200, 16, 8, 26  # pixels, as all lengths below
CURVES_HEIGHT = 440
INK, FAINT = "#24292f", "#8b949e"
DARK_INK, DARK_PAPER = "#d1d7de", "#16191d"


def write_curves(rows: Rows, path: str | PathLike[str]) -> None:
    """Draws loss and Dice against the step, 1200 x 440 pixels, and replaces the file whole.

    Args:
      rows: flat records with `step` and any of train_loss, val_loss, val_dice, val_dice_<class>, test_dice
        and best_step; None and NaN leave gaps.
      path: of the PNG file.
    """
    _save(_curves(rows), path)


def curves_png(rows: Rows, *, dark: bool = False) -> bytes:
    """Draws the same at twice the resolution, as the bytes of a PNG file.

    Args:
      rows: as of `write_curves`.
      dark: whether it is for a dark page.
    """
    picture = io.BytesIO()
    _render(_curves(rows, *((DARK_INK, DARK_PAPER) if dark else ())), picture, 2 * DPI)
    return picture.getvalue()


def _curves(rows: Rows, ink: str = INK, paper: str = "white") -> Figure:
    figure = _figure(CURVES_HEIGHT)
    figure.set_facecolor(paper)
    loss, dice = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.055, right=0.985, bottom=0.115, top=0.91, wspace=0.13)
    end = max((row["step"] or 0 for row in rows), default=0) or 1
    for axes, title in ((loss, "Loss"), (dice, "Dice")):
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=ink)
        axes.set_facecolor(paper)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=ink, labelsize=9)
        axes.grid(color=FAINT, alpha=0.25, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("step", color=ink)
        axes.set_xlim(0, 1.02 * end)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    _line(loss, rows, "train_loss", "training", color=hex_color(PALETTE[0]))
    _line(loss, rows, "val_loss", "validation", color=hex_color(PALETTE[6]))
    loss.set_ylim(bottom=min(0, loss.get_ylim()[0]))
    classes = list(dict.fromkeys(key for row in rows for key in row if key.startswith("val_dice_")))
    _line(dice, rows, "val_dice", "validation, foreground mean", color=ink, linewidth=2.4, zorder=3)
    for index, key in enumerate(classes if len(classes) > 1 else (), 1):
        name = key.removeprefix("val_dice_").replace("_", " ")
        _line(dice, rows, key, name, color=hex_color(class_color(index)))
    for row in rows:
        test, step = row.get("test_dice"), row.get("best_step", row.get("step"))
        if test is not None and step is not None:
            dice.axvline(step, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            label = f"test, weights of step {step}: {test:.3f}"
            star = {"markersize": 15, "color": hex_color(PALETTE[6]), "markeredgecolor": "white"}
            dice.plot(step, test, "*", label=label, zorder=4, **star)
    dice.set_ylim(max(0, math.floor(dice.get_ylim()[0] * 10) / 10), 1)
    for axes, corner in ((loss, "upper right"), (dice, "lower right")):
        if axes.get_legend_handles_labels()[0]:
            legend = axes.legend(loc=corner, fontsize=9, facecolor=paper, edgecolor="none", labelcolor=ink)
            for text in legend.get_texts():
                text.set_parse_math(False)
    return figure


def write_predictions(
    samples: Sequence[Sample], class_names: Sequence[str], path: str | PathLike[str]
) -> None:
    """Draws a row for each sample: image, truth and prediction as overlays, and where they disagree.

    Args:
      samples: (name, image (H, W, C) float in [0, 1], truth (H, W) int, prediction (H, W) int); sizes may
        differ between samples. One channel is shown in gray, three in colour, of any other number only the
        first. Pixels whose truth is IGNORE are striped, and not counted.
      class_names: C names, the background first.
      path: of the PNG file, 1200 pixels wide and as high as needed.
    Raises: ValueError if there is no sample.
    """
    if not samples:
        raise ValueError("no samples to draw; expected at least one")
    panel = (WIDTH - 2 * MARGIN - 3 * GAP) // 4
    # A flat strip keeps a readable height, and a tower does not push the other rows away.
    heights = [round(panel * float(np.clip(s[2].shape[0] / s[2].shape[1], 0.25, 1.5))) for s in samples]
    names = class_names[1:]
    per_line = max(1, 3 * (panel + GAP) // (45 + 8 * max(map(len, names))))
    legend_lines = math.ceil(len(names) / per_line)
    height = 2 * MARGIN + LINE * (1 + len(samples) + legend_lines) + sum(heights) + GAP * len(samples)
    figure = _figure(height)

    top = MARGIN
    lefts = [MARGIN + column * (panel + GAP) for column in range(4)]
    for left, title in zip(lefts, ("image", "truth", "prediction", "errors"), strict=True):
        _write(figure, left + panel / 2, top + LINE / 2, title, ha="center", size=12)
    top += LINE
    for (name, image, truth, prediction), row_height in zip(samples, heights, strict=True):
        _write(figure, MARGIN, top + LINE / 2, _caption(name, truth, prediction, class_names), size=10)
        top += LINE
        base = gray_or_rgb(image)
        pictures = (
            base,
            overlay(base, truth),
            overlay(base, np.where(truth == IGNORE, IGNORE, prediction.astype(np.int32))),
        )
        for left, picture in zip(lefts, (*pictures, errors(base, truth, prediction)), strict=True):
            _panel(figure, left, top, panel, row_height).imshow(picture)
        top += row_height + GAP

    classes = _patches(names)
    kinds = [("missed", MISSED), ("extra", EXTRA), *([("wrong class", CONFUSED)] if len(names) > 1 else [])]
    mistakes = [
        Patch(facecolor=hex_color(color), edgecolor=FAINT, linewidth=0.5, label=name) for name, color in kinds
    ]
    for handles, left, columns in ((classes, lefts[0], per_line), (mistakes, lefts[3], 3)):
        _legend(figure, handles, left, top, columns)
    _save(figure, path)


def write_batch(
    image: np.ndarray,
    label: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str],
    path: str | PathLike[str],
) -> None:
    """Draws the images of a training batch, each without and with its label as an overlay, two to a row.

    Args:
      image: (B, H, W, C) float, as in `write_predictions`.
      label: (B, H, W) int.
      names: B names of the images.
      class_names: C names, the background first.
      path: of the PNG file, 1200 pixels wide.
    """
    panel = (WIDTH - 2 * MARGIN - 3 * GAP) // 4
    row_height = round(panel * label.shape[1] / label.shape[2])
    rows = math.ceil(len(names) / 2)
    shown = class_names[1:]
    columns = max(1, (WIDTH - 2 * MARGIN) // (45 + 8 * max(map(len, shown))))
    height = 2 * MARGIN + rows * (LINE + row_height + GAP) + LINE * math.ceil(len(shown) / columns)
    figure = _figure(height)
    for place, name in enumerate(names):
        left, top = MARGIN + place % 2 * 2 * (panel + GAP), MARGIN + place // 2 * (LINE + row_height + GAP)
        _write(figure, left, top + LINE / 2, _short(name), size=10)
        base = gray_or_rgb(image[place])
        for column, picture in enumerate((base, overlay(base, label[place]))):
            at = left + column * (panel + GAP), top + LINE
            _panel(figure, *at, panel, row_height).imshow(picture)
    _legend(
        figure, _patches(shown), MARGIN, height - MARGIN - LINE * math.ceil(len(shown) / columns), columns
    )
    _save(figure, path)


def _caption(name: str, truth: np.ndarray, prediction: np.ndarray, class_names: Sequence[str]) -> str:
    known, count = truth != IGNORE, len(class_names)
    pairs = np.bincount(truth[known] * count + prediction[known], minlength=count**2)
    dice = metrics.dice(pairs.reshape(count, count))
    caption = f"{_short(name)}     Dice {number(metrics.mean_foreground(dice))}"
    if 2 < count < 6:
        caption += (
            f"  ({', '.join(f'{n} {number(d)}' for n, d in zip(class_names[1:], dice[1:], strict=True))})"
        )
    return caption


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:28]} ... {name[-28:]}"


def _line(
    axes: Axes, rows: Sequence[Mapping[str, float | None]], key: str, label: str, **style: object
) -> None:
    """Draws one curve through the rows that have the key, with dots where they are few."""
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        steps, values = np.array(points, float).T  # None becomes NaN
        style = {"linewidth": 1.6, "marker": "o" if len(points) <= 40 else "", "markersize": 3.5, **style}
        axes.plot(steps, values, label=label, **style)  # pyright: ignore[reportArgumentType]


def _patches(names: Sequence[str]) -> list[Patch]:
    return [Patch(color=hex_color(class_color(label)), label=name) for label, name in enumerate(names, 1)]


def _legend(figure: Figure, handles: Sequence[Patch], left: float, top: float, columns: int) -> None:
    """Draws squares with names; `left` and `top` are in pixels."""
    legend = figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left / WIDTH, 1 - top / (figure.get_size_inches()[1] * DPI)),
        ncols=min(columns, len(handles)),
        frameon=False,
        borderpad=0,
        borderaxespad=0.3,
        handlelength=1.1,
        handleheight=1.1,
        handletextpad=0.5,
        columnspacing=1.4,
        fontsize=10,
        labelcolor=INK,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _figure(height: int) -> Figure:
    """A white figure of WIDTH x height pixels; not pyplot's, which keeps every figure alive."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without ticks or frame; `left` and `top` are pixels from the upper left corner."""
    W, H = figure.get_size_inches() * DPI
    axes = figure.add_axes((left / W, 1 - (top + height) / H, width / W, height / H))
    axes.set_axis_off()
    return axes


def _write(figure: Figure, x: float, y: float, text: str, *, size: int, ha: str = "left") -> None:
    W, H = figure.get_size_inches() * DPI
    figure.text(x / W, 1 - y / H, text, size=size, ha=ha, va="center", color=INK, parse_math=False)


def _save(figure: Figure, path: str | PathLike[str]) -> None:
    """Replaces the file whole, because somebody may be looking at it."""
    with whole_file(path) as part:
        _render(figure, part, DPI)


def _render(figure: Figure, target: Path | io.BytesIO, dpi: int) -> None:
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(target, dpi=dpi, format="png")
