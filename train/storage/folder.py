"""A run's folder: its name, config.json, metrics.jsonl and TensorBoard events."""

import contextlib
import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

import flaxunet
from flaxunet.files import write_whole
from train.config import settings as configs
from train.config.settings import Config, ConfigError
from train.data.dataset import Dataset, Origin
from train.step import Program

SPLITS = ("train", "validation", "test")


def make_folder(config: Config) -> Path:
    """Makes the folder of a new run: of the asked name, or arch-encoder, then arch-encoder-2, -3, ...

    Raises: ConfigError if the asked name is taken, or if nothing can be written there.
    """
    parent, base, number = (
        Path(config.run.out),
        config.run.name or f"{config.network.arch}-{config.network.encoder}",
        1,
    )
    while True:
        folder = parent / (base if number == 1 else f"{base}-{number}")
        try:
            folder.mkdir(parents=True)  # refuses what exists, so two runs never share a folder
            return folder
        except FileExistsError:
            if config.run.name is not None or not parent.is_dir():
                raise ConfigError(f"{folder} exists; accepted are another --name or --out") from None
            number += 1
        except OSError as error:
            raise ConfigError(f"--out: cannot make {folder}: {error.strerror}") from None


def settings(config: Config) -> dict[str, Any]:
    """The settings of a run as they are stored: how it was started is not one of them."""
    data = None if config.data.folder is None else str(Path(config.data.folder).resolve())
    asked = {**config.to_flat(), "data": data}
    return {name: value for name, value in asked.items() if name not in configs.ASKED_ONCE}


def content(
    config: Config, dataset: Dataset, program: Program, begins: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What config.json says: settings, network, the weights it began with, splits, versions."""
    if config.run.resume and begins is None:
        begins = read(Path(config.run.resume)).get("begins")
    model = program.abstract
    class_weights = program.class_weights and dict(
        zip(dataset.class_names, program.class_weights, strict=True)
    )
    return {
        "config": settings(config),
        "model": {
            "arch": config.network.arch,
            "encoder": config.network.encoder,
            "in_channels": dataset.channels,
            "classes": dataset.classes,
            "class_names": list(dataset.class_names),
            "mean": list(model.mean),
            "std": list(model.std),
        },
        "begins": begins,
        "class_weights": class_weights,
        "data": {
            "name": dataset.name,
            "axis": dataset.axis,
            "colors": dataset.colors,
            **{split: [sample["name"] for sample in getattr(dataset, split)] for split in SPLITS},
        },
        "versions": {"flaxunet": flaxunet.__version__, "jax": jax.__version__},
    }


def write_split(folder: Path, dataset: Dataset) -> None:
    """Writes split.csv: a row for each sample with its split, name, group, image and mask."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(field.name for field in dataclasses.fields(Origin))
    rows.writerows(dataclasses.astuple(origin) for origin in dataset.origins)
    # Names of files may be any bytes.
    write_whole(folder / "split.csv", text.getvalue().encode("utf-8", "surrogateescape"))


def source(folder: Path, row: dict[str, float]) -> dict[str, Any]:
    """What a network stored with the run says of where it is from; `row` is that of the test."""
    scores = {key: row[key] for key in ("best_step", "test_dice") if np.isfinite(row[key])}
    stored = read(folder)
    how = {name: stored["config"][name] for name in ("fit", "size")}
    told = {name: stored["data"].get(name) for name in ("axis", "colors")}
    how |= {name: value for name, value in told.items() if value is not None}
    return {"run": folder.name, "classes": stored["model"]["class_names"], **how, **scores}


def read(folder: Path) -> dict[str, Any]:
    """The content of a run's config.json; `checks.read` has checked it."""
    return json.loads((folder / "config.json").read_text())


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, without the torn last line of one that was killed."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(_parsed, lines) if row is not None]


def begun(folder: Path) -> bool:
    """Whether a run has a checkpoint. One that was killed before its first was whole begins again.

    Raises: ConfigError if its checkpoints are gone.
    """
    if any(path.name.isdigit() for path in (folder / "checkpoints").glob("*")):
        return True
    rows = folder / "metrics.jsonl"
    # The first checkpoint is whole before a third row is written.
    if rows.is_file() and len(rows.read_text().splitlines()) > 2:
        raise ConfigError(f"{folder} has no checkpoint, though it was evaluated; accepted is a run that has")
    return False


def check_same(folder: Path, now: dict[str, Any]) -> None:
    """Raises ConfigError if a run would go on with other samples, other first weights, or another network."""
    then = read(folder)
    for split in SPLITS:
        changed = sorted(set(now["data"][split]) ^ set(then["data"][split]))
        if changed:
            listed = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
            raise ConfigError(
                f"{folder}: the {split} split is not that of the run, it differs in {listed}; "
                "accepted is the data that the run began with"
            )
    if now["begins"] != then.get("begins"):
        raise ConfigError(
            f"{folder}: {now['begins']['folder']} no longer holds the weights that the run began with"
        )
    if now["model"] != then["model"]:
        raise ConfigError(f"{folder} is a run of {then['model']}; this would be {now['model']}")


class Log:
    """metrics.jsonl, one flat object per evaluation, and the same numbers as TensorBoard events.

    Use as a context manager, so that the last events are written.

    Args:
      folder: of the run.
      start: steps already taken; a resumed run repeats what came after them, and its test.
      writes: whether it does; of several processes one does.
    """

    def __init__(self, folder: Path, start: int, *, writes: bool = True):
        self._path, self._board, self.rows = folder / "metrics.jsonl", None, []
        if not writes:
            return
        self._board = _forgiving(SummaryWriter(str(folder), purge_step=start + 1 if start else None))
        self.rows = [row for row in rows(folder) if row["step"] <= start and "test_dice" not in row]
        write_whole(self._path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def add(self, row: dict[str, float]) -> None:
        """Appends a row; a score that is not a number is written as null."""
        if self._board is None:
            return
        clean = {key: value if np.isfinite(value) else None for key, value in row.items()}
        self.rows.append(clean)
        with self._path.open("a") as file:
            file.write(json.dumps(clean) + "\n")
        for key, value in row.items():
            group, _, name = key.partition("_")
            if group in ("train", "val", "test"):
                self._board.add_scalar(f"{group}/{name}", value, int(row["step"]))
        self._board.flush()

    def picture(self, name: str, path: Path, step: int) -> None:
        """Shows a PNG file in TensorBoard."""
        if self._board is None:
            return
        with Image.open(path) as image:
            self._board.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._board.flush()


def _forgiving(board: SummaryWriter) -> SummaryWriter:
    """A board that leaves out what the disk has no room for.

    Its numbers are in metrics.jsonl as well. Else its thread would end with a traceback, and the run would
    wait for ever for a place in a queue that nobody empties.
    """
    writer: Any = board._get_file_writer()
    events = writer.event_writer._ev_writer

    def forgiving(write: Callable[..., Any]) -> Callable[..., Any]:
        def written(*arguments: Any) -> None:
            with contextlib.suppress(OSError):
                write(*arguments)

        return written

    for name in ("write_event", "flush", "close"):
        setattr(events, name, forgiving(getattr(events, name)))
    return board


def evaluations_without_gain(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many evaluations have passed since the one whose validation Dice was the first to be so high."""
    scores = [row["val_dice"] for row in rows if "val_dice" in row]
    ranks = [-math.inf if score is None else score for score in scores]
    return len(ranks) - 1 - ranks.index(max(ranks)) if ranks else 0


def _parsed(line: str) -> dict[str, Any] | None:
    """A row; None for what is none."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
