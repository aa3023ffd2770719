"""Wherever samples are kept, batches are the same bits; a shard is whole, up to date, within its limit."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pytest
import tifffile
from PIL import Image

from flaxunet.data import record
from flaxunet.labels import IGNORE
from tests.support.datasets import load_dataset
from train.config.settings import ConfigError
from train.data import cache as caching
from train.data.batches import eval_batches, train_batches
from train.data.dataset import DataError
from train.data.samples import Arrays


@pytest.fixture
def root(tmp_path):
    """Twelve pairs of gray and colour images of 8 and 16 bits and of floats, some smaller than a crop."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(12):
        height, width = rng.integers(12, 48, 2)
        mask = rng.integers(0, 4, (height, width)).astype(np.uint8)
        image, name = rng.random((height, width, 3)), f"{number:02}"
        if number % 4 == 0:
            tifffile.imwrite(tmp_path / "data" / "images" / f"{name}.tif", image[..., 0].astype(np.float32))
        elif number % 4 == 1:
            sixteen = (image * 65535).astype(np.uint16)
            tifffile.imwrite(tmp_path / "data" / "images" / f"{name}.tif", sixteen, photometric="rgb")
        else:
            eight = (image * 255).astype(np.uint8)
            Image.fromarray(eight if number % 4 == 2 else eight[..., 0]).save(
                tmp_path / "data" / "images" / f"{name}.png"
            )
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{name}.png")
    return tmp_path / "data"


@pytest.fixture
def at(tmp_path):
    return tmp_path / "cache"


def opened(root, mode, at, limit=1e9, **options):
    return load_dataset(root, cache=mode, cache_dir=str(at), cache_limit=limit / 1e9, **options)


def seen(dataset):
    """Everything that training and evaluation see."""
    stream = train_batches(dataset.train, batch_size=4, size=24, seed=1, start=0, foreground=0.5)
    batches = [*islice(stream, 6), *eval_batches(dataset.validation, batch_size=2)]
    return [(name, batch[name]) for batch in batches for name in sorted(batch)]


def shards(at):
    return [path for path in at.iterdir() if path.name != "lock"]


def refuse(*_):
    raise AssertionError("a file was read again")


@pytest.mark.parametrize("mode", ["disk", "none", "auto"])
@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_every_place_gives_the_same_bits(root, at, mode, fit, monkeypatch):
    kept = seen(opened(root, "memory", at, fit=fit))
    monkeypatch.setattr(caching, "budget", lambda: 40_000)  # auto begins in memory and moves to disk
    first = opened(root, mode, at, fit=fit)
    again = opened(root, mode, at, fit=fit, workers=1)
    for ours, theirs, kept_one in zip(seen(first), seen(again), kept, strict=True):
        np.testing.assert_array_equal(ours[1], kept_one[1], err_msg=ours[0])
        np.testing.assert_array_equal(theirs[1], kept_one[1], err_msg=ours[0])
        assert ours[1].dtype == kept_one[1].dtype
    assert not isinstance(first.train, list)
    assert at.exists() == (mode != "none")


def test_samples_that_fit_stay_in_memory(root, at, monkeypatch):
    assert isinstance(opened(root, "auto", at).train, list)
    assert not at.exists()
    monkeypatch.setattr(caching, "budget", lambda: 0)
    assert not isinstance(opened(root, "auto", at).train, list)
    assert len(shards(at)) == 1
    assert isinstance(opened(None, "disk", at).train, list)  # the brain, which is in memory anyway


def test_packed_arrays_give_back_every_bit():
    rng = np.random.default_rng(0)
    for top, kind in ((255, np.uint8), (65535, np.uint16)):
        image = np.arange(top + 1, dtype=kind).reshape(-1, 2, 1).astype(np.float32) / np.float32(top)
        packed = Arrays(image, np.zeros(image.shape[:2], np.int32)).packed()
        assert packed.image.dtype == kind
        np.testing.assert_array_equal(packed.read()[0], image)
    for image in (rng.random((4, 5, 2)), rng.normal(size=(4, 5, 2)), np.full((4, 5, 2), 1 + 1e-6)):
        packed = Arrays(image.astype(np.float32), np.zeros((4, 5), np.int32)).packed()
        np.testing.assert_array_equal(packed.read()[0], image.astype(np.float32))
    for label, kind in ((IGNORE, np.int8), (127, np.int8), (128, np.int16), (-(2**15) - 1, np.int32)):
        packed = Arrays(image, np.full((2, 2), label, np.int32)).packed()
        assert packed.label.dtype == kind
        assert packed.read()[1].dtype == np.int32
        assert (packed.read()[1] == label).all()


def test_a_shard_is_decoded_once_and_serves_every_split(root, at, monkeypatch):
    opened(root, "disk", at)
    monkeypatch.setattr(record, "read_image", refuse)
    for options in ({}, {"seed": 1}, {"fold": "2/3"}, {"classes": 5}):
        assert len(opened(root, "disk", at, **options).train) > 0
    assert len(shards(at)) == 1


