"""A finished run goes in, report.html comes out: one file that needs no network and runs no script."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from flaxunet import metrics
from flaxunet.files import write_whole
from flaxunet.labels import IGNORE
from flaxunet.report import html as markup
from train.config.settings import Config
from train.data import samples
from train.data.dataset import Dataset, Sample
from train.evaluation import Scores
from train.show import figures as report

WORST, BEST = 4, 2  # test images shown with their pictures
LISTED = 500  # test images in the list; the lowest Dice first


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
    write_whole(folder / "report.html", render(title, content, dataset, rows, test, ran).encode())


def render(
    title: str,
    content: Mapping[str, Any],
    dataset: Dataset,
    rows: report.Rows,
    test: Scores,
    ran: Mapping[str, str],
) -> str:
    """The page as text; arguments as of `write`."""
    settings = content["config"]
    best = rows[-1].get("best_step")
    order = np.argsort(test.image_dice, kind="stable")
    worst = order[:WORST]
    top = [index for index in order[::-1][:BEST] if index not in worst]
    body = [
        markup.header(
            f"{settings['arch']} on {settings['encoder']}",
            title,
            f"{dataset.name} · finished {datetime.now():%Y-%m-%d %H:%M}",
        ),
        _summary(rows[-1], ran, len(dataset.test)),
        markup.section("Test, class by class", _classes(test.confusion, dataset.class_names), note=(
            f"{len(dataset.test)} images that were in neither training nor validation, with the weights of "
            f"step {best}, which had the best validation Dice. Counted over all pixels of the set."
        )),
        markup.section("Learning curves", _curves(rows)),
        markup.section("Lowest Dice", _cases(worst, dataset, test), note=(
            "The test images that went worst. The Dice of an image is the mean over the foreground classes "
            "that it has or was found to have; 1 if there is none."
        )),
        markup.section("Highest Dice", _cases(top, dataset, test)) if top else "",
        markup.section("Every test image", _list(order, dataset, test)),
        markup.section("Data", _data(dataset)),
        markup.section("Settings", _settings(settings)),
        markup.section("Machine and versions", markup.pairs(ran)),
    ]  # fmt: skip
    return markup.document(title, body)


def _summary(row: Mapping[str, float | None], ran: Mapping[str, str], images: int) -> str:
    figures = (
        (markup.number(row.get("test_dice")), "Dice, mean of classes"),
        (markup.number(row.get("test_iou")), "IoU, mean of classes"),
        (f"{row.get('best_step')}", f"best of {row['step']} steps"),
        (f"{images}", "test images" if images != 1 else "test image"),
        (ran.get("time", "-"), "this command took"),
    )
    return markup.figures(figures)


def _classes(confusion: np.ndarray, names: Sequence[str]) -> str:
    truth = confusion.sum(1)
    scores = [score(confusion) for score in (metrics.dice, metrics.iou, metrics.precision, metrics.recall)]
    rows = [
        [
            markup.named(index, name),
            *(markup.number(score[index]) for score in scores),
            f"{int(truth[index]):,}",
        ]
        for index, name in enumerate(names)
    ]
    means = (markup.number(metrics.mean_foreground(score)) for score in scores)
    rows.append(["foreground mean", *means, f"{int(truth[1:].sum()):,}"])
    head = ("class", "Dice", "IoU", "precision", "recall", "true pixels")
    return markup.table(head, rows, "scores", last_bold=True)


def _curves(rows: report.Rows) -> str:
    light, dark = (markup.data_uri(report.curves_png(rows, dark=dark)) for dark in (False, True))
    scores = [(row["step"], row["val_dice"]) for row in rows if row.get("val_dice") is not None]
    spoken = "Loss and Dice against the step."
    if scores:
        spoken += f" Validation Dice went from {scores[0][1]:.3f} at step {scores[0][0]}"
        spoken += f" to {scores[-1][1]:.3f} at step {scores[-1][0]}."
    return (
        f'<div class=scroll><picture><source media="print" srcset="{light}">'
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class=curves width=1200 height=440 src="{light}" alt="{markup.escape(spoken)}">'
        "</picture></div>"
    )


def _cases(places: Iterable[int], dataset: Dataset, test: Scores) -> str:
    figures = (
        _case(dataset.test[index], test.predictions[index], test.image_dice[index]) for index in places
    )
    return f"{markup.legend(dataset.class_names)}{''.join(figures)}"


def _case(sample: Sample, prediction: np.ndarray, dice: float) -> str:
    said = f"Dice {markup.number(dice)}"
    return markup.case(sample["name"], said, sample["image"], sample["label"], prediction)


def _list(order: np.ndarray, dataset: Dataset, test: Scores) -> str:
    each = test.image_dice.tolist()
    quantiles = " · ".join(
        f"{name} {markup.number(value)}"
        for name, value in zip(
            ("lowest", "median", "highest"), np.quantile(each, (0, 0.5, 1)).tolist(), strict=True
        )
    )
    rows = [
        [_name(dataset.test[index]), markup.number(each[index]), markup.bar(each[index])]
        for index in order[:LISTED]
    ]
    left = f" The {LISTED} lowest are listed." if len(order) > LISTED else ""
    table = markup.table(("image", "Dice", ""), rows, "list")
    note = markup.quiet(f"{quantiles}.{left}")
    return f"<p>{note}</p><details><summary>Show the list</summary>{table}</details>"


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
    names = [markup.named(index, name) for index, name in enumerate(dataset.class_names)]
    head = ("split", "images", "height x width", *names)
    plural = "channel" if dataset.channels == 1 else "channels"
    note = markup.quiet(f"{dataset.name}, {dataset.channels} {plural}. Shares are of the pixels that count.")
    return f"<p>{note}</p>{markup.table(head, rows, 'splits', escaped=True)}"


def _settings(settings: Mapping[str, Any]) -> str:
    defaults = Config().to_flat()
    changed = {key: value for key, value in settings.items() if value != defaults.get(key)}
    command = ["python", "-m", "train"]
    for key, value in changed.items():
        command.append(f"--{'no-' if value is False else ''}{key.replace('_', '-')}")
        if not isinstance(value, bool):
            command += map(str, value) if isinstance(value, list | tuple) else [str(value)]
    cells = "".join(
        f"<div{' class=changed' if key in changed else ''}><dt>{markup.escape(key.replace('_', ' '))}</dt>"
        f"<dd>{markup.escape(_setting(value))}</dd></div>"
        for key, value in settings.items()
        if key not in ("resume", "dry_run")
    )
    note = markup.quiet("The command that says the same; bold settings are not the defaults.")
    said = markup.escape(shlex.join(command))
    return f"<pre><code>{said}</code></pre><p>{note}</p><dl class=settings>{cells}</dl>"


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "-" if value is None else str(value)


def _name(sample: Sample) -> str:
    return f"<span class=name>{markup.escape(sample['name'])}</span>"
