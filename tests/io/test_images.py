"""Files of every accepted kind give exact numbers; every other file is refused by name, in one line."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from flaxunet.io import pixels
from flaxunet.io.images import mask_colors, read_image, read_mask, write_mask
from tests.support.refusals import refusal

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (6, 9), np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 9, 3), np.uint8)
DEEP = RANDOM.integers(0, 65536, (6, 9), np.uint16)
IDS = RANDOM.integers(0, 3, (6, 9), np.uint8)


def png(path, rows, width, *, depth, colour, size=None):
    """A PNG written by hand, for layouts that Pillow cannot write: rows of packed bytes."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    width, height = size or (width, len(rows))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    data = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def saved(path, array, **options):
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, **options)
    else:
        Image.fromarray(array).save(path, **options)
    return path


def with_palette(path, ids):
    image = Image.fromarray(ids).convert("P")
    image.frombytes(ids.tobytes())
    image.putpalette([10, 20, 30, 255, 0, 0, 0, 0, 255])
    image.save(path)
    return path


def assert_refused(read, path, *words):
    message = refusal(read, path)
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(("array", "top"), [(GRAY, 255), (COLOUR, 255), (DEEP, 65535), (GRAY > 99, 1)])
def test_image_is_divided_by_the_top_of_its_type(tmp_path, name, array, top):
    options = {"photometric": "minisblack" if array.ndim == 2 else "rgb"} if name == "a.tif" else {}
    image = read_image(saved(tmp_path / name, array, **options))
    assert image.dtype == np.float32
    expected = array.reshape(6, 9, -1).astype(np.float32) / np.float32(top)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_png_keeps_all_bits(tmp_path, channels):
    # Values of a 12-bit camera: Pillow alone would leave 16 different ones.
    array = RANDOM.integers(0, 4096, (6, 9, channels), np.uint16)
    rows = [row.astype(">u2").tobytes() for row in array]
    image = read_image(png(tmp_path / "deep.png", rows, 9, depth=16, colour={3: 2, 4: 6}[channels]))
    np.testing.assert_array_equal(image, array[..., :3].astype(np.float32) / np.float32(65535))


def test_jpeg_image(tmp_path):
    smooth = np.broadcast_to(np.linspace(0, 255, 32, dtype=np.uint8)[:, None], (32, 24))
    image = read_image(saved(tmp_path / "a.jpg", np.ascontiguousarray(smooth), quality=95))
    assert image.shape == (32, 24, 1)
    assert abs(image[..., 0] - smooth / 255).max() < 0.02  # JPEG at quality 95


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_alpha_is_dropped(tmp_path, name):
    alpha = np.dstack([COLOUR, np.zeros((6, 9), np.uint8)])
    options = {"photometric": "rgb"} if name == "a.tif" else {}
    image = read_image(saved(tmp_path / name, alpha, **options))
    np.testing.assert_array_equal(image, COLOUR / np.float32(255))
    gray = np.dstack([IDS, np.full_like(IDS, 255)])
    options = {"photometric": "minisblack", "extrasamples": ["unassalpha"]} if name == "a.tif" else {}
    np.testing.assert_array_equal(read_mask(saved(tmp_path / name, gray, **options)), IDS)


@pytest.mark.parametrize("name", ["p.png", "p.tif"])
def test_palette_gives_ids_to_a_mask_and_colours_to_an_image(tmp_path, name):
    path = with_palette(tmp_path / name, IDS)
    np.testing.assert_array_equal(read_mask(path), IDS)
    colours = np.array([[10, 20, 30], [255, 0, 0], [0, 0, 255]], np.float32) / 255
    np.testing.assert_allclose(read_image(path), colours[IDS], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.float32])
def test_mask_keeps_numbers(tmp_path, dtype):
    ids = IDS.astype(dtype) * (100 if dtype == np.uint8 else 300)
    mask = read_mask(saved(tmp_path / "m.tif", ids))
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask, ids)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_mask_of_few_bits_is_not_stretched(tmp_path, depth):
    ids = RANDOM.integers(0, 2**depth, (6, 8), np.uint8)
    bits = np.unpackbits(ids[..., None], axis=-1)[..., -depth:].reshape(6, -1)
    path = png(
        tmp_path / "m.png", [row.tobytes() for row in np.packbits(bits, axis=1)], 8, depth=depth, colour=0
    )
    np.testing.assert_array_equal(read_mask(path), ids)
    np.testing.assert_allclose(read_image(path)[..., 0], ids / (2**depth - 1), atol=1e-6)


def test_mask_with_equal_channels_is_one_channel(tmp_path):
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", np.dstack([GRAY] * 3))), GRAY)
    assert_refused(read_mask, saved(tmp_path / "rgb.png", COLOUR), "3 different channels")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_image_and_mask_alike(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GRAY).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], expected / np.float32(255))
    tag = [(0x0112, "H", 1, orientation, True)]
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "a.tif", GRAY, extratags=tag)), expected)
    Image.fromarray(GRAY).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape[:2] == expected.shape