def test_names_and_sizes_cost_no_reading(root, at, monkeypatch):
    dataset = opened(root, "none", at)
    monkeypatch.setattr(record, "read_image", refuse)
    assert [sample["name"] for sample in dataset.train] == sorted(s["name"] for s in dataset.train)
    assert all(min(sample.size) >= 12 for sample in dataset.train[1:])


def test_what_changes_is_prepared_anew_and_evicts_what_is_old(root, at):
    opened(root, "disk", at)
    [first] = shards(at)
    size = sum(path.stat().st_size for path in first.iterdir())
    opened(root, "disk", at, target="foreground")
    assert len(shards(at)) == 2
    os.utime(first / "index.json", (1, 1))  # not used for longest
    mask = root / "masks" / "00.png"
    with Image.open(mask) as picture:
        changed = 2 - np.minimum(np.asarray(picture), 2)
    Image.fromarray(changed).save(mask)
    os.utime(mask, ns=(0, 1))
    dataset = opened(root, "disk", at, limit=2.5 * size)
    assert len(shards(at)) == 2
    assert not first.exists()
    labels = {
        s["name"]: s["label"] for part in (dataset.train, dataset.validation, dataset.test) for s in part
    }
    np.testing.assert_array_equal(labels["00"], changed)


def test_what_is_not_ours_stays(root, at):
    for name in ("results", ".hidden"):
        (at / name).mkdir(parents=True)
        (at / name / "index.json").write_text("{}")
    os.utime(at / "results" / "index.json", (1, 1))
    opened(root, "disk", at)
    [place] = at.glob("flaxunet-*")
    size = sum(path.stat().st_size for path in place.iterdir())
    opened(root, "disk", at, target="foreground", limit=1.5 * size)
    assert not place.exists()
    assert sorted(path.name for path in at.iterdir() if path.name != "lock")[:1] == [".hidden"]
    assert (at / "results" / "index.json").read_text() == "{}"


def test_a_shard_that_is_in_use_outlives_its_eviction(root, at):
    dataset = opened(root, "disk", at)
    before, [place] = seen(dataset), shards(at)
    caching._evict(place)
    for ours, theirs in zip(seen(dataset), before, strict=True):
        np.testing.assert_array_equal(ours[1], theirs[1])
    assert shards(at) == []


def test_a_limit_that_is_too_small_is_said_and_leaves_nothing(root, at):
    with pytest.raises(ConfigError, match=r"^--cache-limit is 1e-06 GB, .*; expected more, or --cache none$"):
        opened(root, "disk", at, limit=1000)
    assert shards(at) == []


def test_bad_files_are_listed_and_leave_nothing(root, at):
    for name in ("02.png", "03.png"):
        (root / "images" / name).write_bytes(b"nothing")
    with pytest.raises(DataError) as refusal:
        opened(root, "disk", at)
    assert len(refusal.value.problems) == 2
    assert shards(at) == []


def test_no_files_are_no_shard(tmp_path, at):
    with pytest.raises(DataError, match="no such folder"):
        opened(tmp_path / "none", "disk", at)
    assert not at.exists()


def test_a_place_that_cannot_be_written_is_named(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--cache-dir: .*file: .*expected another folder, or --cache none"):
        opened(root, "disk", tmp_path / "file")


def test_a_full_disk_is_said_and_leaves_nothing(root, at, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.data.shard.sync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        opened(root, "disk", at)
    assert shards(at) == []


def test_processes_that_need_the_same_shard_decode_it_once(root, at, monkeypatch):
    read, count = record.read_image, []
    monkeypatch.setattr(record, "read_image", lambda path: (count.append(1), read(path))[1])
    with ThreadPoolExecutor(4) as pool:  # locks are between open files, so threads meet as processes do
        results = list(pool.map(lambda _: seen(opened(root, "disk", at)), range(4)))
    assert len(count) == 12
    for other in results[1:]:
        for ours, theirs in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("damage", ["cut", "index", "gone"])
def test_what_a_killed_process_or_a_bad_disk_left_is_made_anew(root, at, damage):
    good, [place] = seen(opened(root, "disk", at)), shards(at)
    (at / f".{place.name}").mkdir()
    if damage == "cut":
        part = (place / "data.bin").read_bytes()[:100]
        (place / "data.bin").unlink()  # another file: what the stream above has mapped must stay
        (place / "data.bin").write_bytes(part)
    elif damage == "index":
        (place / "index.json").write_text("{")
    else:
        (place / "data.bin").unlink()
    for ours, theirs in zip(seen(opened(root, "disk", at)), good, strict=True):
        np.testing.assert_array_equal(ours[1], theirs[1])
    assert shards(at) == [place]
