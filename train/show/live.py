"""Shows a run while it trains: learning curves, example predictions, and Weights & Biases if asked."""

import importlib
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxunet.files import first_line, write_whole
from train.config.settings import Config, ConfigError
from train.data.dataset import Dataset, Split
from train.show import figures
from train.storage.log import Log

EXAMPLES = 3  # images of a split that are drawn
PICTURES = 20  # of a run that TensorBoard and Weights & Biases keep, however many evaluations there are


def examples(split: Split) -> list[int]:
    """Chooses the few images of a split that are drawn: evenly spread, and the same ones each time."""
    return np.linspace(0, len(split) - 1, min(EXAMPLES, len(split))).round().astype(int).tolist()


class WandbRun:
    """A run at Weights & Biases if --wandb asks for one; else nothing is imported, and nothing is done.

    Its id is kept in RUN/wandb.id, so that a resumed run continues there. Use as a context manager.

    Args:
      config, folder: of the run.
      content: of config.json, to be shown there.
    Raises: ConfigError if Weights & Biases refuses; the folder of a new run is then removed.
    """

    def __init__(self, config: Config, folder: Path, content: dict[str, Any]):
        self._wandb: Any = None
        self._run: Any = None
        project, id_file = config.run.wandb, folder / "wandb.id"
        if project is None:
            return
        try:
            self._wandb = importlib.import_module("wandb")
            stored = id_file.read_text().strip() if id_file.exists() else None
            options = {"project": project, "name": folder.name, "dir": str(folder), "config": content}
            self._run = self._wandb.init(id=stored, resume="allow", **options)
        except Exception as error:  # of its own, of the network, or of a broken installation
            if not config.run.resume:
                shutil.rmtree(folder)
            raise ConfigError(f"--wandb {project}: {first_line(error)}") from error
        write_whole(id_file, f"{self._run.id}\n".encode())
        # A resumed run repeats steps: a metric as the axis allows it, but the built-in counter drops them.
        self._run.define_metric("*", step_metric="step")

    def __enter__(self) -> "WandbRun":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if kind is None else 1)

    def add(self, row: Mapping[str, float], pictures: Mapping[str, Path]) -> None:
        """Logs a row of metrics.jsonl, and PNG files by name."""
        if self._run is not None:
            images = {name: self._wandb.Image(str(path)) for name, path in pictures.items()}
            self._run.log({**row, **images})


class LivePictures:
    """Draws RUN/curves.png and RUN/validation.png at each evaluation, and RUN/predictions.png of the test.

    TensorBoard and Weights & Biases keep at most PICTURES of them, evenly spread over the run.

    Args:
      folder, config: of the run.
      dataset: whose `examples` are drawn.
      log: with the rows to be drawn; it gets the pictures for TensorBoard.
      wandb_run: gets rows and pictures.
    """

    def __init__(self, folder: Path, config: Config, dataset: Dataset, log: Log, wandb_run: WandbRun):
        self._folder, self._config, self._dataset = folder, config, dataset
        self._log, self._wandb_run = log, wandb_run
        self._every = math.ceil(config.optimization.steps / config.run.eval_every / PICTURES)

    def evaluated(self, row: Mapping[str, float], predictions: Mapping[int, np.ndarray]) -> None:
        """Draws an evaluation, whose row is in the log and which kept the predictions of the `examples`."""
        step, steps = int(row["step"]), self._config.optimization.steps
        path = self._draw("validation.png", self._dataset.validation, predictions)
        if step == steps or step // self._config.run.eval_every % self._every == 0:
            self._keep(row, "validation", path)
        else:
            self._wandb_run.add(row, {})

    def tested(self, row: Mapping[str, float], predictions: Mapping[int, np.ndarray]) -> None:
        """Draws the test, whose row is in the log."""
        self._keep(row, "test", self._draw("predictions.png", self._dataset.test, predictions))

    def _draw(self, name: str, split: Split, predictions: Mapping[int, np.ndarray]) -> Path:
        """Draws the curves and the examples of a split; returns the file of the latter."""
        figures.write_curves(self._log.rows, self._folder / "curves.png")
        shown = [(split[index], predictions[index]) for index in examples(split)]
        samples = [(sample["name"], sample["image"], sample["label"], labels) for sample, labels in shown]
        figures.write_predictions(samples, self._dataset.class_names, self._folder / name)
        return self._folder / name

    def _keep(self, row: Mapping[str, float], name: str, path: Path) -> None:
        self._log.add_picture(name, path, int(row["step"]))
        self._wandb_run.add(row, {name: path})
