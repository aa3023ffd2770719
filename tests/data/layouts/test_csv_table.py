"""Rows of a table are pairs; mistakes are named by line."""

import shutil

from tests.support import written
from tests.support.listings import copy_of, list_dataset, problems_of


def test_a_column_of_the_table_is_the_group(tmp_path):
    written.csv(tmp_path, group="patient")
    assert {record.group for record in list_dataset(tmp_path).records} == {None}
    named = {record.group for record in list_dataset(tmp_path, group="patient").records}
    assert named == {"p0", "p1", "p2", "p3", "p4"}


def test_a_table_is_refused_line_by_line(roots, tmp_path):
    root = copy_of(roots, "csv", tmp_path)
    table = root / "samples.csv"
    rows = table.read_text().splitlines()
    head, first, second = "image;mask;split", *rows[1:3]
    mask, image, _ = first.split(",")
    other_mask, other_image, _ = second.split(",")
    lines = [
        head,
        f"{image};{mask};train",
        f"{image};{mask};test",
        "",
        "gone.png;;Val",
        f"{other_image};{other_mask};dev",
    ]
    table.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    assert [line.removeprefix(f"{table}, ") for line in problems_of(root)] == [
        f"line 3: image {image} again; expected one row for an image",
        "line 5: image gone.png; expected the path of a file, relative to the table",
        "line 5: mask is empty; expected the path of a file, relative to the table",
        "line 6: split dev; expected one of train, val, validation, valid, test",
    ]
    assert problems_of(table) == problems_of(root)
    shutil.copy(table, root / "more.csv")
    assert "more.csv and samples.csv; expected one CSV file" in problems_of(root)[0]
