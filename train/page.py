"""A finished run goes in, report.html comes out: one file that needs no network and runs no script."""

import base64
import dataclasses
import html
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flaxunet import metrics, overlay
from flaxunet.losses import IGNORE
from train import paint, record, report, samples
from train.config import Config
from train.data import Dataset, Sample
from train.evaluation import Scores

WORST, BEST = 4, 2  # test images shown with their pictures
LISTED = 500  # test images in the list; the lowest Dice first
SIDE = 384  # pixels of the longer side of a picture of a test image, at most
# Whatever a name holds, a browser that obeys this fetches nothing and runs nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_escape = html.escape


def write(
    folder: Path,
    content: Mapping[str, Any],
    dataset: Dataset,
    rows: report.Rows,
    test: Scores,
    ran: Mapping[str, str],
) -> None:
    """Writes RUN/report.html, whole or not at all.

    Args:
      folder: of the run.
      content: of its config.json.
      dataset: that it was trained on.
      rows: of its metrics.jsonl, the test's last.
      test: with the prediction of every test image.
      ran: names and values of time, memory, hardware and versions.
    """
    title = folder.resolve().name
    record.write(folder / "report.html", render(title, content, dataset, rows, test, ran))


def render(
    title: str,
    content: Mapping[str, Any],
    dataset: Dataset,
    rows: report.Rows,
    test: Scores,
    ran: Mapping[str, str],
) -> str:
    """The page as text; arguments as of `write`."""
    settings, style = content["config"], (files("train") / "page.css").read_text(encoding="utf-8")
    best = rows[-1].get("best_step")
    order = np.argsort(test.each, kind="stable")
    worst = order[:WORST]
    top = [index for index in order[::-1][:BEST] if index not in worst]
    body = [
        f"<header><p class=kind>{_escape(settings['arch'])} on {_escape(settings['encoder'])}</p>"
        f"<h1>{_escape(title)}</h1>"
        f"<p class=quiet>{_escape(dataset.name)} · finished {datetime.now():%Y-%m-%d %H:%M}</p></header>",
        _summary(rows[-1], ran, len(dataset.test)),
        _section("Test, class by class", _classes(test.confusion, dataset.class_names), note=(
            f"{len(dataset.test)} images that were in neither training nor validation, with the weights of "
            f"step {best}, which had the best validation Dice. Counted over all pixels of the set."
        )),
        _section("Learning curves", _curves(rows)),
        _section("Lowest Dice", _cases(worst, dataset, test), note=(
            "The test images that went worst. The Dice of an image is the mean over the foreground classes "
            "that it has or was found to have; 1 if there is none."
        )),
        _section("Highest Dice", _cases(top, dataset, test)) if top else "",
        _section("Every test image", _list(order, dataset, test)),
        _section("Data", _data(dataset)),
        _section("Settings", _settings(settings)),
        _section("Machine and versions", _pairs(ran)),
    ]  # fmt: skip
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        '<meta name=color-scheme content="light dark">'
        f"<title>{_escape(title)}</title><style>{style}</style></head>\n<body><main>\n"
        + "\n".join(filter(None, body))
        + "\n</main></body></html>\n"
    )


def _section(title: str, inner: str, note: str = "") -> str:
    note = f"<p class=quiet>{_escape(note)}</p>" if note else ""
    return f"<section><h2>{_escape(title)}</h2>{note}{inner}</section>"


def _summary(row: Mapping[str, float | None], ran: Mapping[str, str], images: int) -> str:
    figures = (
        (_number(row.get("test_dice")), "Dice, mean of classes"),
        (_number(row.get("test_iou")), "IoU, mean of classes"),
        (f"{row.get('best_step')}", f"best of {row['step']} steps"),
        (f"{images}", "test images" if images != 1 else "test image"),
        (ran.get("time", "-"), "this command took"),
    )
    cells = (f"<div><b>{_escape(value)}</b><span>{_escape(name)}</span></div>" for value, name in figures)
    return f"<div class=figures>{''.join(cells)}</div>"


