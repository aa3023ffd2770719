"""Examines the data of a run before training, and caches the findings as long as no file changes."""

import contextlib
import hashlib
import json
from pathlib import Path

import flaxunet
from flaxunet.data import inspection
from flaxunet.data.classes import find_for_target
from flaxunet.data.inspection.report import merge_lines
from flaxunet.files import cache_folder, write_whole
from train.config.settings import Data
from train.data.cache import stamp
from train.data.dataset import DataError

OPTIONS = ("layout", "group", "axis", "target", "classes", "ignore_label", "fold")


def check(data: Data, seed: int) -> tuple[str, ...]:
    """Examines the data of a run, once for the same files and options.

    The findings lie in the user's cache under a digest of the options and of each file's path, size and time
    of change. The default data are not examined.

    Args:
      data, seed: settings.
    Returns: a line for each warning.
    Raises: DataError that lists everything that makes training wrong.
    """
    if data.folder is None:
        return ()
    listing = find_for_target(
        Path(data.folder), target=data.target, layout=data.layout, group=data.group, axis=data.axis
    )
    options = {"seed": seed, **{name: getattr(data, name) for name in OPTIONS}}
    stamps = [stamp(path) for path in sorted({path for record in listing.records for path in record.files})]
    content = (flaxunet.__version__, options, listing.interpretation, listing.problems, stamps)
    kept = cache_folder("examined") / f"{hashlib.sha256(repr(content).encode()).hexdigest()}.json"
    lines = _read(kept)
    if lines is None:
        report = inspection.examine(
            listing,
            target=data.target,
            classes=data.classes,
            ignore_label=data.ignore_label,
            seed=seed,
            fold=data.fold_numbers,
            threads=data.workers,
        )
        lines = {"errors": [str(one) for one in report.errors], "warnings": merge_lines(report.warnings)}
        with contextlib.suppress(OSError):  # where nothing can be kept, the next run examines again
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, json.dumps(lines).encode())
    if lines["errors"]:
        raise DataError(lines["errors"])
    return tuple(lines["warnings"])


def _read(path: Path) -> dict[str, list[str]] | None:
    try:
        kept = json.loads(path.read_text("utf-8"))
        return {name: [str(line) for line in kept[name]] for name in ("errors", "warnings")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
