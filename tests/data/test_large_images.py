"""A large TIFF file becomes patches that cover it, of which each is read without the rest."""

import numpy as np
import pytest
import tifffile

from flaxunet import preprocessing
from flaxunet.data import DataError, Record, large_images
from flaxunet.data.large_images import read
from flaxunet.io.images import ImageError, read_image, read_mask
from tests.support.datasets import load_dataset
from tests.support.large_tiffs import arrays, lower_limits, write_tiffs

STORED = {
    "tiles": {"tile": (32, 48), "compression": "zlib"},
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
    "plain": {},
    "plain tiles": {"tile": (16, 16)},
}


@pytest.fixture
def small(monkeypatch):
    lower_limits(monkeypatch)


def patches(image, mask):
    """By name, how to read each patch."""
    records = large_images.patches(Record("a", image, mask, lambda: None))
    assert all(record.is_patch for record in records)
    assert {record.group for record in records} == {"a"}
    return {record.name: record.read for record in records}


def is_whole(image, mask):
    record = Record("a", image, mask, lambda: None)
    return large_images.patches(record) == [record]


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(np.uint8, (150, 200, 3)), (np.uint16, (131, 90)), (np.float32, (150, 70)), (np.uint8, (150, 200, 4))],
)
def test_patches_are_the_image_that_is_read_whole(tmp_path, small, stored, dtype, shape):
    image, mask = write_tiffs(tmp_path, "a", *arrays(dtype, shape), **STORED[stored])
    whole, truth = read_image(image), read_mask(mask)
    parts = patches(image, mask)
    assert len(parts) == -(-shape[0] // 64) * -(-shape[1] // 64)
    covered = np.zeros(truth.shape, int)
    for name, patch in parts.items():
        top, left = map(int, name[3:-1].split(", "))
        window = np.s_[top : top + 64, left : left + 64]
        for ours, theirs in zip(patch(), (whole, truth), strict=True):
            np.testing.assert_array_equal(ours, theirs[window])
            assert ours.dtype == theirs.dtype
        covered[window] += 1
    assert (covered == 1).all()


def test_patches_of_jpeg_tiles_are_rgb(tmp_path, small):
    image, mask = write_tiffs(tmp_path, "a", *arrays(), tile=(32, 32), compression="jpeg")
    tifffile.imwrite(mask, arrays()[1], tile=(32, 32))
    whole = read_image(image)
    for name, patch in patches(image, mask).items():
        top, left = map(int, name[3:-1].split(", "))
        np.testing.assert_array_equal(patch()[0], whole[top : top + 64, left : left + 64])


@pytest.mark.parametrize("name", ["dtype", "percentile", "zscore"])
def test_intensities_of_patches_are_those_of_the_image(tmp_path, small, name):
    image, mask = write_tiffs(tmp_path, "a", *arrays(np.uint16), tile=(32, 32))
    expected = preprocessing.normalize_intensity(read_image(image), name)
    for record in large_images.patches(Record("a", image, mask, lambda: None)):
        top, left = map(int, record.name[3:-1].split(", "))
        patch = record.normalize(record.read()[0], name)
        assert np.abs(patch - expected[top : top + 64, left : left + 64]).max() <= 1e-6
    for split in ("train", "val", "test"):
        write_tiffs(tmp_path / "data" / split, "a", *arrays(np.uint16), tile=(32, 32))
    loaded = load_dataset(tmp_path / "data", size=64, intensity=name)
    assert np.abs(loaded.train[0]["image"] - expected[:64, :64]).max() <= 1e-6


def test_only_the_tiles_of_a_patch_are_read(tmp_path, small):
    image, mask = write_tiffs(tmp_path, "a", *arrays(), tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(image) as tiff:
        last = tiff.pages.first.dataoffsets[-1]
    content = bytearray(image.read_bytes())
    content[last : last + 8] = b"\xff" * 8
    image.write_bytes(content)
    read(image, mask, np.s_[0:64, 0:64])
    with pytest.raises(DataError, match=r"a\.tif: .*expected"):
        read(image, mask, np.s_[128:150, 128:200])


def test_small_images_and_other_formats_are_read_whole(tmp_path, monkeypatch):
    image, mask = write_tiffs(tmp_path, "a", *arrays())
    monkeypatch.setattr(large_images, "SMALL", 0)
    assert is_whole(image, mask)
    monkeypatch.setattr(large_images, "LARGE", 10)
    monkeypatch.setattr(large_images, "SMALL", 2**20)
    assert is_whole(image, mask)
    assert is_whole(image.with_suffix(".png"), mask)
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0")
    monkeypatch.setattr(large_images, "SMALL", 0)
    assert is_whole(broken, mask)


def test_what_does_not_fit_is_named(tmp_path, small):
    image, mask = write_tiffs(tmp_path, "a", *arrays())
    _, other = write_tiffs(tmp_path, "b", *arrays(shape=(150, 199, 3)))
    with pytest.raises(ImageError, match=r"b\.tif: 150 x 199 pixels; expected 150 x 200"):
        patches(image, other)
    with pytest.raises(ImageError, match="no TIFF of one channel"):
        patches(image, image)
    image, mask = write_tiffs(tmp_path, "d", arrays()[0], arrays()[1], tile=(32, 32), compression="jpeg")
    with pytest.raises(DataError, match=r"masks/d\.tif: JPEG compression, which blurs labels"):
        read(image, mask, np.s_[0:64, 0:64])
    picture = arrays(np.float32, (150, 200))[0]
    picture[140, 190] = np.nan
    image, mask = write_tiffs(tmp_path, "c", picture, arrays()[1])
    read(image, mask, np.s_[0:64, 0:64])
    with pytest.raises(DataError, match=r"c\.tif: 1 NaN or infinite pixels"):
        read(image, mask, np.s_[128:150, 128:200])
    turned = tmp_path / "turned.tif"
    tifffile.imwrite(turned, arrays()[0], photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    with pytest.raises(DataError, match="turned by its orientation"):
        read(turned, mask, np.s_[0:64, 0:64])


@pytest.mark.parametrize("mode", ["memory", "disk", "none"])
def test_a_dataset_has_patches_of_large_images_in_one_split_each(tmp_path, small, mode):
    for split, names in {"train": "abc", "val": "d", "test": "e"}.items():
        for name in names:
            write_tiffs(tmp_path / "data" / split, name, *arrays(), tile=(32, 32), compression="zlib")
    dataset = load_dataset(tmp_path / "data", cache=mode, cache_dir=str(tmp_path / "cache"))
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [36, 12, 12]
    pixels = sum(sample["label"].size for sample in dataset.validation)
    assert pixels == 150 * 200
    assert dataset.test[1]["name"] == "e [000, 064]"
    with pytest.raises(DataError, match="too large to be resized; expected with --fit crop"):
        load_dataset(tmp_path / "data", fit="resize")
