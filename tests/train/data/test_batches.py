"""Batches have the same images and crops for any number of processes, and pair every image with its label."""

from itertools import islice

import numpy as np
import pytest

from flaxunet.labels import IGNORE
from tests.support.datasets import load_dataset, pattern, write_pair
from train.data.batches import crop_corners, eval_batches, train_batches


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Seven pairs whose label can be computed from the image, of four shapes."""
    folder = tmp_path_factory.mktemp("pairs") / "train"
    for number, (height, width) in enumerate(
        [(40, 50), (33, 20), (12, 9), (32, 32), (60, 31), (35, 64), (48, 48)]
    ):
        write_pair(folder, f"n{number}", *pattern(number, height, width, classes=4))
    for other in ("val", "test"):
        write_pair(folder.parent / other, "a", *pattern(0, classes=4))
    return load_dataset(folder.parent).train


def global_batches(split, processes, start, count, **options):
    streams = [
        train_batches(
            split,
            batch_size=4,
            size=32,
            seed=3,
            start=start,
            process_index=i,
            process_count=processes,
            **options,
        )
        for i in range(processes)
    ]
    rows = [list(islice(stream, count)) for stream in streams]
    return [
        {key: np.concatenate([batch[key] for batch in parts]) for key in parts[0]}
        for parts in zip(*rows, strict=True)
    ]


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 5])
def test_global_batches_do_not_depend_on_processes_or_start(split, processes, start):
    expected = global_batches(split, 1, 0, 9)[start:]
    actual = global_batches(split, processes, start, 9 - start, threads=1)
    for ours, reference in zip(actual, expected, strict=True):
        for key in ("image", "label", "index"):
            np.testing.assert_array_equal(ours[key], reference[key])


def test_crops_keep_image_and_label_together(split):
    batches = global_batches(split, 1, 0, 14)
    for batch in batches:
        assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
            "image": ((4, 32, 32, 1), "float32"),
            "label": ((4, 32, 32), "int32"),
            "index": ((4,), "int32"),
        }
        counted = batch["label"] != IGNORE
        computed = np.rint(batch["image"][..., 0] * 255).astype(np.int32) // 64
        np.testing.assert_array_equal(computed[counted], batch["label"][counted])
        assert (batch["image"][~counted] == 0).all()
        for index, seen in zip(batch["index"], counted, strict=True):
            height, width = split[index]["label"].shape
            assert seen[: min(height, 32), : min(width, 32)].all()
            assert seen.sum() == min(height, 32) * min(width, 32)
    order = np.concatenate([batch["index"] for batch in batches])
    epochs = order.reshape(-1, len(split))  # 14 batches of 4 are 8 epochs of 7
    assert (np.sort(epochs, axis=1) == np.arange(len(split))).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1
    crops = {batch["image"][batch["index"] == 6].tobytes() for batch in batches if 6 in batch["index"]}
    assert len(crops) > 1


@pytest.fixture(scope="module")
def rare():
    """Two images of one pixel of class 2, a corner of class 1 and nothing else; one without foreground."""
    label = np.zeros((40, 50), np.int32)
    label[:4, :5], label[30, 44] = 1, 2
    labels = [label, np.flip(label, (0, 1)).copy(), np.full((40, 50), IGNORE, np.int32)]
    place = np.arange(2000, dtype=np.float32).reshape(40, 50, 1)  # tells where a crop is from
    return [{"image": place, "label": each, "name": str(i)} for i, each in enumerate(labels)]


def corners(split, foreground, count, size=9, **options):
    stream = train_batches(split, batch_size=6, size=size, seed=1, start=0, foreground=foreground, **options)
    batches = list(islice(stream, count))
    places = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches]).astype(int)
    return np.concatenate([batch["index"] for batch in batches]), np.stack(np.divmod(places, 50), axis=-1)


def drawn(split, foreground, count=1500, size=9):
    """The corners (samples, count, 2) of many crops of each sample."""
    corner, rng = crop_corners(split, size, foreground), np.random.default_rng(1)
    return np.array([[corner(place, rng) for _ in range(count)] for place in range(len(split))])


def test_crops_on_the_foreground_draw_classes_evenly_and_stay_inside(rare):
    corner = drawn(rare, 1.0)
    first = corner[0]
    on_pixel = (first == (26, 40)).all(1)  # class 2 in the middle of the crop
    assert abs(on_pixel.mean() - 0.5) < 0.04  # three standard deviations
    # Crops on class 1 are moved back into the image, whose corner it is in.
    assert (first[~on_pixel] <= (0, 0)).all()
    assert (corner >= 0).all()
    assert (corner <= (31, 41)).all()
    assert len(np.unique(corner[2], axis=0)) > 500  # anywhere, as ever


@pytest.mark.parametrize("foreground", [0.25, 0.75])
def test_crops_on_the_foreground_are_as_frequent_as_asked(rare, foreground):
    first = drawn(rare, foreground)[0]
    share = (first == (26, 40)).all(1).mean()
    by_chance = (1 - foreground) / (32 * 42)
    assert abs(share - foreground / 2 - by_chance) < 3 * np.sqrt(0.25 / len(first))


def test_crops_on_the_foreground_depend_on_seed_and_step_alone(rare):
    for ours, theirs in zip(corners(rare, 0.5, 20), corners(rare, 0.5, 20, threads=1), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    whole = global_batches(rare, 1, 0, 9, foreground=0.5)
    for processes, start in ((2, 0), (4, 5)):
        for ours, theirs in zip(
            global_batches(rare, processes, start, 9 - start, foreground=0.5), whole[start:], strict=True
        ):
            np.testing.assert_array_equal(ours["image"], theirs["image"])
            np.testing.assert_array_equal(ours["label"], theirs["label"])


def test_without_it_crops_are_what_they_were(rare):
    _, corner = corners(rare, 0.0, 1)
    # Frozen from before there was a choice: runs that began then go on with the same crops.
    assert corner.tolist() == [[9, 8], [27, 31], [19, 17], [16, 34], [5, 24], [24, 25]]


def test_train_batches_refuse_what_cannot_be_shared(split):
    with pytest.raises(ValueError, match="multiple of the processes"):
        train_batches(split, batch_size=4, size=8, seed=0, start=0, process_count=3)
    with pytest.raises(ValueError, match="0 samples"):
        train_batches([], batch_size=4, size=8, seed=0, start=0)


def test_eval_batches_show_every_image_whole(split):
    batches = list(eval_batches(split, batch_size=3))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, -1, -1]]
    for batch in batches:
        assert batch["image"].shape == (3, 64, 64, 1)  # 60 x 64, rounded up to 32
        assert (batch["image"].dtype, batch["label"].dtype) == (np.float32, np.int32)
        for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
            height, width = split[index]["label"].shape if index >= 0 else (0, 0)
            if index >= 0:
                np.testing.assert_array_equal(image[:height, :width], split[index]["image"])
                np.testing.assert_array_equal(label[:height, :width], split[index]["label"])
            assert (label == IGNORE).sum() == label.size - height * width
            assert (image[height:] == 0).all()
            assert (image[:, width:] == 0).all()
    assert next(eval_batches(split, batch_size=2, multiple=50))["label"].shape == (2, 100, 100)
    assert list(eval_batches([], batch_size=2)) == []
