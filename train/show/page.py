"""Assembles report.html, the page of a finished run, from its config, metrics and test predictions."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from flaxunet import metrics
from flaxunet.labels import IGNORE
from flaxunet.report import html
from train.config.settings import Config
from train.data import samples
from train.data.dataset import Dataset
from train.evaluation import Scores
from train.show import figures

WORST, BEST = 4, 2  # test images shown with their pictures


def render(
    title: str,
    content: Mapping[str, Any],
    dataset: Dataset,
    rows: figures.Rows,
    test: Scores,
    ran: Mapping[str, str],
) -> str:
    """Renders the page of a run.

    Args:
      title: of the page.
      content: of the run's config.json.
      dataset: that it was trained on.
      rows: of its metrics.jsonl, the test's last.
      test: with the prediction of every test image.
      ran: names and values of time, memory, hardware and versions.
    """
    settings, row = content["config"], rows[-1]
    order = np.argsort(test.image_dice, kind="stable")
    worst = order[:WORST]
    top = [index for index in order[::-1][:BEST] if index not in worst]
    names = [html.case_name(dataset.test[index]["name"]) for index in order]
    dice = test.image_dice[order]
    listed = [[name, html.number(value)] for name, value in zip(names, dice.tolist(), strict=True)]
    network, finished = f"{settings['arch']} on {settings['encoder']}", f"{datetime.now():%Y-%m-%d %H:%M}"
    parts = [
        html.header(network, title, f"{dataset.name} · finished {finished}"),
        html.figures((
            (html.number(row.get("test_dice")), "Dice, mean of classes"),
            (html.number(row.get("test_iou")), "IoU, mean of classes"),
            (f"{row.get('best_step')}", f"best of {row['step']} steps"),
            (f"{len(dataset.test)}", "test images" if len(dataset.test) != 1 else "test image"),
            (ran.get("time", "-"), "this command took"),
        )),
        html.section("Test, class by class", _classes(test.confusion, dataset.class_names), note=(
            f"{len(dataset.test)} images that were in neither training nor validation, with the weights of "
            f"step {row.get('best_step')}, which had the best validation Dice. Counted over all pixels of "
            "the set."
        )),
        html.section("Learning curves", _curves(rows)),
        html.section("Lowest Dice", _cases(worst, dataset, test), note=(
            "The test images with the worst predictions. The Dice of an image is the mean over the "
            "foreground classes in its truth or its prediction; 1 if there is none."
        )),
        html.section("Highest Dice", _cases(top, dataset, test)) if top else "",
        html.section("Every test image", html.ranked(("image", "Dice"), listed, dice)),
        html.section("Data", _data(dataset)),
        html.section("Settings", _settings(settings)),
        html.section("Machine and versions", html.pairs(ran)),
    ]  # fmt: skip
    return html.document(title, parts)


def _classes(confusion: np.ndarray, names: Sequence[str]) -> str:
    pixels = confusion.sum(1)
    scores = [score(confusion) for score in (metrics.dice, metrics.iou, metrics.precision, metrics.recall)]
    columns = [[html.named(index, name) for index, name in enumerate(names)] + ["foreground mean"]]
    columns += [[*map(html.number, score), html.number(metrics.mean_foreground(score))] for score in scores]
    columns.append([f"{int(count):,}" for count in (*pixels, pixels[1:].sum())])
    head = ("class", "Dice", "IoU", "precision", "recall", "true pixels")
    return html.table(head, list(zip(*columns, strict=True)), "scores", last_bold=True)


def _curves(rows: figures.Rows) -> str:
    light, dark = (figures.curves_png(rows, dark=dark) for dark in (False, True))
    scores = [
        f"{row['val_dice']:.3f} at step {row['step']}" for row in rows if row.get("val_dice") is not None
    ]
    description = "Loss and Dice against the step."
    if scores:
        description += f" Validation Dice went from {scores[0]} to {scores[-1]}."
    return html.chart(light, dark, figures.WIDTH, figures.CURVES_HEIGHT, description)


def _cases(places: Iterable[int], dataset: Dataset, test: Scores) -> str:
    text = html.legend(dataset.class_names)
    for index in places:
        sample, caption = dataset.test[index], f"Dice {html.number(test.image_dice[index])}"
        text += html.case(sample["name"], caption, sample["image"], sample["label"], test.predictions[index])
    return text


def _data(dataset: Dataset) -> str:
    rows = []
    splits = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for name, split in splits.items():
        counts = np.zeros(len(dataset.class_names), np.int64)
        for sample in split:
            label = sample["label"]
            counts += np.bincount(label[label != IGNORE], minlength=len(counts))
        sides = np.array([samples.size(sample) for sample in split]).reshape(-1, 2)
        low, high = (" x ".join(map(str, f(sides, axis=0))) for f in (np.min, np.max))
        shares = (f"{share:.1%}" for share in counts / max(counts.sum(), 1))
        rows.append([name, f"{len(split):,}", low if low == high else f"{low} to {high}", *shares])
    names = [html.named(index, name) for index, name in enumerate(dataset.class_names)]
    head = ("split", "images", "height x width", *names)
    plural = "channel" if dataset.channels == 1 else "channels"
    note = html.quiet(f"{dataset.name}, {dataset.channels} {plural}. Shares are of the pixels that count.")
    return f"<p>{note}</p>{html.table(head, rows, 'splits', escaped=True)}"


def _settings(settings: Mapping[str, Any]) -> str:
    defaults = Config().to_flat()
    changed = {key: value for key, value in settings.items() if value != defaults.get(key)}
    words = ["python", "-m", "train"]
    for key, value in changed.items():
        words.append(f"--{'no-' if value is False else ''}{key.replace('_', '-')}")
        if not isinstance(value, bool):
            words += map(str, value) if isinstance(value, list | tuple) else [str(value)]
    note = "The command that has these settings; those that are not the defaults are bold."
    return html.command(shlex.join(words), note) + html.pairs(settings, changed)
