"""Writes an image from the top down as a tiled TIFF file or a Zarr array that survives interruptions.

What is finished lies in a folder beside the file, with a record of it: after a kill at any instant the same
job continues, and the file gets the bytes that it would have had. It appears whole or not at all.
"""

import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from flaxunet.io import tiff
from flaxunet.labels import Color

TILE = 512  # pixels: the side of tiles and chunks
RECORD = "progress.jsonl"  # the file that records what is finished
SUFFIXES = (".tif", ".tiff", ".zarr")
LEVEL = 1  # of compression: labels become small at any, and floats at none

Shape = tuple[int, ...]
Palette = Sequence[Color]


class ResumableWriter:
    """Writes rows of an image in a `with` block, which keeps other processes away from the file.

    Args:
      path: ends with one of `SUFFIXES`.
      shape, dtype: of the image, (H, W) of labels or (H, W, K).
      job: what the numbers depend on; what another job has left is discarded.
      palette: colours of uint8 labels from 1 on, in a TIFF.
    Raises: ValueError for another suffix, or if another process is writing the same file; OSError if it
      cannot be written.
    """

    def __init__(
        self, path: Path, shape: Shape, dtype: np.dtype, job: Mapping[str, Any], palette: Palette = ()
    ):
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path}: suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
        self.path, self.shape, self.dtype, self._palette = path, shape, dtype, palette
        self._folder = path.with_name(f".{path.name}.part")
        self._job = json.loads(json.dumps({**job, "shape": shape, "dtype": str(dtype), "tile": TILE}))
        self._waiting = np.empty((0, *shape[1:]), dtype)

    def __enter__(self) -> "ResumableWriter":
        self._folder.mkdir(exist_ok=True)
        self._record = (self._folder / RECORD).open("a+")
        try:
            fcntl.flock(self._record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._record.close()
            raise ValueError(f"{self.path} is being written by another process") from None
        make = _Zarr if self.path.suffix.lower() == ".zarr" else _Tiff
        self._record.seek(0)
        # The last line is empty, or one that was torn when its process was killed.
        lines: list[Any] = [json.loads(line) for line in self._record.read().split("\n")[:-1]]
        if not lines or lines[0] != self._job or not make.holds(self._folder, lines[1:]):
            lines = [self._job]
        self._record.seek(0)
        self._record.truncate()
        self._record.writelines(json.dumps(line) + "\n" for line in lines)
        self._record.flush()
        self._done = lines[1:]
        self._store = make(self._folder, self.shape, self.dtype, self._done, self._palette)
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()
        self._record.close()

    @property
    def finished(self) -> int:
        """Rows that are kept, whatever happens; `add` continues with the next one."""
        return min(TILE * len(self._done), self.shape[0])

    def add(self, rows: np.ndarray) -> None:
        """Appends rows (h, W) or (h, W, K), which are copied."""
        self._waiting = np.concatenate([self._waiting, np.asarray(rows, self.dtype)])
        while (count := min(TILE, self.shape[0] - self.finished)) and len(self._waiting) >= count:
            tiles, self._waiting = self._waiting[:count], self._waiting[count:]
            self._done.append(self._store.add(tiles, self.finished))
            self._record.write(json.dumps(self._done[-1]) + "\n")
            self._record.flush()

    def finish(self) -> None:
        """Makes the file from its parts; an older one is replaced."""
        whole = self._store.finish(self._done)
        if self.path.is_dir():
            old = self._folder / "old"
            shutil.rmtree(old, ignore_errors=True)  # of a process that was killed here
            self.path.rename(old)
        whole.replace(self.path)
        (self._folder / RECORD).unlink()  # first, because what it records goes next
        shutil.rmtree(self._folder)


class _Tiff:
    """Keeps compressed tiles one behind the other; their lengths are recorded."""

    @staticmethod
    def holds(folder: Path, done: list[list[int]]) -> bool:
        """Whether a folder has everything that was recorded."""
        tiles = folder / "tiles"
        return tiles.is_file() and tiles.stat().st_size >= sum(map(sum, done))

    def __init__(self, folder: Path, shape: Shape, dtype: np.dtype, done: list[list[int]], palette: Palette):
        self._whole, self._shape, self._dtype, self._palette = folder / "image.tif", shape, dtype, palette
        self._tiles = (folder / "tiles").open("a+b")
        self._tiles.truncate(sum(map(sum, done)))

    def add(self, rows: np.ndarray, top: int) -> list[int]:
        """Keeps a row of tiles; returns what is to be recorded."""
        lengths = []
        for left in range(0, self._shape[1], TILE):
            tile = rows[:, left : left + TILE]
            pads = [*((0, TILE - side) for side in tile.shape[:2]), *[(0, 0)] * (tile.ndim - 2)]
            lengths.append(self._tiles.write(zlib.compress(np.pad(tile, pads).tobytes(), LEVEL)))
        self._tiles.flush()
        os.fsync(self._tiles)  # before the record says so
        return lengths

    def finish(self, done: list[list[int]]) -> Path:
        """Makes the whole file and returns its path."""
        lengths = [length for row in done for length in row]
        options: dict[str, Any] = {"photometric": "minisblack"}
        if len(self._shape) > 2:
            options["planarconfig"] = "contig"
        elif self._dtype == np.uint8:
            options = tiff.palette_options(self._palette)
        options["shape"] = self._shape if self._shape[2:] != (1,) else self._shape[:2]
        options |= {"dtype": self._dtype, "tile": (TILE, TILE), "compression": "zlib", "metadata": None}
        self._tiles.seek(0)
        with tifffile.TiffWriter(self._whole, bigtiff=sum(lengths) > tiff.CLASSIC_BYTES) as writer:
            writer.write((self._tiles.read(length) for length in lengths), **options)
        return self._whole

    def close(self) -> None:
        self._tiles.close()


class _Zarr:
    """Keeps an array whose chunks are files; its methods are those of `_Tiff`."""

    @staticmethod
    def holds(folder: Path, done: list[int]) -> bool:
        return (folder / "array.zarr").is_dir()

    def __init__(self, folder: Path, shape: Shape, dtype: np.dtype, done: list[int], palette: object):
        try:
            import zarr
        except ImportError:
            raise ValueError("a .zarr output needs pip install 'flaxunet[zarr]'") from None
        self._whole = folder / "array.zarr"
        if not done:
            shutil.rmtree(self._whole, ignore_errors=True)
            chunks = (TILE, TILE, *shape[2:])
            zarr.create_array(store=str(self._whole), shape=shape, chunks=chunks, dtype=dtype)
        self._array: Any = zarr.open_array(store=str(self._whole), mode="r+")

    def add(self, rows: np.ndarray, top: int) -> int:
        self._array[top : top + len(rows)] = rows
        return len(rows)

    def finish(self, done: list[int]) -> Path:
        return self._whole

    def close(self) -> None:
        pass
