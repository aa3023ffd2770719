"""Draws learning curves, training batches and predictions as PNG files."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from flaxunet import metrics
from flaxunet.files import StrPath, whole_file
from flaxunet.labels import IGNORE, PALETTE, class_color, hex_color
from flaxunet.report.html import number
from flaxunet.report.overlay import PANELS, gray_or_rgb, mistakes, overlay, panels

Rows = Sequence[Mapping[str, float | None]]
Sample = tuple[str, np.ndarray, np.ndarray, np.ndarray]

DPI = 100
WIDTH, MARGIN, GAP, LINE = 1200, 16, 8, 26  # pixels, as all lengths below
PANEL = (WIDTH - 2 * MARGIN - 3 * GAP) // 4  # width of a picture, four of which are a row
LEFTS = tuple(MARGIN + column * (PANEL + GAP) for column in range(4))
CURVES_HEIGHT = 440
INK, FAINT = "#24292f", "#8b949e"
DARK_INK, DARK_PAPER = "#d1d7de", "#16191d"


def write_curves(rows: Rows, path: StrPath) -> None:
    """Draws loss and Dice against the step as a PNG file of 1200 x 440 pixels.

    Args:
      rows: flat records with `step` and any of train_loss, val_loss, val_dice, val_dice_<class>, test_dice
        and best_step; None and NaN leave gaps.
      path: of the file, which is replaced whole.
    """
    _save(_curves(rows), path)


def curves_png(rows: Rows, *, dark: bool = False) -> bytes:
    """Draws the rows of `write_curves` at twice the resolution, for a light or a dark page; returns a PNG."""
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
            style = {"fontsize": 9, "facecolor": paper, "edgecolor": "none", "labelcolor": ink}
            _without_math(axes.legend(loc=corner, **style))
    return figure


def write_predictions(samples: Sequence[Sample], class_names: Sequence[str], path: StrPath) -> None:
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
    # A flat strip keeps a readable height, and a tower does not push the other rows away.
    ratios = [np.clip(truth.shape[0] / truth.shape[1], 0.25, 1.5) for _, _, truth, _ in samples]
    heights = [round(PANEL * float(ratio)) for ratio in ratios]
    classes = _patches(class_names)
    columns = _columns(3 * (PANEL + GAP), classes)
    lines = 1 + len(samples) + math.ceil(len(classes) / columns)
    figure = _figure(2 * MARGIN + LINE * lines + sum(heights) + GAP * len(samples))

    for left, title in zip(LEFTS, PANELS, strict=True):
        _write(figure, left + PANEL / 2, MARGIN + LINE / 2, title, ha="center", size=12)
    top = MARGIN + LINE
    for (name, image, truth, prediction), height in zip(samples, heights, strict=True):
        _write(figure, MARGIN, top + LINE / 2, _caption(name, truth, prediction, class_names), size=10)
        top += LINE
        for left, picture in zip(LEFTS, panels(image, truth, prediction), strict=True):
            _panel(figure, left, top, height, picture)
        top += height + GAP

    style = {"edgecolor": FAINT, "linewidth": 0.5}
    kinds = mistakes(len(class_names))
    errors = [Patch(facecolor=hex_color(color), label=kind, **style) for kind, color in kinds]
    _legend(figure, classes, LEFTS[0], top, columns)
    _legend(figure, errors, LEFTS[3], top, len(errors))
    _save(figure, path)


def write_batch(
    image: np.ndarray, label: np.ndarray, names: Sequence[str], class_names: Sequence[str], path: StrPath
) -> None:
    """Draws the images of a training batch, each without and with its label as an overlay, two to a row.

    Args:
      image, label: (B, H, W, C) float, as in `write_predictions`, and (B, H, W) int.
      names, class_names: B names of the images, and C names, the background first.
      path: of the PNG file, 1200 pixels wide.
    """
    height = round(PANEL * label.shape[1] / label.shape[2])
    classes = _patches(class_names)
    columns = _columns(WIDTH - 2 * MARGIN, classes)
    row = LINE + height + GAP
    bottom = MARGIN + row * math.ceil(len(names) / 2)
    figure = _figure(bottom + LINE * math.ceil(len(classes) / columns) + MARGIN)
    for place, name in enumerate(names):
        column, top = place % 2 * 2, MARGIN + place // 2 * row
        _write(figure, LEFTS[column], top + LINE / 2, _short(name), size=10)
        base = gray_or_rgb(image[place])
        _panel(figure, LEFTS[column], top + LINE, height, base)
        _panel(figure, LEFTS[column + 1], top + LINE, height, overlay(base, label[place]))
    _legend(figure, classes, MARGIN, bottom, columns)
    _save(figure, path)


def _caption(name: str, truth: np.ndarray, prediction: np.ndarray, class_names: Sequence[str]) -> str:
    known, count = truth != IGNORE, len(class_names)
    pairs = np.bincount(truth[known] * count + prediction[known], minlength=count**2)
    dice = metrics.dice(pairs.reshape(count, count))
    caption = f"{_short(name)}     Dice {number(metrics.mean_foreground(dice))}"
    if 2 < count < 6:
        scores = zip(class_names[1:], map(number, dice[1:]), strict=True)
        caption += f"  ({', '.join(map(' '.join, scores))})"
    return caption


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:28]} ... {name[-28:]}"


def _line(axes: Axes, rows: Rows, key: str, label: str, **style: object) -> None:
    """Draws one curve through the rows that have the key, with dots where they are few."""
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        steps, values = np.array(points, float).T  # None becomes NaN
        style = {"linewidth": 1.6, "marker": "o" if len(points) <= 40 else "", "markersize": 3.5, **style}
        axes.plot(steps, values, label=label, **style)  # pyright: ignore[reportArgumentType]


def _patches(class_names: Sequence[str]) -> list[Patch]:
    classes = list(enumerate(class_names))[1:]
    return [Patch(color=hex_color(class_color(index)), label=name) for index, name in classes]


def _columns(width: int, patches: Sequence[Patch]) -> int:
    """How many of these with their names fit side by side."""
    return max(1, width // (45 + 8 * max(len(str(patch.get_label())) for patch in patches)))


def _legend(figure: Figure, patches: Sequence[Patch], left: float, top: float, columns: int) -> None:
    """Draws squares with names; `left` and `top` are in pixels."""
    space = {"borderpad": 0, "borderaxespad": 0.3, "handletextpad": 0.5, "columnspacing": 1.4}
    style = {"handlelength": 1.1, "handleheight": 1.1, "fontsize": 10, "labelcolor": INK, "frameon": False}
    at, columns = (left / WIDTH, 1 - top / (figure.get_size_inches()[1] * DPI)), min(columns, len(patches))
    options = {"loc": "upper left", "bbox_to_anchor": at, "ncols": columns, **space, **style}
    _without_math(figure.legend(handles=patches, **options))


def _without_math(legend: Legend) -> None:
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in a name is only that


def _figure(height: int) -> Figure:
    """A white figure of WIDTH x height pixels; not pyplot's, which keeps every figure alive."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _panel(figure: Figure, left: float, top: float, height: float, picture: np.ndarray) -> None:
    """Draws a picture PANEL pixels wide; `left` and `top` are pixels from the upper left corner."""
    W, H = figure.get_size_inches() * DPI
    axes = figure.add_axes((left / W, 1 - (top + height) / H, PANEL / W, height / H))
    axes.set_axis_off()
    axes.imshow(picture)


def _write(figure: Figure, x: float, y: float, text: str, *, size: int, ha: str = "left") -> None:
    W, H = figure.get_size_inches() * DPI
    figure.text(x / W, 1 - y / H, text, size=size, ha=ha, va="center", color=INK, parse_math=False)


def _save(figure: Figure, path: StrPath) -> None:
    with whole_file(path) as part:  # because somebody may be looking at the file
        _render(figure, part, DPI)


def _render(figure: Figure, target: Path | io.BytesIO, dpi: int) -> None:
    with warnings.catch_warnings():  # a name in a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(target, dpi=dpi, format="png")
