"""What a run shows while it goes on, besides numbers: curves, pictures, and Weights & Biases if asked."""

import importlib
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxunet.files import first_line, write_whole
from train.config.settings import Config, ConfigError
from train.data.dataset import Dataset, Split
from train.show import figures as report
from train.storage.log import Log

PICTURES = 3  # images of a split that are drawn
IMAGES = 20  # of a run that TensorBoard and Weights & Biases keep, however many evaluations there are


def spread(split: Split) -> list[int]:
    """The places of the few images that are shown of a split: the same ones each time, evenly spread."""
    return np.linspace(0, len(split) - 1, min(PICTURES, len(split))).round().astype(int).tolist()


def samples(
    split: Split, predictions: Mapping[int, np.ndarray], places: Sequence[int]
) -> list[report.Sample]:
    """What `report.write_predictions` draws of the images at some places of a split."""
    chosen = [(split[place], predictions[place]) for place in places]
    return [(sample["name"], sample["image"], sample["label"], found) for sample, found in chosen]


class Tracker:
    """A run at Weights & Biases, when --wandb asks for one; else nothing is imported.

    Its id is kept in RUN/wandb.id, so that a resumed run goes on in the same place. Use as a context manager.

    Raises: ConfigError if Weights & Biases refuses; a folder made for a new run is then taken away again.
    """

    def __init__(self, config: Config, folder: Path, content: dict[str, Any]):
        self._wandb: Any = None
        self._run: Any = None
        if config.run.wandb is None:
            return
        known = folder / "wandb.id"
        try:
            self._wandb = importlib.import_module("wandb")
            self._run = self._wandb.init(
                project=config.run.wandb,
                name=folder.name,
                config=content,
                dir=str(folder),
                id=known.read_text().strip() if known.exists() else None,
                resume="allow",
            )
        except Exception as error:  # its own kinds, those of its network, and of a broken installation
            if not config.run.resume:
                shutil.rmtree(folder)
            raise ConfigError(f"--wandb {config.run.wandb}: {first_line(error)}") from error
        write_whole(known, f"{self._run.id}\n".encode())
        # A resumed run repeats steps; a metric as the axis allows it, where the built-in counter drops them.
        self._run.define_metric("*", step_metric="step")

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if kind is None else 1)

    def add(self, row: Mapping[str, float], pictures: Mapping[str, Path]) -> None:
        """Logs a row of metrics.jsonl and PNG files."""
        if self._run is not None:
            images = {name: self._wandb.Image(str(path)) for name, path in pictures.items()}
            self._run.log({**row, **images})


class Watch:
    """Draws RUN/curves.png and RUN/validation.png anew at each evaluation, each file at once.

    The pictures of earlier steps are TensorBoard's: at most `IMAGES` of a run, evenly spread.

    Args:
      folder: of the run.
      log: whose rows are drawn, and whose TensorBoard takes the pictures.
      tracker: takes rows and pictures as well.
    """

    def __init__(self, folder: Path, config: Config, dataset: Dataset, log: Log, tracker: Tracker):
        self._folder, self._config, self._dataset = folder, config, dataset
        self._log, self._tracker = log, tracker
        self._every = math.ceil(config.optimization.steps / config.run.eval_every / IMAGES)

    def evaluated(self, row: Mapping[str, float], predictions: Mapping[int, np.ndarray]) -> None:
        """Shows an evaluation that the log has; `predictions` are those of `spread(validation)`."""
        report.write_curves(self._log.rows, self._folder / "curves.png")
        path = self._folder / "validation.png"
        drawn = samples(self._dataset.validation, predictions, spread(self._dataset.validation))
        report.write_predictions(drawn, self._dataset.class_names, path)
        step, pictures = int(row["step"]), {}
        if step == self._config.optimization.steps or step // self._config.run.eval_every % self._every == 0:
            self._log.add_picture("validation", path, step)
            pictures["validation"] = path
        self._tracker.add(row, pictures)

    def tested(self, row: Mapping[str, float], predictions: Mapping[int, np.ndarray]) -> None:
        """Shows the test, which the log has."""
        report.write_curves(self._log.rows, self._folder / "curves.png")
        path = self._folder / "predictions.png"
        drawn = samples(self._dataset.test, predictions, spread(self._dataset.test))
        report.write_predictions(drawn, self._dataset.class_names, path)
        self._log.add_picture("test", path, int(row["step"]))
        self._tracker.add(row, {"test": path})