def test_tiff_channels_in_any_place(tmp_path):
    five = RANDOM.integers(0, 256, (6, 9, 5), np.uint8)
    first = np.moveaxis(five, -1, 0)
    files = [
        saved(tmp_path / "last.tif", five, photometric="minisblack", planarconfig="contig"),
        saved(tmp_path / "planar.tif", first, photometric="minisblack", planarconfig="separate"),
        saved(tmp_path / "imagej.tif", first, imagej=True, metadata={"axes": "CYX"}),
        saved(tmp_path / "ome.tif", first, ome=True, metadata={"axes": "CYX"}),
        saved(tmp_path / "tile.tif", five, photometric="minisblack", planarconfig="contig", tile=(16, 16)),
        saved(tmp_path / "one.tif", first[None], imagej=True, metadata={"axes": "TCYX"}),
    ]
    for file in files:
        np.testing.assert_array_equal(read_image(file), five / np.float32(255), err_msg=file.name)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "group4", "jpeg"])
def test_compressed_tiff(tmp_path, compression):
    """Written by libtiff, decoded by imagecodecs; JPEG is smooth and in YCbCr."""
    pytest.importorskip("imagecodecs", reason="needs the medical extra")
    smooth = np.linspace(0, 255, 32 * 24 * 3).reshape(32, 24, 3).astype(np.uint8)
    array = {"group4": GRAY > 99, "jpeg": smooth}.get(compression, COLOUR)
    path = tmp_path / "a.tif"
    Image.fromarray(array).save(path, compression=compression)
    image = read_image(path).squeeze()
    if compression == "jpeg":
        assert abs(image - smooth / 255).max() < 0.05
        assert_refused(read_mask, path, "JPEG compression, which blurs labels")
    else:
        np.testing.assert_array_equal(image, array / np.float32(1 if array.dtype == bool else 255))


def test_without_imagecodecs_a_line_says_what_to_install(tmp_path, monkeypatch):
    Image.fromarray(GRAY).save(tmp_path / "a.tif", compression="tiff_lzw")
    monkeypatch.setitem(vars(tifffile.TIFF), "DECOMPRESSORS", {})
    assert_refused(
        read_image, tmp_path / "a.tif", "LZW compression, which needs pip install 'flaxunet[medical]'"
    )


def test_white_is_zero_is_inverted_for_images_only(tmp_path):
    path = saved(tmp_path / "w.tif", GRAY, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path)[..., 0], (255 - GRAY) / np.float32(255))
    np.testing.assert_array_equal(read_mask(path), GRAY)


def test_floats_are_kept_whatever_their_range(tmp_path):
    unit = RANDOM.random((6, 9), np.float32)
    for number, array in enumerate(
        (unit, 400 * unit - 200, unit.astype(np.float64), unit.astype(np.float16))
    ):
        image = read_image(saved(tmp_path / f"{number}.tif", array))
        np.testing.assert_array_equal(image[..., 0], array.astype(np.float32))
    assert_refused(
        read_image,
        saved(tmp_path / "d.tif", 1e300 * (unit.astype(np.float64) + 1)),
        "beyond the range of float32",
    )


def test_negative_integers_stay_negative(tmp_path):
    array = DEEP.astype(np.int32) - 9999
    image = read_image(saved(tmp_path / "s.tif", array))
    np.testing.assert_array_equal(image[..., 0], array.astype(np.float32) / np.float32(2**31 - 1))


def test_an_indexed_mask_tells_its_colours(tmp_path):
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3) % 3
    write_mask(tmp_path / "a.png", labels, [(250, 10, 20), (0, 90, 240)])
    assert mask_colors(tmp_path / "a.png", 3) == ((250, 10, 20), (0, 90, 240))
    assert mask_colors(tmp_path / "a.png", 2) == ((250, 10, 20),)
    ramp = Image.fromarray(labels).convert("P")
    ramp.putpalette(np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
    ramp.save(tmp_path / "ramp.png")
    ramp.putpalette([0, 0, 0, 255, 255, 255])
    ramp.save(tmp_path / "short.png")
    Image.fromarray(labels).save(tmp_path / "gray.png")
    (tmp_path / "none.png").write_bytes(b"none")
    for name in ("ramp", "short", "gray", "none", "absent"):
        assert mask_colors(tmp_path / f"{name}.png", 3) is None


def test_jpeg_masks_are_refused_by_content(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "m.png", format="JPEG")
    assert_refused(read_mask, tmp_path / "m.png", "JPEG")
    assert read_image(tmp_path / "m.png").shape == (6, 9, 1)


def test_bombs_are_refused_from_the_header(tmp_path, monkeypatch):
    for side in (15_000, 60_000):  # below and above the size where Pillow itself raises
        path = png(tmp_path / f"{side}.png", [b"\0"], 1, depth=8, colour=2, size=(side, side))
        assert_refused(read_image, path, f"announces {side} x {side} x 3 values")
    jpeg, tiff = saved(tmp_path / "a.jpg", COLOUR), saved(tmp_path / "a.tif", COLOUR, photometric="rgb")
    monkeypatch.setattr(pixels, "MAX_VALUES", 6 * 9 * 3 - 1)
    for path in (jpeg, tiff):
        assert_refused(read_image, path, "6 x 9 x 3")


def test_axes_of_a_stack_are_named(tmp_path):
    assert_refused(read_image, saved(tmp_path / "stack.tif", np.stack([GRAY, GRAY])), "axes", "(2, 6, 9)")


def test_broken_metadata_does_not_warn(tmp_path):
    Image.fromarray(COLOUR).save(
        tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x1a\1\5\0\1\0\0\0\xff\xff\0\0"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.jpg").shape == (6, 9, 3)
