"""Makes the folder of a run, writes and reads its config.json, and compares it with a resumed run."""

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import jax

import flaxunet
from flaxunet.files import write_json, write_whole
from train.config import settings as configs
from train.config.settings import Config, ConfigError
from train.data.dataset import Dataset, Origin
from train.step import Program

SPLITS = ("train", "validation", "test")


def make_folder(config: Config) -> Path:
    """Makes the folder of a new run: of the given name, or arch-encoder, then arch-encoder-2, -3, ...

    Raises: ConfigError if a folder of the given name exists, or if none can be made there.
    """
    parent, network = Path(config.run.out), config.network
    base, number = config.run.name or f"{network.arch}-{network.encoder}", 1
    while True:
        folder = parent / (base if number == 1 else f"{base}-{number}")
        try:
            folder.mkdir(parents=True)  # fails if it exists, so two runs never share a folder
            return folder
        except FileExistsError:
            if config.run.name is not None or not parent.is_dir():
                raise ConfigError(f"{folder} exists; expected another --name or --out") from None
            number += 1
        except OSError as error:
            raise ConfigError(f"--out: cannot make {folder}: {error.strerror}") from None


def settings(config: Config) -> dict[str, Any]:
    """The settings that config.json keeps: all but those that say how the run was started."""
    flat = {name: value for name, value in config.to_flat().items() if name not in configs.ASKED_ONCE}
    return flat if config.data.folder is None else {**flat, "data": str(Path(config.data.folder).resolve())}


def content(config: Config, dataset: Dataset, program: Program, initial: Any = None) -> dict[str, Any]:
    """Describes a run for its config.json: settings, network, initial weights, samples by split, versions.

    Args:
      config, dataset, program: of the run; a resumed one keeps the stored description of its initial weights.
      initial: description of the initial weights, as JSON, if they are not random.
    """
    if config.run.resume and initial is None:
        initial = read(Path(config.run.resume)).get("begins")
    names, weights = list(dataset.class_names), program.class_weights
    model: dict[str, Any] = {"arch": config.network.arch, "encoder": config.network.encoder}
    model |= {"in_channels": dataset.channels, "classes": dataset.classes, "class_names": names}
    model |= {"mean": list(program.abstract.mean), "std": list(program.abstract.std)}
    data: dict[str, Any] = {"name": dataset.name, "axis": dataset.axis, "colors": dataset.colors}
    data |= {split: [sample["name"] for sample in getattr(dataset, split)] for split in SPLITS}
    return {
        "config": settings(config),
        "model": model,
        "begins": initial,
        "class_weights": weights and dict(zip(names, weights, strict=True)),
        "data": data,
        "versions": {"flaxunet": flaxunet.__version__, "jax": jax.__version__},
    }


def write_config(folder: Path, content: dict[str, Any]) -> None:
    """Writes config.json, whole or not at all."""
    write_json(folder / "config.json", content)


def write_split(folder: Path, dataset: Dataset) -> None:
    """Writes split.csv: the split, name, group, image and mask of each sample."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(field.name for field in dataclasses.fields(Origin))
    rows.writerows(dataclasses.astuple(origin) for origin in dataset.origins)
    # The name of a file need not be UTF-8.
    write_whole(folder / "split.csv", text.getvalue().encode("utf-8", "surrogateescape"))


def read(folder: Path) -> dict[str, Any]:
    """Reads a run's config.json, which `checks.read` has checked."""
    return json.loads((folder / "config.json").read_text())


def model_source(folder: Path, row: dict[str, float]) -> dict[str, Any]:
    """Describes for RUN/model where its network is from, and what prediction has to know of the training.

    Args:
      folder: of the run.
      row: of its metrics.jsonl, with the test scores.
    """
    stored = read(folder)
    config, data = stored["config"], stored["data"]
    masks = {name: data[name] for name in ("axis", "colors") if data.get(name) is not None}
    scores = {key: row[key] for key in ("best_step", "test_dice") if math.isfinite(row[key])}
    source = {"run": folder.name, "classes": stored["model"]["class_names"]}
    return {**source, "fit": config["fit"], "size": config["size"], **masks, **scores}


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has a checkpoint. A run that was killed before its first one starts again from step 0.

    Raises: ConfigError if it must have had checkpoints, and they are gone.
    """
    if any(path.name.isdigit() for path in (folder / "checkpoints").glob("*")):
        return True
    metrics = folder / "metrics.jsonl"
    # The first checkpoint is complete before a third row is written.
    if metrics.is_file() and len(metrics.read_text().splitlines()) > 2:
        raise ConfigError(f"{folder} has no checkpoint, though it was evaluated; expected RUN/checkpoints")
    return False


def check_same(folder: Path, now: dict[str, Any]) -> None:
    """Compares `content` of a resumed run with the stored one.

    Raises: ConfigError if it would continue with other samples, other initial weights or another network.
    """
    then = read(folder)
    for split in SPLITS:
        if changed := sorted(set(now["data"][split]) ^ set(then["data"][split])):
            listed = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
            raise ConfigError(f"{folder}: the {split} split has changed in {listed}; expected the same data")
    if now["begins"] != then.get("begins"):
        raise ConfigError(f"{folder}: {now['begins']['folder']} no longer holds the run's initial weights")
    if now["model"] != then["model"]:
        raise ConfigError(f"{folder} is a run of {then['model']}; this would be {now['model']}")
