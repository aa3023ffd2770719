"""Sixty and more files that are no image or no mask: each is answered by one line that says what it is."""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import tifffile

from flaxunet.io import volumes
from flaxunet.io.images import ImageError, read_image, read_mask
from tests.support.refusals import refusal

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
UNIT = np.float32(NOISE / 255)
SHORT = zlib.compress(b"\0" * 10)


def chunk(name, body, damage=0):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ damage)


def png(width=4, height=4, depth=8, colour=0, *, data=None, interlace=0, damage=0, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    body = zlib.compress(b"\0" * (height * (1 + width))) if data is None else data
    chunks = chunk(b"IHDR", header, damage) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg(mode="L", replace=None, **options):
    def write(path):
        array = NOISE if mode == "L" else COLOUR
        PIL.Image.fromarray(array).convert(mode).save(path, format="JPEG", **options)
        if replace:
            data = path.read_bytes()
            place = data.index(b"\xff\xc0") + 5  # height and width in the frame's header
            path.write_bytes(data[:place] + replace + data[place + len(replace) :])

    return write


def tiff(array=NOISE, tag=None, value=None, **options):
    """A TIFF; of one tag the value is then another."""

    def write(path):
        tifffile.imwrite(path, array, **{"metadata": None, **options})
        if tag is not None:
            with tifffile.TiffFile(path, mode="r+") as file:
                file.pages[0].tags[tag].overwrite(value)

    return write


def several_tiffs(path):
    with tifffile.TiffWriter(path) as file:
        file.write(NOISE)
        file.write(COLOUR[:9], photometric="rgb")


def animation(path):
    frames = [PIL.Image.fromarray(NOISE), PIL.Image.fromarray(255 - NOISE)]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:])


def nifti(array=NOISE[..., None], change=None, *, packed=False):
    """A NIfTI file; from a place on, its bytes are then others."""

    def write(path):
        image = nibabel.Nifti1Image(array, np.eye(4))
        data = bytearray(image.to_bytes())
        for place, other in change or ():
            data[place : place + len(other)] = other
        path.write_bytes(gzip.compress(data) if packed else data)

    return write


def cut(write, part):
    def write_part(path):
        write(path)
        os.truncate(path, int(path.stat().st_size * part))

    return write_part


def damaged(write, place, other):
    """Bytes from a part of the file on are others."""

    def write_damaged(path):
        write(path)
        data = bytearray(path.read_bytes())
        start = int(len(data) * place)
        data[start : start + len(other)] = other
        path.write_bytes(data)

    return write_damaged


def shapes(*sizes):
    return [(40, struct.pack("<8h", len(sizes), *sizes, *[1] * (7 - len(sizes))))]


@dataclass(frozen=True)
class Hostile:
    """A file, how it is read, and words of the answer."""

    write: Callable[[Path], object] | bytes
    words: str
    read: Callable = read_image
    page: int | None = None


