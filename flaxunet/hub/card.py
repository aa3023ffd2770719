"""What is known of a network enters; its model card leaves: YAML for the hub, then prose for people."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from flaxunet.hub.facts import SPLITS, Facts
from flaxunet.models.encoders import ENCODERS
from flaxunet.weights.store import CONFIG, WEIGHTS

LIBRARY = "flaxunet"
ARCHS = {"unet": "UNet", "unetplusplus": "UNet++", "unet3plus": "UNet 3+"}
INTENSITIES = {
    "dtype": "Integers are divided by the maximum of their dtype, so that 0 is black and 1 is white",
    "percentile": "Each channel is stretched from its 0.5th percentile (0) to its 99.5th (1), and clipped",
    "zscore": "Each channel is brought to mean 0 and standard deviation 1",
}


def write(facts: Facts, *, name: str, hub: str | None, license: str | None, picture: str | None) -> str:
    """The text of README.md.

    Args:
      facts: of the network.
      name: of the repository.
      hub: OWNER/NAME, if that is where the repository is.
      license: an identifier of the hub, such as "apache-2.0"; None says nothing.
      picture: name of the file that shows predictions, if it lies beside the card.
    """
    parts = [
        f"---\n{yaml.safe_dump(front_matter(facts, name, license), sort_keys=False, allow_unicode=True)}---",
        f"# {_plain(name)}",
        _opening(facts),
        *([f"![Predictions]({picture})", _caption(facts)] if picture else []),
        *_section("Classes and scores", _scores(facts) if facts.spec.segments else None),
        *_section("Use", _use(facts, name, hub)),
        *_section("Data", _data(facts)),
        *_section("Training", _training(facts)),
        *_section("Limits", _limits(facts)),
        *_section("Files", _files(facts)),
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(facts: Facts, name: str, license: str | None) -> dict[str, Any]:
    """What the hub reads; scores as its model-index has them."""
    segments, scores = facts.spec.segments, facts.scores
    front: dict[str, Any] = {
        **({"license": license} if license else {}),
        "library_name": LIBRARY,
        "pipeline_tag": "image-segmentation" if segments else "image-feature-extraction",
        "tags": list(
            dict.fromkeys(
                (
                    *(LIBRARY, "jax", "flax", "biomedical"),
                    *(("image-segmentation", "semantic-segmentation") if segments else ()),
                    *(facts.spec.arch, facts.spec.encoder),
                )
            )
        ),
    }
    if scores is None or (scores.dice is None and not scores.classes):
        return front
    metrics = [
        {"type": kind, "name": f"{label}, mean of foreground classes", "value": value}
        for kind, label, value in (("dice", "Dice", scores.dice), ("iou", "IoU", scores.iou))
        if value is not None
    ]
    if len(scores.classes) > 1:
        metrics += [{"type": "dice", "name": f"Dice, {of}", "value": v} for of, v in scores.classes.items()]
    data = facts.data or "unknown"
    dataset = {"name": data, "type": _slug(data), "split": scores.split}
    task = {"type": "image-segmentation", "name": "Image segmentation"}
    return front | {
        "model-index": [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]
    }


def title(facts: Facts) -> str:
    """The network in words: UNet 3+ on ResNet-18."""
    encoder = ENCODERS[facts.spec.encoder].title
    return f"{ARCHS[facts.spec.arch]} on {encoder}" if facts.spec.segments else encoder


def origin(facts: Facts) -> str:
    """What it was trained on, as far as that is known."""
    if facts.data is None:
        return "What it was trained on is not known."
    count = facts.images.get("train")
    return f"Trained on {facts.data}" + (f", {_images(count)}." if count else ".")


def _opening(facts: Facts) -> str:
    spec, channels = facts.spec, facts.spec.in_channels
    takes = f"images of {channels} channel{'s' * (channels > 1)}"
    what = f"finds {_listed(map(_plain, facts.classes[1:]))} in" if spec.segments else "makes feature maps of"
    extras = [
        text
        for known, text in (
            (spec.deep_supervision, "deep supervision"),
            (spec.guidance, "classification guidance"),
            (spec.norm == "group", "group normalisation"),
            (spec.pruned is not None, f"pruned to level {spec.pruned}"),
        )
        if known
    ]
    return (
        f"{title(facts)}{', with ' + _listed(extras) if extras else ''}: a network of "
        f"{facts.parameters:,} parameters that {what} {takes} of any size. It runs in "
        f"[JAX](https://docs.jax.dev) with the library {LIBRARY}."
    )


def _caption(facts: Facts) -> str:
    which = (
        "test set" if facts.scores and facts.scores.split == "test" else "validation set, at the last step"
    )
    return f"*Images of the {which}: image, truth, prediction, and where the two differ.*"


def _scores(facts: Facts) -> str:
    scores = facts.scores
    if scores is None:
        rows = [(str(label), _plain(name)) for label, name in enumerate(facts.classes)]
        return f"{_table(('label', 'class'), rows)}\n\nNo scores are known for these weights."
    known = {**scores.classes}
    if len(facts.classes) == 2 and scores.dice is not None:
        known.setdefault(facts.classes[1], scores.dice)
    rows = [
        (str(label), _plain(name), _score(known.get(name)) if label else "")
        for label, name in enumerate(facts.classes)
    ]
    rows.append(("", "**foreground mean**", f"**{_score(scores.dice)}**"))
    count = facts.images.get(scores.split)
    told = f"Dice on {_images(count, scores.split) if count else f'the {scores.split} set'}"
    if scores.split == "test":
        told += ", which were in neither training nor validation"
    else:
        told += ", by which these weights were chosen: expect less on other images"
    told += ", counted over all pixels of the set"
    told += f". The mean IoU is {_score(scores.iou)}." if scores.iou is not None else "."
    return f"{_table(('label', 'class', 'Dice'), rows)}\n\n{told}"


def _use(facts: Facts, name: str, hub: str | None) -> str:
    folder = name if re.fullmatch(r"\w[\w.-]*", name, re.ASCII) else "DIR"
    get = f"```bash\npython -m flaxunet pull {hub} --out {folder}\n```\n\n" if hub else ""
    if not facts.spec.segments:
        return (
            f'{get}```python\nimport flaxunet\n\nencoder = flaxunet.load("{folder}")\n```\n\n'
            f"or `python -m train --encoder {facts.spec.encoder} --encoder-weights {folder}`."
        )
    python = (
        "import flaxunet\n\n"
        f'predict = flaxunet.Predictor.load(["{folder}"])\n'
        'probabilities = predict(flaxunet.read_image("image.png"))\n'
        'flaxunet.write_mask("mask.png", predict.labels(probabilities))'
    )
    where = "With the library installed" + (", fetch this repository; its sha256 is checked:" if hub else ":")
    return (
        f"{where}\n\n{get}```python\n{python}\n```\n\n"
        f"On the command line, and in a browser:\n\n```bash\npython -m flaxunet predict {folder} image.png "
        f"--out predictions\npython -m flaxunet app {folder}\n```"
    )


def _data(facts: Facts) -> str:
    spec = facts.spec
    parts = [f"{_images(count)} for {SPLITS[split]}" for split, count in facts.images.items()]
    about = "What it was trained on is not known."
    if facts.data is not None:
        about = f"Trained on {_plain(facts.data)}" + (f", with {_listed(parts)}." if parts else ".")
    if facts.source.get("axis") is not None:
        scaled = ", scaled from the smallest value of the volume's channel to its largest"
        about += f" Its images were {_plain(facts.source['axis'])} slices of volumes"
        about += f"{scaled if spec.intensity == 'dtype' else ''}."
    return (
        f"{about}\n\nIt takes float32 images (height, width, {spec.in_channels}), as "
        f"`flaxunet.io.images.read_image` reads them from PNG, JPEG, TIFF, DICOM and NIfTI files. "
        f"{INTENSITIES[spec.intensity]}; then mean {_numbers(spec.mean)} is subtracted, and the rest divided "
        f"by {_numbers(spec.std)}. The library does all of this by itself."
    )


def _training(facts: Facts) -> str | None:
    told = []
    if facts.step is not None:
        told.append(f"The weights are those of step {facts.step:,}, which had the best validation Dice.")
    if facts.begins is not None:
        told.append(f"Training began with the weights {_plain(facts.begins)}.")
    versions = ", ".join(f"{_plain(name)} {_plain(number)}" for name, number in facts.versions.items())
    if versions:
        told.append(f"Written by {versions}.")
    rows = [(name.replace("_", " "), _plain(_setting(value))) for name, value in facts.settings.items()]
    parts = [" ".join(told), *([_table(("setting", "value"), rows)] if rows else [])]
    if not rows:
        parts.append("With which settings it was trained is not known.")
    return "\n\n".join(filter(None, parts))


def _limits(facts: Facts) -> str:
    seen = "those it was trained on" if facts.data else "the unknown ones it was trained on"
    return (
        f"For research; it is no medical device. Scores hold for images like {seen}: "
        "another scanner, stain, resolution or population can change them much, so measure on images of your "
        "own before relying on a mask."
    )


def _files(facts: Facts) -> str:
    rows = [
        (f"`{WEIGHTS}`", f"the weights, float32; sha256 `{facts.sha256}`"),
        (
            f"`{CONFIG}`",
            "the network, its classes, the intensities it expects, where it is from, that sha256",
        ),
    ]
    return _table(("file", "what it holds"), rows)


def _section(heading: str, text: str | None) -> list[str]:
    return [f"## {heading}", text] if text else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text of others as text: no markup of a name is markup of the card."""
    return re.sub(r"([\\`*_\[\]|<>#])", r"\\\1", " ".join(text.split()))


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _images(count: int, kind: str = "") -> str:
    return f"{count:,} {kind + ' ' if kind else ''}image{'s' * (count != 1)}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"
