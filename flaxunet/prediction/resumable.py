"""Writes an image from the top down as a tiled TIFF file or a Zarr array that survives interruptions.

What is finished lies in a folder beside the file, with a record of it: after a kill at any instant the same
job continues, and the file gets the bytes that it would have had. It appears whole or not at all.
"""

import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile

from flaxunet.io import tiff
from flaxunet.io.tiff_stack import CLASSIC_BYTES
from flaxunet.labels import PALETTE, Color

TILE = 512
"""Pixels: the side of tiles and chunks."""
RECORD = "progress.jsonl"
"""The file that records what is finished."""
SUFFIXES = (".tif", ".tiff", ".zarr")
LEVEL = 1
"""Compression level: labels become small at any, and floats at none."""


class ResumableWriter:
    """Writes rows of an image in a `with` block, which keeps other processes away from the file.

    Args:
      path: ends with one of `SUFFIXES`.
      shape: (H, W) of labels, or (H, W, K).
      dtype: of the numbers.
      job: what the numbers depend on; what another job has left is discarded.
      palette: colours of uint8 labels from 1 on, in a TIFF.
    Raises: ValueError for another suffix, or if another process is writing the same file; OSError if it
      cannot be written.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: np.dtype,
        job: Mapping[str, Any],
        palette: Sequence[Color] = PALETTE,
    ):
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path}: suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
        self.path, self.shape, self.dtype, self._palette = path, shape, dtype, palette
        self._folder = path.with_name(f".{path.name}.part")
        self._job = json.loads(json.dumps({**job, "shape": shape, "dtype": str(dtype), "tile": TILE}))
        self._waiting: list[np.ndarray] = []

    def __enter__(self) -> "ResumableWriter":
        self._folder.mkdir(exist_ok=True)
        self._record = (self._folder / RECORD).open("a+")
        try:
            fcntl.flock(self._record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._record.close()
            raise ValueError(f"{self.path} is being written by another process") from None
        make = _Zarr if self.path.suffix.lower() == ".zarr" else _Tiff
        lines = self._lines()
        if not lines or lines[0] != self._job or not make.holds(self._folder, lines[1:]):
            lines = [self._job]
        self._record.seek(0)
        self._record.truncate()
        self._record.writelines(json.dumps(line) + "\n" for line in lines)
        self._record.flush()
        self._done: list[Any] = lines[1:]
        self._store: _Store = make(self._folder, self.shape, self.dtype, self._done, self._palette)
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
        self._waiting.append(np.array(rows, self.dtype))
        while True:
            count = min(TILE, self.shape[0] - self.finished)
            if not count or sum(map(len, self._waiting)) < count:
                return
            rows = np.concatenate(self._waiting)
            self._waiting = [rows[count:]]
            self._done.append(self._store.add(rows[:count], self.finished))
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

    def _lines(self) -> list[Any]:
        """Reads the record without the torn last line of a process that was killed."""
        self._record.seek(0)
        lines = self._record.read().split("\n")
        return [json.loads(line) for line in lines[:-1]]


class _Store(Protocol):
    """Keeps rows of tiles."""

    @staticmethod
    def holds(folder: Path, done: list[Any]) -> bool:
        """Whether a folder has everything that was recorded."""
        ...

    def add(self, rows: np.ndarray, top: int) -> Any:
        """Keeps a row of tiles; returns what is to be recorded."""
        ...

    def finish(self, done: list[Any]) -> Path:
        """Makes the whole file or folder and returns its path."""
        ...

    def close(self) -> None:
        """Closes files."""
        ...


class _Tiff:
    """Keeps compressed tiles one behind the other; their lengths are recorded."""

    TILES = "tiles"

    @staticmethod
    def holds(folder: Path, done: list[list[int]]) -> bool:
        tiles = folder / _Tiff.TILES
        return tiles.is_file() and tiles.stat().st_size >= sum(map(sum, done))

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        dtype: np.dtype,
        done: list[list[int]],
        palette: Sequence[Color],
    ):
        self._palette = palette
        self._whole, self._shape, self._dtype = folder / "image.tif", shape, dtype
        self._tiles = (folder / self.TILES).open("a+b")
        self._tiles.truncate(sum(map(sum, done)))

    def add(self, rows: np.ndarray, top: int) -> list[int]:
        down = (0, TILE - len(rows))
        lengths = []
        for left in range(0, self._shape[1], TILE):
            tile = rows[:, left : left + TILE]
            pads = [down, (0, TILE - tile.shape[1]), *[(0, 0)] * (tile.ndim - 2)]
            data = zlib.compress(np.pad(tile, pads).tobytes(), LEVEL)
            lengths.append(self._tiles.write(data))
        self._tiles.flush()
        os.fsync(self._tiles)  # before the record says so
        return lengths

    def finish(self, done: list[list[int]]) -> Path:
        lengths = [length for row in done for length in row]
        with tifffile.TiffWriter(self._whole, bigtiff=sum(lengths) > CLASSIC_BYTES) as tiff:
            tiff.write(
                self._compressed_tiles(lengths),
                shape=self._shape if self._shape[2:] != (1,) else self._shape[:2],
                dtype=self._dtype,
                tile=(TILE, TILE),
                compression="zlib",
                metadata=None,
                **self._color_options(),
            )
        return self._whole

    def _compressed_tiles(self, lengths: list[int]) -> Iterator[bytes]:
        self._tiles.seek(0)
        for length in lengths:
            yield self._tiles.read(length)

    def _color_options(self) -> dict[str, Any]:
        if self._dtype != np.uint8 or len(self._shape) > 2:
            return {"photometric": "minisblack"} | (
                {"planarconfig": "contig"} if len(self._shape) > 2 else {}
            )
        return tiff.palette_options(self._palette)

    def close(self) -> None:
        self._tiles.close()


class _Zarr:
    """Keeps an array whose chunks are files."""

    ARRAY = "array.zarr"

    @staticmethod
    def holds(folder: Path, done: list[int]) -> bool:
        return (folder / _Zarr.ARRAY).is_dir()

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype, done: list[int], _: object):
        try:
            import zarr
        except ImportError:
            raise ValueError("a .zarr output needs pip install 'flaxunet[zarr]'") from None
        self._whole = folder / self.ARRAY
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