DAMAGED = "damaged file: "
NAN, HUGE = UNIT.copy(), UNIT * np.float64(1e300) + 1e300
NAN[3, 5] = np.nan
INFINITE = NAN.copy()
INFINITE[4, 1] = np.inf
MANY = np.broadcast_to(NOISE, (3, 64, 64))
HOSTILE = {
    # Any file
    "empty": Hostile(b"", "an empty file"),
    "empty mask": Hostile(b"", "an empty file", read_mask),
    "text": Hostile(
        b"hello, I am no picture", "unrecognised format; expected PNG, JPEG, DICOM, TIFF or NIfTI"
    ),
    "zeros": Hostile(bytes(9999), "unrecognised format; expected PNG, JPEG, DICOM, TIFF or NIfTI"),
    "gif": Hostile(b"GIF89a" + bytes(99), "unrecognised format; expected PNG, JPEG, DICOM, TIFF or NIfTI"),
    "pickle": Hostile(b"\x80\x04\x95", "unrecognised format; expected PNG, JPEG, DICOM, TIFF or NIfTI"),
    "missing": Hostile(lambda path: None, "No such file"),
    "folder": Hostile(lambda path: path.mkdir(), "Is a directory"),
    "pipe": Hostile(os.mkfifo, "not a regular file"),
    "dangling link": Hostile(lambda path: path.symlink_to("nowhere"), "No such file"),
    "link to itself": Hostile(lambda path: path.symlink_to(path), "symbolic links"),
    # PNG
    "png signature": Hostile(png()[:8], DAMAGED),
    "png cut early": Hostile(
        cut(lambda path: PIL.Image.fromarray(NOISE).save(path, "PNG"), 0.3), "truncated"
    ),
    "png cut late": Hostile(
        cut(lambda path: PIL.Image.fromarray(NOISE).save(path, "PNG"), 0.95), "truncated"
    ),
    "png bomb": Hostile(png(15_000, 15_000, data=SHORT, colour=2), "announces 15000 x 15000 x 3"),
    "png greater bomb": Hostile(png(60_000, 60_000, data=SHORT), "announces 60000 x 60000 x 1"),
    "png without rows": Hostile(png(4, 0, data=SHORT), DAMAGED),
    "png of short rows": Hostile(png(9, 9, data=SHORT), "rows are missing at its end"),
    "png mask of short rows": Hostile(png(9, 9, data=SHORT), "rows are missing at its end", read_mask),
    "png of other data": Hostile(png(data=b"nonsense"), DAMAGED),
    "png checksum": Hostile(png(damage=1), "checksum"),
    "png colour type": Hostile(png(colour=9), DAMAGED),
    "png text bomb": Hostile(
        png(extra=chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**21)))), "Decompressed data too large"
    ),
    "png animation": Hostile(animation, "an animation"),
    "png of deep gray and alpha": Hostile(
        png(depth=16, colour=4, data=zlib.compress(bytes(68))), "16-bit gray"
    ),
    "png page": Hostile(png(), "page 1 of a file with 1 image", page=1),
    "png negative page": Hostile(png(), "page -1 of a file with 1 image", page=-1),
    "png mask in colours": Hostile(
        lambda path: PIL.Image.fromarray(COLOUR).save(path, "PNG"), "3 different channels", read_mask
    ),
    # JPEG
    "jpeg signature": Hostile(b"\xff\xd8\xff", DAMAGED),
    "jpeg of nothing": Hostile(b"\xff\xd8\xff\xd9" + bytes(99), DAMAGED),
    "jpeg cut early": Hostile(cut(jpeg(), 0.3), "truncated"),
    "jpeg cut late": Hostile(cut(jpeg(), 0.95), "truncated"),
    "jpeg cut in its scans": Hostile(cut(jpeg(progressive=True), 0.6), "truncated"),
    "jpeg bomb": Hostile(jpeg(replace=struct.pack(">HH", 65500, 65500)), "announces 65500 x 65500"),
    "jpeg cmyk": Hostile(jpeg("CMYK"), "CMYK colours; expected gray or RGB"),
    "jpeg mask": Hostile(jpeg(), "a JPEG file, whose compression blurs labels", read_mask),
    # TIFF
    "tiff signature": Hostile(b"II*\0", DAMAGED),
    "tiff without pages": Hostile(b"II*\0" + bytes(8), "no images"),
    "tiff that begins nowhere": Hostile(b"MM\0*\xff\xff\xff\xf0", "no images"),
    "bigtiff that begins nowhere": Hostile(b"II+\0\x08\0\0\0" + b"\xff" * 7 + b"\x7f", "no images"),
    "tiff cut early": Hostile(cut(tiff(), 0.3), DAMAGED),
    "tiff cut late": Hostile(cut(tiff(), 0.9), DAMAGED),
    "tiff tiles cut": Hostile(cut(tiff(tile=(16, 16), compression="zlib"), 0.7), DAMAGED),
    "bigtiff cut": Hostile(cut(tiff(bigtiff=True), 0.5), DAMAGED),
    "tiff tiles damaged": Hostile(
        damaged(tiff(tile=(16, 16), compression="zlib"), 0.5, b"\xff" * 99), DAMAGED
    ),
    "tiff bomb": Hostile(tiff(tag="ImageWidth", value=2**31 - 1), "expected 1 to 268435456"),
    "tiff tile bomb": Hostile(tiff(tile=(16, 16), tag="TileWidth", value=2**30), "expected 1 to 268435456"),
    "tiff without width": Hostile(tiff(tag="ImageWidth", value=0), "announces 64 x 0"),
    "tiff unknown compression": Hostile(tiff(tag="Compression", value=60_000), "60000"),
    "tiff cmyk": Hostile(tiff(np.dstack([COLOUR, NOISE]), photometric="separated"), "SEPARATED colours"),
    "tiff lab": Hostile(tiff(COLOUR, photometric="cielab"), "CIELAB colours"),
    "tiff complex": Hostile(tiff(UNIT.astype(np.complex64)), "pixels of type complex64"),
    "tiff bits in between": Hostile(
        tiff(COLOUR > 9, photometric="rgb"), "1-bit pixels with interleaved channels"
    ),
    "tiff stack": Hostile(tiff(MANY, photometric="minisblack"), "3 images in one file; expected one"),
    "tiff of several sizes": Hostile(several_tiffs, "2 images in one file; expected one"),
    "tiff page": Hostile(tiff(MANY, photometric="minisblack"), "page 3 of a file with 3 images", page=3),
    "tiff nan": Hostile(tiff(NAN), "1 NaN or infinite pixels, first at row 3, column 5"),
    "tiff infinite": Hostile(tiff(INFINITE), "2 NaN or infinite pixels, first at row 3, column 5"),
    "tiff nan mask": Hostile(tiff(NAN), "1 NaN or infinite pixels", read_mask),
    "tiff beyond float32": Hostile(tiff(HUGE), "beyond the range of float32"),
    "tiff mask of fractions": Hostile(tiff(UNIT), "labels that are fractions", read_mask),
    "tiff mask of great labels": Hostile(tiff(NOISE.astype(np.uint32) + 2**31), "labels between", read_mask),
    "tiff mask in colours": Hostile(tiff(COLOUR, photometric="rgb"), "3 different channels", read_mask),
    "tiff mask as jpeg": Hostile(
        tiff(tag="Compression", value=7), "JPEG compression, which blurs", read_mask
    ),
    # NIfTI
    "nifti slices": Hostile(nifti(NOISE.reshape(16, 16, 16)), "16 images in one file; expected one"),
    "nifti page": Hostile(nifti(NOISE.reshape(16, 16, 16)), "page 16 of a file with 16 images", page=16),
    "nifti cut": Hostile(cut(nifti(), 0.5), DAMAGED),
    "nifti cut and packed": Hostile(cut(nifti(packed=True), 0.5), DAMAGED),
    "nifti header cut": Hostile(cut(nifti(), 0.05), "not a NIfTI file"),
    "gzip of text": Hostile(gzip.compress(b"hello"), "not a NIfTI file"),
    "gzip of nothing": Hostile(gzip.compress(b""), "not a NIfTI file"),
    "gzip of nonsense": Hostile(b"\x1f\x8b" + b"nonsense" * 9, DAMAGED),
    "gzip bomb": Hostile(gzip.compress(bytes(2**24)), "not a NIfTI file"),
    "nifti bomb": Hostile(nifti(change=shapes(32000, 32000, 32000)), "expected 1 to 268435456"),
    "nifti of no size": Hostile(nifti(change=shapes(-3, 5, 5)), "announces -3 x 5 x 5"),
    "nifti of five axes": Hostile(
        nifti(np.zeros((2, 2, 2, 2, 2), np.uint8)), "axes of sizes (2, 2, 2, 2, 2)"
    ),
    "nifti of no type": Hostile(nifti(change=[(70, b"\xff\x7f")]), DAMAGED),
    "nifti complex": Hostile(nifti(UNIT[..., None].astype(np.complex64)), "pixels of type complex64"),
    "nifti apart": Hostile(nifti(change=[(344, b"ni1\0")]), "a header apart from its data"),
    "nifti flat": Hostile(
        nifti(change=[(312, struct.pack("<4f", 0, 0, 0, 0))]), "an affine without three axes"
    ),
    "nifti nowhere": Hostile(
        nifti(change=[(280, struct.pack("<f", np.nan))]), "an affine without three axes"
    ),
    "nifti nan": Hostile(nifti(NAN[..., None]), "1 NaN or infinite pixels"),
    "nifti mask of fractions": Hostile(nifti(UNIT[..., None]), "labels that are fractions", read_mask),
    "volume of text": Hostile(b"hello", "not a NIfTI file", volumes.read_volume),
    "volume of nothing": Hostile(lambda path: path.mkdir(), "0 DICOM series", volumes.read_volume),
    "volume of channels as labels": Hostile(
        nifti(np.arange(64, dtype=np.uint8).reshape(4, 4, 2, 2)),
        "2 different channels",
        volumes.read_volume_mask,
    ),
}


def test_there_are_more_than_sixty():
    assert len(HOSTILE) > 60


@pytest.mark.parametrize("name", HOSTILE)
def test_one_line_says_what_is_wrong(name, tmp_path, caplog, capfd):
    hostile, path = HOSTILE[name], tmp_path / "x.png"
    if isinstance(hostile.write, bytes):
        path.write_bytes(hostile.write)
    else:
        hostile.write(path)
    message = refusal(hostile.read, path, **({} if hostile.page is None else {"page": hostile.page}))
    assert hostile.words in message
    assert len(message) < len(str(path)) + 600
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")


def test_a_name_of_two_lines_still_gives_one(tmp_path):
    with pytest.raises(ImageError) as error:
        read_image(tmp_path / "two\nlines.png")
    assert "\n" not in str(error.value)
