"""Keeps the metrics of a run: metrics.jsonl, and the same numbers as TensorBoard events."""

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

from flaxunet.files import write_whole

Row = Mapping[str, float | None]
proto: Any = event_pb2  # whose classes are made on import, unseen by type checkers


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Reads a run's metrics.jsonl, without the torn last line that a killed run may leave."""
    path, rows = folder / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def evaluations_without_gain(rows: Sequence[Row]) -> int:
    """Counts the evaluations since the first one with the highest validation Dice."""
    scores = [row["val_dice"] for row in rows if "val_dice" in row]
    ranks = [-math.inf if score is None else score for score in scores]
    return len(ranks) - 1 - ranks.index(max(ranks)) if ranks else 0


class Log:
    """Appends to metrics.jsonl, one flat object per evaluation, and to a file of TensorBoard events.

    Use as a context manager, so that the last events are written.

    Args:
      folder: of the run.
      start: steps already taken; the rows of later steps, and of the test, are dropped.
      writes: whether this process writes; of several processes one does.
    """

    def __init__(self, folder: Path, start: int, *, writes: bool = True):
        self._path, self._events, self.rows = folder / "metrics.jsonl", None, []
        if not writes:
            return
        self._events = _Events(folder, start)
        self.rows = [row for row in read_rows(folder) if row["step"] <= start and "test_dice" not in row]
        write_whole(self._path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._events.close()

    def add(self, row: dict[str, float]) -> None:
        """Appends a row; a score that is not a number is written as null."""
        if self._events is None:
            return
        clean = {key: value if np.isfinite(value) else None for key, value in row.items()}
        self.rows.append(clean)
        with self._path.open("a") as file:
            file.write(json.dumps(clean) + "\n")
        scores = {key: value for key, value in row.items() if key.startswith(("train_", "val_", "test_"))}
        scalars = [summary.scalar(key.replace("_", "/", 1), value) for key, value in scores.items()]
        self._events.add(int(row["step"]), *scalars)

    def add_picture(self, name: str, path: Path, step: int) -> None:
        """Shows a PNG file in TensorBoard."""
        if self._events is None:
            return
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._events.add(step, summary.image(name, pixels, dataformats="HWC"))


class _Events:
    """A file of TensorBoard events, written at once and without what the disk has no room for.

    Its numbers are in metrics.jsonl as well. `tensorboardX.SummaryWriter` writes from a thread, which a full
    disk ends: the run would then wait for ever for a place in the queue of that thread.
    """

    def __init__(self, folder: Path, start: int):
        self._writer = EventsWriter(str(folder / "events"))
        if start:  # TensorBoard then drops what earlier files say of later steps
            begin = proto.SessionLog(status=proto.SessionLog.START)
            self._write(proto.Event(step=start + 1, session_log=begin))

    def add(self, step: int, *summaries: Any) -> None:
        self._write(*(proto.Event(step=step, summary=one) for one in summaries))

    def _write(self, *events: Any) -> None:
        with contextlib.suppress(OSError):
            for event in events:
                event.wall_time = time.time()
                self._writer.write_event(event)
            self._writer.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()
