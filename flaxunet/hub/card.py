"""Writes the model card of a stored network: YAML for the hub, then prose.

The front matter is plain YAML rather than huggingface_hub's ModelCardData, so that a network is pushed to a
folder without that library; a test reads it back with ModelCard.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from flaxunet.hub.facts import SPLITS, Facts
from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS
from flaxunet.report import html
from flaxunet.weights.store import CONFIG, WEIGHTS

LIBRARY = "flaxunet"
INTENSITIES = {
    "dtype": "Integers are divided by the maximum of their dtype, so that 0 is black and 1 is white",
    "percentile": "Each channel is scaled from its 0.5th percentile (0) to its 99.5th (1), and clipped",
    "zscore": "Each channel is scaled to mean 0 and standard deviation 1",
}
UNKNOWN_DATA = "The training data are not known."
LIMITS = (
    "For research only; this is not a medical device. Scores hold for images like those of the training: "
    "another scanner, stain, resolution or population can change them much. Measure on images of your own "
    "before relying on a mask."
)


def write(facts: Facts, *, name: str, hub: str | None, license: str | None, picture: str | None) -> str:
    """Writes the text of README.md.

    Args:
      facts, name: of the network, and of the repository; `hub` is its OWNER/NAME if it is on the hub.
      license: an identifier of the hub, such as "apache-2.0"; None names no license.
      picture: name of a file beside the card that shows predictions.
    """
    sections = {
        "Classes and scores": _scores(facts) if facts.spec.segments else "",
        "Use": _use(facts, name, hub),
        "Data": _data(facts),
        "Training": _training(facts),
        "Limits": LIMITS,
    }
    front = yaml.safe_dump(front_matter(facts, name, license), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---", f"# {_plain(name)}", _opening(facts)]
    if picture:
        tested = facts.scores is not None and facts.scores.split == "test"
        split = "test set" if tested else "validation set, at the last step"
        parts += [f"![Predictions]({picture})"]
        parts += [f"*Images of the {split}: image, truth, prediction, and where the two differ.*"]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def front_matter(facts: Facts, name: str, license: str | None) -> dict[str, Any]:
    """Returns what the hub reads; scores as its model-index has them."""
    segments, scores = facts.spec.segments, facts.scores
    tags = [LIBRARY, "jax", "flax", "biomedical"]
    tags += ["image-segmentation", "semantic-segmentation"] if segments else []
    front: dict[str, Any] = {
        **({"license": license} if license else {}),
        "library_name": LIBRARY,
        "pipeline_tag": "image-segmentation" if segments else "image-feature-extraction",
        "tags": list(dict.fromkeys([*tags, facts.spec.arch, facts.spec.encoder])),
    }
    if scores is None:
        return front
    mean = "mean of foreground classes"
    rows = [("dice", f"Dice, {mean}", scores.dice), ("iou", f"IoU, {mean}", scores.iou)]
    if len(scores.classes) > 1:
        rows += [("dice", f"Dice, {label}", dice) for label, dice in scores.classes.items()]
    metrics = [dict(zip(("type", "name", "value"), row, strict=True)) for row in rows if row[2] is not None]
    if not metrics:
        return front
    data = facts.data or "unknown"
    slug = re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-") or "unknown"
    result = {
        "task": {"type": "image-segmentation", "name": "Image segmentation"},
        "dataset": {"name": data, "type": slug, "split": scores.split},
        "metrics": metrics,
    }
    return front | {"model-index": [{"name": name, "results": [result]}]}


def title(facts: Facts) -> str:
    """Names the network for people: UNet 3+ on ResNet-18."""
    encoder = ENCODERS[facts.spec.encoder].title
    return f"{DECODERS[facts.spec.arch].title} on {encoder}" if facts.spec.segments else encoder


def origin(facts: Facts) -> str:
    """Says what the network was trained on, as far as that is known."""
    if facts.data is None:
        return UNKNOWN_DATA
    count = facts.images.get("train")
    return f"Trained on {facts.data}" + (f", {_images(count)}." if count else ".")


def _opening(facts: Facts) -> str:
    spec, channels = facts.spec, facts.spec.in_channels
    options = {"deep supervision": spec.deep_supervision, "classification guidance": spec.guidance}
    options["group normalisation"] = spec.norm == "group"
    options[f"pruning to level {spec.pruned}"] = spec.pruned is not None
    extras = [name for name, present in options.items() if present]
    task = "makes feature maps of"
    if spec.segments:
        task = f"segments {_listed(map(_plain, facts.classes[1:]))} in"
    return (
        f"{title(facts)}{', with ' + _listed(extras) if extras else ''}: a network of {facts.parameters:,} "
        f"parameters that {task} images of {channels} channel{'s' * (channels > 1)} and any size. It runs in "
        f"[JAX](https://docs.jax.dev) with the library {LIBRARY}."
    )


def _scores(facts: Facts) -> str:
    scores = facts.scores
    if scores is None:
        rows = [(str(label), _plain(name)) for label, name in enumerate(facts.classes)]
        return f"{_table(('label', 'class'), rows)}\n\nNo scores are known for these weights."
    dice = {**scores.classes}
    if len(facts.classes) == 2 and scores.dice is not None:
        dice.setdefault(facts.classes[1], scores.dice)
    cells = ["", *(html.number(dice.get(name)) for name in facts.classes[1:])]
    rows = [(str(label), _plain(name), cells[label]) for label, name in enumerate(facts.classes)]
    rows.append(("", "**foreground mean**", f"**{html.number(scores.dice)}**"))
    count = facts.images.get(scores.split)
    where = _images(count, scores.split) if count else f"the {scores.split} set"
    chosen = "by which these weights were chosen: expect less on other images"
    caution = "which were in neither training nor validation" if scores.split == "test" else chosen
    iou = f" The mean IoU is {html.number(scores.iou)}." if scores.iou is not None else ""
    note = f"Dice on {where}, {caution}. It is computed over all pixels of the set together.{iou}"
    return f"{_table(('label', 'class', 'Dice'), rows)}\n\n{note}"


def _use(facts: Facts, name: str, hub: str | None) -> str:
    folder = name if re.fullmatch(r"\w[\w.-]*", name, re.ASCII) else "DIR"
    get = f"```bash\npython -m flaxunet pull {hub} --out {folder}\n```\n\n" if hub else ""
    if not facts.spec.segments:
        code = f'```python\nimport flaxunet\n\nencoder = flaxunet.load("{folder}")\n```'
        train = f"python -m train --encoder {facts.spec.encoder} --encoder-weights {folder}"
        return f"{get}{code}\n\nor `{train}`."
    return f"""{get}```python
import flaxunet

predict = flaxunet.Predictor.load(["{folder}"])
probabilities = predict(flaxunet.read_image("image.png"))
flaxunet.write_mask("mask.png", predict.labels(probabilities))
```

