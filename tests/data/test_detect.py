"""Every layout is detected, read to the same pixels, and can be trained on."""

import dataclasses
import pickle
import re
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from flaxunet.data import LAYOUTS, find
from tests.support import written
from tests.support.datasets import load_dataset
from tests.support.listings import copy_of, list_dataset, problems_of
from tests.support.tiny import make_program
from train.data.batches import train_batches
from train.data.dataset import DataError


def test_every_layout_is_described():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "layouts.md").read_text()
    headings = [line for line in page.splitlines() if line.startswith("## `")]
    assert headings == [f"## `{name}`: {layout.title}" for name, layout in LAYOUTS.items()]


@pytest.mark.parametrize("layout", [name for name in written.WRITERS if name != "instances"])
def test_a_layout_is_found_and_says_what_it_took(roots, layout):
    listing = list_dataset(roots[layout])
    assert listing.layout == layout
    assert len(listing.records) == written.COUNT
    assert listing.interpretation
    assert all(str(roots[layout]) in line for line in listing.interpretation)


@pytest.mark.parametrize("layout", list(written.WRITERS))
def test_what_is_read_is_what_was_written(roots, layout):
    listing = list_dataset(roots[layout], layout=layout)
    # Their numbers are the last letters of the names, but a slice's is that within its volume.
    key = (lambda record: record.name) if layout == "nifti" else (lambda record: record.name[-1])
    for number, record in enumerate(sorted(listing.records, key=key)):
        image, mask = record.read()
        expected, objects = written.truth(number)
        if layout == "nifti":  # scaled by the volume's own range
            pair = np.stack([written.truth(number // 2 * 2 + i)[0] for i in (0, 1)]).astype(np.float32)
            expected = (expected - pair.min()) / (pair.max() - pair.min())
        else:
            expected = expected / np.float32(255)
        np.testing.assert_allclose(image[..., 0], expected, atol=1e-6)
        assert (image.dtype, mask.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(mask, objects if listing.instances else objects > 0)


def test_what_looks_like_two_layouts_has_to_be_named(roots, tmp_path):
    root = copy_of(roots, "folders", tmp_path)
    written.coco(root, "annotations/all.json")
    [line] = problems_of(root)
    assert line == (
        f"{root}: looks like folders (images/ with masks/) and coco (annotations/all.json); "
        "expected one of them to be named with --layout"
    )
    assert list_dataset(root, layout="coco").layout == "coco"
    with pytest.raises(ValueError, match="unknown layout 'voc'; expected one of folders, splits"):
        find(root, layout="voc")


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("coco", ("background", "square")),
        ("yolo", ("background", "square")),
        ("nifti", ("background", "square")),
    ],
)
def test_class_names_are_those_of_the_layout(roots, layout, names):
    assert list_dataset(roots[layout]).class_names == names
    assert load_dataset(roots[layout]).class_names == names


def test_a_group_is_found_in_names(roots):
    listing = list_dataset(roots["folders"], group=r"n(\d)")
    assert [record.group for record in listing.records] == [str(number) for number in range(10)]
    [*lines] = problems_of(roots["folders"], group=r"n([0-7])")
    assert [line.split("/")[-1] for line in lines] == [
        f"n{number}.png: --group 'n([0-7])' matches nothing in its name" for number in (8, 9)
    ]
    for wrong in ("n.", "n(", "patient"):
        message = f"--group is {wrong!r}; expected a column of the CSV, or a regular expression"
        with pytest.raises(DataError, match=re.escape(message)):
            find(roots["folders"], group=wrong)


def test_records_travel_to_other_processes(roots):
    for layout in written.WRITERS:
        record = list_dataset(roots[layout], layout=layout).records[0]
        again = pickle.loads(pickle.dumps(record))
        assert dataclasses.replace(again, read=record.read) == record
        np.testing.assert_array_equal(again.read()[1], record.read()[1])


@pytest.fixture(scope="module")
def step():
    """One compiled program for all layouts."""
    # The smallest one: neither moments nor an average have to be compiled.
    options = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 0.1, "ema": 0.0}
    program = make_program(augment="none", **options)
    state = jax.tree.map(np.asarray, program.init())
    return jax.jit(program.train_step()), lambda: jax.tree.map(np.array, state)


@pytest.mark.parametrize("layout", list(written.WRITERS))
def test_a_layout_trains_twenty_steps(roots, layout, step):
    train_step, first = step
    target = "foreground" if layout in ("dsb2018", "instances") else "classes"
    data = load_dataset(roots[layout], target=target, layout=layout)
    assert (data.classes, data.channels) == (1, 1)
    assert data.class_names[0] == "background"
    assert {origin.split for origin in data.origins} == {"train", "validation", "test"}
    state, losses = first(), []
    for batch in islice(train_batches(data.train, batch_size=8, size=16, seed=0, start=0, threads=1), 20):
        state, out = train_step(state, batch)
        losses.append(float(out["loss"]))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
