"""Writes prepared samples into a folder of two files, and reads them as memory-mapped arrays.

data.bin holds the packed arrays one after the other, as they lie in memory; index.json says where each
begins. A random crop touches only the pages of its rows, which no archive of whole records offers
(`benchmarks/cache.py`); one file stays mapped, and readable, even when another process evicts the shard.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from train.data.samples import Arrays, Prepared

FORMAT = 1
ALIGNED = 64  # bytes; any dtype may be viewed there


class Writer:
    """Writes a shard into an empty folder, which is usable once it is finished."""

    def __init__(self, folder: Path):
        self._folder, self._entries, self.bytes = folder, [], 0
        self._file = (folder / "data.bin").open("wb")

    def add(self, one: Prepared) -> None:
        """Appends a sample, whose source must be arrays."""
        arrays: Arrays = one.source  # pyright: ignore[reportAssignmentType]
        entry = {"values": one.values.tolist(), "classes": one.classes.tolist()}
        entry |= {"image": self._put(arrays.image), "label": self._put(arrays.label)}
        self._entries.append({"sample": identity(one.pair), **entry})

    def _put(self, array: np.ndarray) -> list[Any]:
        start = self.bytes
        self.bytes += self._file.write(np.ascontiguousarray(array).data)
        self.bytes += self._file.write(bytes(-array.nbytes % ALIGNED))
        return [start, array.dtype.str, list(array.shape)]

    def finish(self) -> None:
        """Writes the index, and waits until both files are on the disk."""
        sync(self._file)
        with (self._folder / "index.json").open("wb") as file:
            content = {"format": FORMAT, "bytes": self.bytes, "entries": self._entries}
            file.write(json.dumps(content, separators=(",", ":")).encode())
            sync(file)

    def close(self) -> None:
        """Closes the data file, finished or not."""
        self._file.close()


def sync(file: Any) -> None:
    """Waits until a file that is being written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def identity(pair: Any) -> str:
    """Returns a text that no other pair of the same data set has."""
    return f"{pair.image_location}|{pair.name}"


def read(folder: Path, pairs: list[Any]) -> list[Prepared] | None:
    """Reads the samples of these pairs; None if the folder is not a complete shard that has them all."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        entries = {entry["sample"]: entry for entry in index["entries"]}
        data = np.memmap(folder / "data.bin", np.uint8, mode="r")
        if index["format"] != FORMAT or len(data) != index["bytes"]:
            return None
        return [_prepared(pair, entries[identity(pair)], data) for pair in pairs]
    except (OSError, ValueError, KeyError, TypeError):  # evicted meanwhile, or damaged: made anew
        return None


def _prepared(pair: Any, entry: dict[str, Any], data: np.ndarray) -> Prepared:
    image, label = (_array(data, *entry[name]) for name in ("image", "label"))
    values, classes = (np.array(entry[name], np.int32) for name in ("values", "classes"))
    return Prepared(pair, image.shape, values, classes, Arrays(image, label))


def _array(data: np.ndarray, start: int, dtype: str, shape: list[int]) -> np.ndarray:
    kind = np.dtype(dtype)
    return data[start : start + kind.itemsize * int(np.prod(shape))].view(kind).reshape(shape)