def _classes(confusion: np.ndarray, names: Sequence[str]) -> str:
    hits, truth, found = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):  # a class that is nowhere has no score, and a dash in the table
        scores = metrics.dice(confusion), metrics.iou(confusion), hits / found, hits / truth
    rows = [
        [_named(index, name), *(_number(score[index]) for score in scores), f"{int(truth[index]):,}"]
        for index, name in enumerate(names)
    ]
    means = (_number(metrics.mean_foreground(score)) for score in scores)
    rows.append(["foreground mean", *means, f"{int(truth[1:].sum()):,}"])
    head = ("class", "Dice", "IoU", "precision", "recall", "true pixels")
    return _table(head, rows, "scores", last_bold=True)


def _curves(rows: report.Rows) -> str:
    light, dark = (_data_uri(report.curves_png(rows, dark=dark)) for dark in (False, True))
    scores = [(row["step"], row["val_dice"]) for row in rows if row.get("val_dice") is not None]
    spoken = "Loss and Dice against the step."
    if scores:
        spoken += f" Validation Dice went from {scores[0][1]:.3f} at step {scores[0][0]}"
        spoken += f" to {scores[-1][1]:.3f} at step {scores[-1][0]}."
    return (
        f'<div class=scroll><picture><source media="print" srcset="{light}">'
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class=curves width=1200 height=440 src="{light}" alt="{_escape(spoken)}"></picture></div>'
    )


def _cases(places: Iterable[int], dataset: Dataset, test: Scores) -> str:
    figures = (
        _case(dataset.test[index], test.predictions[index], float(test.each[index])) for index in places
    )
    return f"{_legend(dataset.class_names)}{''.join(figures)}"


def _case(sample: Sample, prediction: np.ndarray, dice: float) -> str:
    base, truth = overlay.gray_or_rgb(sample["image"]), sample["label"]
    painted = np.where(truth == IGNORE, IGNORE, prediction.astype(np.int32))
    name, score = _escape(sample["name"]), _number(dice)
    pictures = (
        ("image", base),
        ("truth", overlay.overlay(base, truth)),
        ("prediction", overlay.overlay(base, painted)),
        ("errors", paint.errors(base, truth, painted)),
    )
    cells = "".join(
        f'<div><img src="{_picture(pixels)}" alt="{kind} of {name}, Dice {score}"><span>{kind}</span></div>'
        for kind, pixels in pictures
    )
    return (
        f"<figure><figcaption><b class=name>{name}</b><span>Dice {score}</span></figcaption>"
        f"<div class=four>{cells}</div></figure>"
    )


def _legend(names: Sequence[str]) -> str:
    kinds = (("missed", paint.MISSED), ("extra", paint.EXTRA), ("wrong class", paint.CONFUSED))
    classes = (f"<li>{_named(index, name)}</li>" for index, name in enumerate(names) if index)
    mistakes = (f"<li>{_swatch(color)}{name}</li>" for name, color in kinds[: 3 if len(names) > 2 else 2])
    return f"<ul class=legend>{''.join(classes)}<li class=gap>errors:</li>{''.join(mistakes)}</ul>"


def _list(order: np.ndarray, dataset: Dataset, test: Scores) -> str:
    each = test.each.tolist()
    quantiles = " · ".join(
        f"{name} {_number(value)}"
        for name, value in zip(
            ("lowest", "median", "highest"), np.quantile(each, (0, 0.5, 1)).tolist(), strict=True
        )
    )
    rows = [[_name(dataset.test[index]), _number(each[index]), _bar(each[index])] for index in order[:LISTED]]
    left = f" The {LISTED} lowest are listed." if len(order) > LISTED else ""
    table = _table(("image", "Dice", ""), rows, "list")
    return (
        f"<p>{_quiet(quantiles + '.' + left)}</p><details><summary>Show the list</summary>{table}</details>"
    )


