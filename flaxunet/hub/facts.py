"""A run's folder or a stored network enters; what is known of the network, and nothing else, leaves."""

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
from flaxunet.labels import usual_names
from flaxunet.models.spec import Spec
from flaxunet.weights import store
from flaxunet.weights.store import CONFIG, Stored, StoreError

# What a reader of the card wants to know. Settings with paths are not among them: they name a user's folders.
SETTINGS = (
    *("steps", "batch_size", "size", "fit", "foreground", "target", "augment", "loss", "class_weights"),
    *("optimizer", "learning_rate", "schedule", "warmup", "encoder_lr", "weight_decay", "clip", "ema"),
    *("fold", "dtype", "seed"),
)
SPLITS = {"train": "training", "validation": "validation", "test": "testing"}
PICTURES = {"test": "predictions.png", "validation": "validation.png"}


@dataclass(frozen=True)
class Scores:
    """How well a network did.

    Attributes:
      split: "test", or "validation" where there was no test.
      dice, iou: means over the foreground classes, or None.
      classes: Dice of each foreground class that has one.
    """

    split: str
    dice: float | None
    iou: float | None
    classes: Mapping[str, float]


@dataclass(frozen=True)
class Facts:
    """What is known of a stored network; what is not is None, or empty.

    Attributes:
      name: of the run, or else of the folder.
      spec: of the network.
      classes: names, background first; two of them for one sigmoid channel; none of an encoder alone.
      parameters: their number.
      sha256: of the weights.
      versions: of what wrote them.
      data: the dataset's name.
      images: how many there were, by split.
      settings: those of `SETTINGS` that are known.
      begins: name of the weights that training began with.
      step: of training, at which these weights were the best.
      scores: of these weights.
      source: all of this that a config.json keeps, as JSON.
      picture: of the run; images of the split that the scores are of, and what was made of them.
    """

    name: str
    spec: Spec
    classes: tuple[str, ...]
    parameters: int
    sha256: str
    versions: Mapping[str, str]
    data: str | None
    images: Mapping[str, int]
    settings: Mapping[str, Any]
    begins: str | None
    step: int | None
    scores: Scores | None
    source: Mapping[str, Any]
    picture: Path | None


def read(model: str | Path) -> tuple[Stored, Facts]:
    """A stored network whose arrays fit, and what is known of it.

    Args:
      model: a run's folder, whose best network is meant, its `model` folder, or any other stored network.
        What its run says counts only for the very weights that are stored: those of `best_step`.
    Raises: StoreError if it cannot be used, or its run's files are not those of a run.
    """
    given = Path(model)
    if not given.is_dir():
        raise StoreError(f"{given}: no such folder; accepted is a run, or a folder that flaxunet.save made")
    folder = store.network_folder(given)
    parent = folder.absolute().parent
    run = parent if folder.absolute().name == "model" and _is_run(parent) else None
    stored = store.read(folder)
    source = _mapping(stored.content.get("source"))
    if run is not None:
        source |= _of_run(run, source)
    fallback = run.resolve().name if run is not None else given.resolve().name
    return stored, _facts(stored, _known(source), run, fallback)


def _facts(stored: Stored, source: Mapping[str, Any], run: Path | None, fallback: str) -> Facts:
    network = store.abstract(stored.spec)
    store.check_fit(stored, store.leaves(network), stored.tensors)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
    scores = _scores(source)
    return Facts(
        name=source.get("run", fallback),
        spec=stored.spec,
        classes=_classes(stored, source),
        parameters=parameters,
        sha256=stored.content["weights"]["sha256"],
        versions={k: v for k, v in _mapping(stored.content.get("versions")).items() if _text(v)},
        data=source.get("data"),
        images=source.get("images", {}),
        settings=source.get("settings", {}),
        begins=source.get("begins"),
        step=source.get("best_step"),
        scores=scores,
        source=source,
        picture=_picture(run, scores),
    )


def _classes(stored: Stored, source: Mapping[str, Any]) -> tuple[str, ...]:
    if not stored.spec.segments:
        return ()
    count, names = max(stored.spec.classes, 2), source.get("classes")
    if names is None:
        return usual_names(stored.spec.classes)
    if not isinstance(names, list) or len(names) != count or not all(map(_text, names)):
        raise StoreError(f"{stored.folder / CONFIG}: its classes are {names!r}; accepted are {count} names")
    return tuple(names)


