"""Collects what is known of a stored network: from its config.json, and from the run that trained it."""

import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from flaxunet.files import first_line
from flaxunet.labels import default_names
from flaxunet.models.spec import Spec
from flaxunet.weights import store
from flaxunet.weights.store import CONFIG, Stored, StoreError

SETTINGS = (
    *("steps", "batch_size", "size", "fit", "foreground", "target", "augment", "loss", "class_weights"),
    *("optimizer", "learning_rate", "schedule", "warmup", "encoder_lr", "weight_decay", "clip", "ema"),
    *("fold", "dtype", "seed"),
)
"""Settings of a run that are published. Those with paths are not: they name a user's folders."""
SPLITS = {"train": "training", "validation": "validation", "test": "testing"}
PICTURES = {"test": "predictions.png", "validation": "validation.png"}
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Scores:
    """Scores of a network."""

    split: str  # "test", or "validation" where there was no test
    dice: float | None  # mean over the foreground classes, as is the IoU
    iou: float | None
    classes: Mapping[str, float]  # Dice of each foreground class that has one


@dataclass(frozen=True)
class Facts:
    """What is known of a stored network; what is not known is None, or empty."""

    name: str  # of the run, or else of the folder
    spec: Spec
    classes: tuple[str, ...]  # background first; two for one sigmoid channel, none of an encoder alone
    parameters: int  # their number
    sha256: str  # of the weights
    versions: Mapping[str, str]  # of the libraries that wrote them
    source: Mapping[str, Any]  # origin of the weights as a published config.json keeps it: JSON without paths
    scores: Scores | None  # of these weights
    picture: Path | None  # of the run: images of the split that was scored, with their predictions

    @property
    def data(self) -> str | None:
        """Name of the dataset."""
        return self.source.get("data")

    @property
    def images(self) -> Mapping[str, int]:
        """Number of images, by split."""
        return self.source.get("images", {})

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of `SETTINGS` that are known."""
        return self.source.get("settings", {})

    @property
    def step(self) -> int | None:
        """The training step at which these weights were the best."""
        return self.source.get("best_step")


def read(model: str | Path) -> tuple[Stored, Facts]:
    """Reads a stored network, checks that its arrays fit, and collects what is known of it.

    Args:
      model: a run's folder, for its best network; the `model` folder in it; or any other stored network.
        The files of a run count only for the weights of its `best_step`.
    Raises: StoreError if the network cannot be used, or the files beside it are not those of a run.
    """
    given = Path(model)
    if not given.is_dir():
        raise StoreError(f"{given}: no such folder; expected a run, or a folder that flaxunet.save made")
    folder = store.network_folder(given)
    stored = store.read(folder)
    network = store.abstract(stored.spec)
    store.check_fit(stored, store.leaves(network), stored.tensors)
    source, run = _mapping(stored.content.get("source")), folder.absolute().parent
    of_run = folder.absolute().name == "model" and (run / CONFIG).is_file() and (run / METRICS).is_file()
    if of_run:
        source |= _read_run(run, source)
    # Entries of a known name and kind: others may be private, and a pulled config.json may hold anything.
    entries = {key: check(source[key]) for key, check in _ENTRIES.items() if key in source}
    source = {key: value for key, value in entries.items() if value is not None}
    scores = _scores(source)
    picture = run / PICTURES[scores.split] if of_run and scores is not None else None
    return stored, Facts(
        name=source.get("run", (run if of_run else given).resolve().name),
        spec=stored.spec,
        classes=_classes(stored, source),
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))),
        sha256=stored.content["weights"]["sha256"],
        versions={k: v for k, v in _mapping(stored.content.get("versions")).items() if _text(v)},
        source=source,
        scores=scores,
        picture=picture if picture is not None and picture.is_file() else None,
    )


def _read_run(run: Path, source: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what a run's files say of the weights that `source` describes."""
    try:
        content = json.loads((run / CONFIG).read_text())
        settings, data, initial = content["config"], content["data"], content.get("begins")
        facts: dict[str, Any] = {
            "data": data["name"],
            "images": {split: len(data[split]) for split in SPLITS},
            "settings": {name: settings[name] for name in SETTINGS if settings.get(name) is not None},
            **({} if initial is None else {"begins": initial["folder"]}),
        }
        names, row = content["model"]["class_names"], _scored_row(run, source.get("best_step"))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise StoreError(f"{run} does not describe a run: {first_line(error)}") from None
    # A resumed run has lost the row of its test, but the network that was tested still lies there.
    if row and not ("val_dice" in row and "test_dice" in source):
        split, prefix = ("test", "test") if "test_dice" in row else ("validation", "val")
        classes = {name: row.get(f"{prefix}_dice_{name.replace(' ', '_')}") for name in names[1:]}
        means = {kind: row.get(f"{prefix}_{kind}") for kind in ("dice", "iou")}
        facts["scores"] = {"split": split, **means, "classes": classes}
    return facts


