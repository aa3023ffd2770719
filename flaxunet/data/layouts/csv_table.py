"""Lists the rows of a CSV file as pairs of images and masks.

Columns are image, mask and, optionally, split and group; others are skipped. Paths are relative to the file.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from flaxunet.data.record import DataError, Listing, Options, Record, of_files
from flaxunet.data.split import SPLIT_NAMES, parse_split


def recognize(root: Path) -> str | None:
    """Names the CSV files with the columns of this layout; None if there are none."""
    return ", ".join(path.name for path in _tables(root)) or None


def find(root: Path, options: Options) -> Listing:
    """Lists a sample for each row, named by its image's path without suffix."""
    tables, listing = list(_tables(root)), Listing(root, "csv")
    if len(tables) != 1:
        names = " and ".join(path.name for path in tables) or "no such CSV file"
        expected = "expected one CSV file with columns image, mask and, optionally, split and group"
        listing.problems.append(f"{root}: {names}; {expected}")
        return listing
    try:
        header, rows = _rows(path := tables[0])
    except DataError as error:
        listing.problems += error.problems
        return listing
    column = "group" if options.group is None else options.group
    has_splits = any(row.get("split") for _, row in rows)
    records: dict[str, Record] = {}
    for line, row in rows:
        image, mask = (path.parent / row.get(name, "") for name in ("image", "mask"))
        split = parse_split(row.get("split", ""))
        mistakes = [
            f"{name} {row.get(name) or 'is empty'}; expected the path of a file, relative to the table"
            for name, file in (("image", image), ("mask", mask))
            if not file.is_file()
        ]
        if has_splits and split is None:
            value = row.get("split") or "is empty"
            mistakes.append(f"split {value}; expected one of {', '.join(SPLIT_NAMES)}")
        name = str(Path(row.get("image", "")).with_suffix("")) if row.get("image") else ""
        if name in records:
            mistakes.append(f"image {row['image']} again; expected one row for an image")
        listing.problems += [f"{path}, line {line}: {mistake}" for mistake in mistakes]
        if not mistakes:
            records[name] = of_files(name, image, mask, split, row.get(column) or None)
    if not rows:
        listing.problems.append(f"{path}: no rows; expected a row for each image")
    used = " and ".join(name for name in ("split", column) if name in header)
    listing.interpretation.append(f"{path}: {len(records)} rows as pairs{used and f', with {used}'}")
    listing.records += records.values()
    return listing


def _tables(root: Path) -> Iterator[Path]:
    """CSV files with the necessary columns: the file itself, or those of the folder."""
    for path in [root] if root.is_file() else sorted(root.glob("*.csv")):
        if path.suffix.lower() == ".csv" and {"image", "mask"} <= set(_rows(path, header_only=True)[0]):
            yield path


def _rows(path: Path, *, header_only: bool = False) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header in small letters, and each row that is not empty with its line."""
    # A table of another encoding still has its ASCII names of columns and files.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline()
        delimiter = max(",;\t", key=first.count)
        header = [name.strip().lower() for name in first.replace('"', "").split(delimiter)]
        if header_only:
            return header, []
        reader = csv.reader(file, delimiter=delimiter)
        try:
            rows = [(reader.line_num + 1, dict(zip(header, map(str.strip, r), strict=False))) for r in reader]
        except csv.Error as error:
            raise DataError([f"{path}, line {reader.line_num + 1}: {error}; expected a CSV file"]) from error
    return header, [(line, row) for line, row in rows if any(row.values())]
