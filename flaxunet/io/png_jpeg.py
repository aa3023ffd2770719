"""Decodes PNG and JPEG files at the bit depth in which they are stored."""

import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL.Image import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from flaxunet.io.pixels import DecodedPixels, DecodeError, check_size, ignore_warnings, select_page

PNG_MAGIC = (b"\x89PNG\r\n\x1a\n",)
JPEG_MAGIC = (b"\xff\xd8\xff",)
EXIF_ORIENTATION = 0x0112

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type


def read_png(file: BinaryIO, page: int | None, *, mask: bool) -> DecodedPixels:
    """Decodes 1 to 16 bits; looks up the palette for an image and keeps its indices for a mask.

    Raises: DecodeError for an animation, for 16-bit gray with alpha, and for missing rows.
    """
    # The format's own class, not PIL.Image.open: no other format is tried, and the size limit is ours alone.
    with ignore_warnings():
        image = PngImageFile(file)
    check_size(image.height, image.width, len(image.getbands()))
    layout = str(image.tile[0].args) if image.tile else ""  # as stored, in Pillow's words
    if getattr(image, "n_frames", 1) > 1:
        raise DecodeError("an animation; expected a still image")
    select_page(page, 1)
    if layout == "LA;16B":
        raise DecodeError("16-bit gray with alpha, which would lose 8 bits; expected it without alpha")
    array = np.asarray(image)
    if layout in ("RGB;16B", "RGBA;16B"):
        # Pillow keeps only the high byte. The same file declared little-endian gives the low one.
        file.seek(0)
        with ignore_warnings():
            low = PngImageFile(file)
        low.tile = [low.tile[0]._replace(args=layout.replace("16B", "16L"))]
        array = array.astype(np.uint16) << 8 | np.asarray(low)
    if not array[-1].any():
        _check_rows(file)
    if mask and layout in ("L;2", "L;4"):
        array = array // {"L;2": 85, "L;4": 17}[layout]  # Pillow stretches 2 and 4 bits to 0..255
    if image.mode == "P" and not mask:
        colors = image.getpalette("RGB") or []
        colors += [0] * (256 * 3 - len(colors))  # black beyond the end of a short palette
        array = np.array(colors, np.uint8).reshape(256, 3)[array]
    return _pixels(array, image)


def read_jpeg(file: BinaryIO, page: int | None, *, mask: bool) -> DecodedPixels:
    """Decodes gray or RGB.

    Raises: DecodeError for a mask, whose labels the compression would have blurred, and for CMYK, whose
      colours depend on a printer's profile.
    """
    if mask:
        raise DecodeError("a JPEG file, whose compression blurs labels; expected a lossless format")
    with ignore_warnings():
        image = JpegImageFile(file)
    check_size(image.height, image.width, len(image.getbands()))
    select_page(page, 1)
    if image.mode not in ("L", "RGB"):
        raise DecodeError(f"{image.mode} colours; expected gray or RGB")
    return _pixels(np.asarray(image), image)


def png_dtype(file: BinaryIO) -> str:
    """The type of the stored values, by the header: uint1 to uint16."""
    return f"uint{file.read(25)[24]}"


def _check_rows(file: BinaryIO) -> None:
    """Raises DecodeError if a PNG's data end early, whose missing rows Pillow would show as black."""
    file.seek(16)
    width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", file.read(13))
    if interlaced:  # rows of seven small images; the last row has parts of several
        return
    missing = height * (1 + -(-width * depth * _SAMPLES[colour] // 8))
    unpacker = zlib.decompressobj()
    file.seek(len(PNG_MAGIC[0]))
    while missing > 0 and len(header := file.read(8)) == 8:
        size, chunk = struct.unpack(">I4s", header)
        packed = file.read(size)
        file.seek(4, 1)  # the checksum
        while chunk == b"IDAT" and packed:
            missing -= len(unpacker.decompress(packed, 2**20))
            packed = unpacker.unconsumed_tail
    if missing > len(unpacker.flush()):
        raise DecodeError("rows are missing at its end")


def _pixels(array: np.ndarray, image: Image) -> DecodedPixels:
    """The array of an image without alpha, and its orientation."""
    array = np.atleast_3d(array)
    with ignore_warnings():
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    return DecodedPixels(array[..., :-1] if image.mode in ("LA", "RGBA") else array, orientation=orientation)
