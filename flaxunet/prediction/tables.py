"""Keeps rows of measures in a CSV file that is whole after each image."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from flaxunet.files import write_whole


class Table:
    """A CSV file whose first column names an image, and that is whole after each addition.

    Args:
      path, columns: of the file.
      keep: whether the rows that an older file has of an image stay; a line that was cut off does not.
    Attributes:
      images: those whose rows were kept.
    Raises: OSError if it cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: Callable[[str], bool]):
        self._path = path
        text = path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else ""
        heads, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1] or "\n"))
        rows = rows if heads == list(columns) else []
        kept = [row for row in rows if len(row) == len(columns) and keep(row[0])]
        self.images = {row[0] for row in kept}
        write_whole(path, _to_csv([columns, *kept]))

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Appends rows, all or none of them. Raises OSError."""
        with self._path.open("rb+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            left = memoryview(_to_csv(rows))
            try:
                while left:  # the first of two writes to a full disk may take a part
                    left = left[file.write(left) :]
            except OSError as error:
                file.truncate(end)
                raise OSError(error.errno, error.strerror, str(self._path)) from None


def _to_csv(rows: Iterable[Sequence[Any]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode("utf-8", "surrogateescape")  # names of files may be any bytes