On the command line, and in a browser:

```bash
python -m flaxunet predict {folder} image.png --out predictions
python -m flaxunet app {folder}
```"""


def _data(facts: Facts) -> str:
    spec = facts.spec
    splits = [f"{_images(count)} for {SPLITS[split]}" for split, count in facts.images.items()]
    about = UNKNOWN_DATA
    if facts.data is not None:
        about = f"Trained on {_plain(facts.data)}" + (f", with {_listed(splits)}." if splits else ".")
    if facts.source.get("axis") is not None:
        about += f" Its images were {_plain(facts.source['axis'])} slices of volumes"
        about += ", scaled from each channel's minimum to its maximum." if spec.intensity == "dtype" else "."
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    return (
        f"{about}\n\nThe network takes float32 images (height, width, {spec.in_channels}), as "
        f"`flaxunet.io.read_image` reads them from PNG, JPEG, TIFF, DICOM and NIfTI files. "
        f"{INTENSITIES[spec.intensity]}; then the mean {mean} is subtracted, and the result divided by "
        f"{std}. The library does this by itself."
    )


def _training(facts: Facts) -> str:
    weights = f"`{WEIGHTS}` holds the weights in float32 (sha256 `{facts.sha256}`)"
    lines = [f"{weights}, `{CONFIG}` the network, its classes and the intensities that it expects."]
    if facts.step is not None:
        lines.append(f"The weights are those of step {facts.step:,}, which had the best validation Dice.")
    if (initial := facts.source.get("begins")) is not None:
        lines.append(f"Training started with the weights {_plain(initial)}.")
    versions = ", ".join(f"{_plain(name)} {_plain(number)}" for name, number in facts.versions.items())
    if versions:
        lines.append(f"Written by {versions}.")
    rows = [(name.replace("_", " "), _plain(html.text(value))) for name, value in facts.settings.items()]
    settings = _table(("setting", "value"), rows) if rows else "The settings of the training are not known."
    return f"{' '.join(lines)}\n\n{settings}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def _plain(text: str) -> str:
    """Escapes Markdown and HTML in the text of others."""
    return re.sub(r"([\\`*_\[\]|<>#])", r"\\\1", " ".join(text.split()))


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _images(count: int, kind: str = "") -> str:
    return f"{count:,} {kind + ' ' if kind else ''}image{'s' * (count != 1)}"