def _picture(run: Path | None, scores: Scores | None) -> Path | None:
    """That of the split that the scores are of; without scores nobody knows which weights a picture shows."""
    if run is None or scores is None:
        return None
    path = run / PICTURES[scores.split]
    return path if path.is_file() else None


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / "metrics.jsonl").is_file()


def _of_run(run: Path, source: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's files say of the weights that `source` belongs to."""
    try:
        content = json.loads((run / CONFIG).read_text())
        settings, data, begins = content["config"], content["data"], content.get("begins")
        found: dict[str, Any] = {
            "data": data["name"],
            "images": {split: len(data[split]) for split in SPLITS},
            "settings": {name: settings[name] for name in SETTINGS if settings.get(name) is not None},
        }
        if begins is not None:
            found["begins"] = Path(begins["folder"]).name
        names = content["model"]["class_names"]
        lines = (run / "metrics.jsonl").read_text().splitlines()
        row = _row([row for row in map(_parsed, lines) if row], source.get("best_step"))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise StoreError(f"{run} does not describe a run: {first_line(error)}") from None
    # A run that goes on has lost the row of its test, but the network that the test was of still lies there.
    if row is not None and not ("val_dice" in row and "test_dice" in source):
        split, prefix = ("test", "test") if "test_dice" in row else ("validation", "val")
        each = {name: row.get(f"{prefix}_dice_{name.replace(' ', '_')}") for name in names[1:]}
        found["scores"] = {
            "split": split,
            "dice": row.get(f"{prefix}_dice"),
            "iou": row.get(f"{prefix}_iou"),
            "classes": {name: score for name, score in each.items() if score is not None},
        }
    return found


def _row(rows: list[dict[str, Any]], step: int | None) -> dict[str, Any] | None:
    """That of the test of the weights of a step, or else of their validation."""
    tests = [row for row in rows if "test_dice" in row and row.get("best_step") == step]
    validations = [row for row in rows if "val_dice" in row and row.get("step") == step]
    return next(iter([*tests[::-1], *validations[::-1]]), None) if step is not None else None


def _parsed(line: str) -> dict[str, Any] | None:
    """A row; None for the torn last line of a run that was killed."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _scores(source: Mapping[str, Any]) -> Scores | None:
    given = _mapping(source.get("scores"))
    if given.get("split") not in ("test", "validation"):
        dice = _number(source.get("test_dice"))
        return None if dice is None else Scores("test", dice, None, {})
    each = {name: _number(score) for name, score in _mapping(given.get("classes")).items()}
    classes = {name: score for name, score in each.items() if score is not None}
    return Scores(given["split"], _number(given.get("dice")), _number(given.get("iou")), classes)


# A config.json that was pulled is written by others: what is not of its kind is not known.
def _known(source: Mapping[str, Any]) -> dict[str, Any]:
    """What there is a fact for. What else a user noted may be a path or a name, and stays at home."""
    texts = ("run", "data", "begins", "fit", "axis", "name", "sha256", "dialect", "torch")
    kinds: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(texts, _last_part),
        **dict.fromkeys(("size", "best_step"), _whole),
        "test_dice": _number,
        "classes": lambda names: names,  # `_classes` refuses what are none
        "images": _counts,
        "colors": _colors,
        "settings": _settings,
        "scores": lambda given: _plain(_scores({"scores": given})),
    }
    found = {key: kind(source[key]) for key, kind in kinds.items() if key in source}
    return {key: value for key, value in found.items() if value is not None}


def _colors(value: Any) -> list[list[int]] | None:
    rows = value if isinstance(value, list) else []
    good = all(
        isinstance(row, list) and len(row) == 3 and all(_whole(x) is not None and x < 256 for x in row)
        for row in rows
    )
    return rows if rows and good else None


def _counts(value: Any) -> dict[str, int]:
    given = _mapping(value)
    return {split: count for split in SPLITS if (count := _whole(given.get(split)))}


def _settings(value: Any) -> dict[str, Any]:
    given = _mapping(value)
    return {name: given[name] for name in SETTINGS if _is_setting(given.get(name))}


def _plain(scores: Scores | None) -> dict[str, Any] | None:
    return None if scores is None else asdict(scores)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _last_part(value: Any) -> str | None:
    """Of what may be a path, of this system or another."""
    return _text(re.split(r"[/\\]", value.rstrip("/\\"))[-1]) if isinstance(value, str) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _is_setting(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(one, bool | int | float | str) for one in values)