def _scored_row(run: Path, step: int | None) -> dict[str, Any] | None:
    """The row of metrics.jsonl with the test of a step's weights, or else with their validation."""
    rows = []
    for line in (run / METRICS).read_text().splitlines():
        with contextlib.suppress(ValueError):  # the last line of a run that was killed may be torn
            rows.append(json.loads(line))
    tests = [row for row in rows if "test_dice" in row and row.get("best_step") == step]
    validations = [row for row in rows if "val_dice" in row and row.get("step") == step]
    matches = tests or validations
    return matches[-1] if matches and step is not None else None


def _classes(stored: Stored, source: Mapping[str, Any]) -> tuple[str, ...]:
    if not stored.spec.segments:
        return ()
    count, names = max(stored.spec.classes, 2), source.get("classes")
    if names is None:
        return default_names(stored.spec.classes)
    if not isinstance(names, list) or len(names) != count or not all(map(_text, names)):
        raise StoreError(f"{stored.folder / CONFIG}: its classes are {names!r}; expected {count} names")
    return tuple(names)


def _scores(source: Mapping[str, Any]) -> Scores | None:
    stored = _mapping(source.get("scores"))
    if stored.get("split") not in PICTURES:
        dice = _number(source.get("test_dice"))
        return None if dice is None else Scores("test", dice, None, {})
    known = _mapping(stored.get("classes")).items()
    classes = {name: number for name, score in known if (number := _number(score)) is not None}
    return Scores(stored["split"], _number(stored.get("dice")), _number(stored.get("iou")), classes)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _name(value: Any) -> str | None:
    """The last part of what may be a path, of this system or another."""
    return _text(re.split(r"[/\\]", value.rstrip("/\\"))[-1]) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if finite else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _counts(value: Any) -> dict[str, int]:
    counts = {split: _count(_mapping(value).get(split)) for split in SPLITS}
    return {split: count for split, count in counts.items() if count}


def _colors(value: Any) -> list[list[int]] | None:
    """A list of (red, green, blue) in 0..255, or None."""
    rows = value if isinstance(value, list) else []
    valid = (isinstance(row, list) and len(row) == 3 and all(x in range(256) for x in row) for row in rows)
    return rows if rows and all(valid) else None


def _settings(value: Any) -> dict[str, Any]:
    def valid(setting: Any) -> bool:
        items = setting if isinstance(setting, list) else [setting]
        return all(isinstance(item, bool | int | float | str) for item in items)

    values = _mapping(value)
    return {name: values[name] for name in SETTINGS if valid(values.get(name))}


_ENTRIES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("run", "data", "begins", "fit", "axis", "name", "sha256", "dialect", "torch"), _name),
    **dict.fromkeys(("size", "best_step"), _count),
    "test_dice": _number,
    "classes": lambda names: names,  # checked by `_classes`
    "images": _counts,
    "colors": _colors,
    "settings": _settings,
    "scores": lambda value: asdict(scores) if (scores := _scores({"scores": value})) else None,
}
"""Entries of a config.json's source that are read, each with what makes it safe to publish."""
