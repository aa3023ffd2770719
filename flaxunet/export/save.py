"""Saves a predictor as one file that other programs run on images of any size, once it is checked."""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.markup import escape

from flaxunet.export.check import SIZES, ExportError, Run, compare, unguided
from flaxunet.files import whole_file
from flaxunet.prediction.predictor import Predictor
from flaxunet.report.console import pairs

UNITS = {"dtype": "in [0, 1]", "percentile": "of any range", "zscore": "of any range"}


def about(predictor: Predictor, layout: str) -> dict[str, str]:
    """Describes a predictor of one network for a file's metadata; every value is text, lists are JSON.

    `layout` is the order of the axes of images and probabilities.
    """
    (model,), version = predictor.models, importlib.metadata.version("flaxunet")
    content = {"name": "flaxunet", "version": version, "layout": layout}
    content |= {"classes": json.dumps(predictor.classes), "intensity": predictor.intensity}
    content |= {"mean": json.dumps(model.mean), "std": json.dumps(model.std)}
    return content if predictor.side is None else content | {"side": str(predictor.side)}


class Format(Protocol):
    """An export format: a module with these names."""

    @property
    def LAYOUT(self) -> str:  # noqa: N802 - a module's constant
        """The order of the axes of images and probabilities in the file, e.g. "(B, C, H, W)"."""
        ...

    def write(self, predictor: Predictor, about: Mapping[str, str], /) -> bytes:
        """Makes the content of a file of a predictor of one network; `about` is its metadata."""
        ...

    def read(self, content: bytes, /) -> Run:
        """Makes a function of the content of a file: from images to probabilities, both channels last."""
        ...


def save(predictor: Predictor, out: Path, form: Format) -> float:
    """Writes a file, whole or not at all; it takes its name when it was read back and computes the same.

    Args:
      predictor, form: of one network, and of the file.
      out: the file; an older one is replaced.
    Returns: the largest difference between the probabilities of both.
    Raises: ExportError if the file is not the network; OSError if it cannot be written.
    """
    (model,), metadata = predictor.models, about(predictor, form.LAYOUT)
    with whole_file(out) as part:
        part.write_bytes(form.write(predictor, metadata))
        difference = compare(predictor, form.read(part.read_bytes()), str(out))
        if model.guidance is not None and _sigmoid(predictor):
            # An image without the only class leaves nothing to compare, and random images may be such.
            twin = unguided(predictor)
            difference = max(difference, compare(twin, form.read(form.write(twin, metadata)), str(out)))
    return difference


def check_out(out: Path, *inputs: Path) -> None:
    """Refuses, before the work, a file that cannot be written, or that is or lies in one of the inputs.

    Raises: ExportError.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise ExportError(f"{out} cannot be written; expected a file in an existing folder")
    read = (path for each in inputs for path in (each, *each.rglob("*")) if path.is_file())
    if out.exists() and any(out.samefile(path) for path in read):
        raise ExportError(f"--out {out} is what is read; expected another file")


def _sigmoid(predictor: Predictor) -> bool:
    """Whether there is one channel, of a sigmoid."""
    return predictor.models[0].heads[0].kernel.shape[-1] == 1


def export(model: str | Path, out: Path, form: Format) -> None:
    """Loads a stored network, saves it as `save` does, and prints what was written and how it was checked.

    Raises: ValueError if the network or the file cannot be used; OSError.
    """
    check_out(out, Path(model))
    predictor, console = Predictor.load([model]), Console(highlight=False)
    with console.status(f"writing {escape(out.name)} and comparing it with the network"):
        difference = save(predictor, out, form)
    sizes = ", ".join(" x ".join(map(str, size)) for size in SIZES)
    rows = (
        ("wrote", f"{out}, {out.stat().st_size / 1e6:.1f} MB"),
        ("images", f"{form.LAYOUT} float32, {UNITS[predictor.intensity]}"),
        ("gives", predictor.classes[1] if _sigmoid(predictor) else ", ".join(predictor.classes)),
        ("checked", f"batch x height x width {sizes}: probabilities within {difference:.1e}"),
    )
    console.print(pairs(rows))