def _quiet(text: str) -> str:
    return f"<span class=quiet>{_escape(text)}</span>"


def _data(dataset: Dataset) -> str:
    rows = []
    for name, split in (
        ("training", dataset.train),
        ("validation", dataset.validation),
        ("test", dataset.test),
    ):
        counts = np.zeros(len(dataset.class_names), np.int64)
        for sample in split:
            label = sample["label"]
            counts += np.bincount(label[label != IGNORE], minlength=len(counts))
        sides = np.array([samples.size(sample) for sample in split]).reshape(-1, 2)
        low, high = (" x ".join(map(str, f(sides, axis=0))) for f in (np.min, np.max))
        shares = (f"{share:.1%}" for share in counts / max(counts.sum(), 1))
        rows.append([name, f"{len(split):,}", low if low == high else f"{low} to {high}", *shares])
    names = [_named(index, name) for index, name in enumerate(dataset.class_names)]
    head = ("split", "images", "height x width", *names)
    plural = "channel" if dataset.channels == 1 else "channels"
    note = _quiet(f"{dataset.name}, {dataset.channels} {plural}. Shares are of the pixels that count.")
    return f"<p>{note}</p>{_table(head, rows, 'splits', escaped=True)}"


def _settings(settings: Mapping[str, Any]) -> str:
    defaults = dataclasses.asdict(Config())
    changed = {key: value for key, value in settings.items() if value != defaults.get(key)}
    command = ["python", "-m", "train"]
    for key, value in changed.items():
        command.append(f"--{'no-' if value is False else ''}{key.replace('_', '-')}")
        if not isinstance(value, bool):
            command += map(str, value) if isinstance(value, list | tuple) else [str(value)]
    cells = "".join(
        f"<div{' class=changed' if key in changed else ''}><dt>{_escape(key.replace('_', ' '))}</dt>"
        f"<dd>{_escape(_setting(value))}</dd></div>"
        for key, value in settings.items()
        if key not in ("resume", "dry_run")
    )
    note = _quiet("The command that says the same; bold settings are not the defaults.")
    return (
        f"<pre><code>{_escape(shlex.join(command))}</code></pre><p>{note}</p><dl class=settings>{cells}</dl>"
    )


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "-" if value is None else str(value)


def _pairs(values: Mapping[str, str]) -> str:
    cells = (f"<div><dt>{_escape(key)}</dt><dd>{_escape(value)}</dd></div>" for key, value in values.items())
    return f"<dl class=settings>{''.join(cells)}</dl>"


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    kind: str,
    *,
    last_bold: bool = False,
    escaped: bool = False,
) -> str:
    """A table of cells that are HTML already; so are its heads if `escaped`."""
    heads = "".join(f"<th scope=col>{cell if escaped else _escape(cell)}</th>" for cell in head)
    lines = []
    for place, (first, *rest) in enumerate(rows):
        style = " class=total" if last_bold and place == len(rows) - 1 else ""
        lines.append(
            f"<tr{style}><th scope=row>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
        )
    return (
        f'<div class=scroll><table class="{kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _named(index: int, name: str) -> str:
    """A class with the colour that it has in the pictures."""
    return (_swatch(overlay.class_color(index)) if index else "<i class=none></i>") + _escape(name)


def _swatch(color: overlay.Color) -> str:
    return f'<i style="background:{paint.hex_color(color)}"></i>'


def _name(sample: Sample) -> str:
    return f"<span class=name>{_escape(sample['name'])}</span>"


def _bar(score: float) -> str:
    return f'<span class=bar><span style="width:{100 * float(np.clip(score, 0, 1)):.1f}%"></span></span>'


def _number(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def _picture(pixels: np.ndarray) -> str:
    """A data: URI of (H, W, 3) in [0, 1], made smaller where it is larger than SIDE."""
    image = Image.fromarray(np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8))
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _data_uri(file.getvalue())


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
