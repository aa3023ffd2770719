"""Decodes DICOM files: rescaled to their unit, and inverted where low values are white."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flaxunet.io.pixels import DecodedPixels, DecodeError, check_size, quiet, select_page

PREAMBLE, MAGIC = 128, (b"DICM",)  # how many bytes lie before the magic ones


class NoPixelsError(DecodeError):
    """An object without pixels: damaged if its class is one of images, else not an image."""

    def __init__(self, object_class: str):
        super().__init__("a DICOM file without pixels")
        self.object_class = object_class


def read_dicom(file: BinaryIO, page: int | None, *, mask: bool) -> DecodedPixels:
    """Decodes one frame, gray or RGB.

    For an image, MONOCHROME1 (low is white) is inverted, rescale slope and intercept are applied and make
    it float, in the unit of the file (HU for CT); without them the largest value is that of the bits stored:
    4095 for 12. For a mask the stored numbers are the labels.

    Raises: DecodeError if pydicom is missing, if there are no pixels, or for other colours.
    """
    with quiet("pydicom"):  # which converts values, and warns of them, when they are used
        dataset = read_dataset(file)
        frame = select_page(page, int(dataset.get("NumberOfFrames") or 1))
        return decode_frame(dataset, frame, mask=mask, unit=is_rescaled(dataset, frame))


def frame_count(file: BinaryIO) -> int:
    """How many frames a file holds."""
    with quiet("pydicom"):
        return int(read_dataset(file).get("NumberOfFrames") or 1)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; False for one that cannot be opened."""
    try:
        with path.open("rb") as file:
            return has_magic(file)
    except OSError:
        return False


def has_magic(file: BinaryIO) -> bool:
    """Whether a file begins as DICOM files do; it is then at its beginning again."""
    start = file.read(PREAMBLE + len(MAGIC[0]))
    file.seek(0)
    return start[PREAMBLE:] == MAGIC[0]


def read_spacing(path: Path) -> tuple[float, float] | None:
    """Reads mm between rows and between columns of the first frame.

    Returns: None for a file that does not say, is damaged (reading the image reports it) or is not DICOM.
    """
    if not is_dicom(path):
        return None
    try:
        with quiet("pydicom"):
            import pydicom  # of the medical extra

            return _spacing(pydicom.dcmread(path, stop_before_pixels=True), 0)
    except Exception:  # damaged headers make it raise anything
        return None


def read_dataset(file: BinaryIO) -> Any:
    """Reads a file's content, with pixels that are not decoded yet.

    Raises: DecodeError without pydicom, and for pixels of a size that would not fit; NoPixelsError.
    """
    try:
        import pydicom  # of the medical extra
        from pydicom.uid import UID
    except ImportError:
        raise DecodeError("DICOM, which needs pip install 'flaxunet[medical]'") from None
    dataset = pydicom.dcmread(file)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise NoPixelsError(dataset.file_meta.get("MediaStorageSOPClassUID", UID("")).name)
    check_size(int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    return dataset


def decode_frame(dataset: Any, frame: int, *, mask: bool, unit: bool) -> DecodedPixels:
    """Decodes a frame.

    Args:
      dataset, frame: of `read_dataset`; from 0.
      mask, unit: keep the stored numbers; rescale an image to its unit, which makes it float.
    Returns: pixels (H, W, C).
    Raises: DecodeError for colours and compressions that cannot be read.
    """
    from pydicom.pixels import apply_color_lut, pixel_array

    colours = str(dataset.PhotometricInterpretation)
    gray = colours.startswith("MONOCHROME") or (colours == "PALETTE COLOR" and mask)
    if not gray and colours not in ("RGB", "PALETTE COLOR") and not colours.startswith("YBR"):
        raise DecodeError(f"{colours} colours; expected gray or RGB")
    _check_compression(dataset.file_meta.TransferSyntaxUID, mask=mask)
    array, white = pixel_array(dataset, index=frame), None  # YBR becomes RGB
    if colours == "PALETTE COLOR" and not mask:
        array = apply_color_lut(array, dataset)
    if gray and array.dtype.kind in "iu":
        bits, signed = int(dataset.BitsStored), array.dtype.kind == "i"
        white = 2 ** (bits - signed) - 1
        # Bits above those stored may hold anything, such as an overlay; the sign is the highest one stored.
        unused = 8 * array.dtype.itemsize - bits
        array = array << unused >> unused
        if colours == "MONOCHROME1" and not mask:
            array = (-1 if signed else white) - array.astype(np.int64)
    if unit and not mask:
        array, white = _rescaled(array, _rescale_of(dataset, frame)), None
    return DecodedPixels(np.atleast_3d(array), white, spacing=_spacing(dataset, frame))


def is_rescaled(dataset: Any, frame: int) -> bool:
    """Whether a frame has a rescaling other than by 1 and 0."""
    source = _rescale_of(dataset, frame)
    return bool(source.get("ModalityLUTSequence")) or _slope_intercept(source) != (1.0, 0.0)


def _check_compression(syntax: Any, *, mask: bool) -> None:
    from pydicom import uid
    from pydicom.pixels import get_decoder

    lossy = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000)
    if mask and syntax in lossy:
        raise DecodeError(f"{syntax.name} compression, which blurs labels; expected a lossless one")
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        missing = " or ".join(get_decoder(syntax).missing_dependencies)
        raise DecodeError(f"{syntax.name} compression, for which pydicom needs {missing}")


def _rescale_of(dataset: Any, frame: int) -> Any:
    return _of_frame(dataset, frame, "PixelValueTransformationSequence")


def _spacing(dataset: Any, frame: int) -> tuple[float, float] | None:
    """Millimetres between rows and between columns: in the patient, or on the detector."""
    source = _of_frame(dataset, frame, "PixelMeasuresSequence")
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = source.get(name)
        if spacing is not None and len(spacing) == 2 and min(map(float, spacing)) > 0:
            return float(spacing[0]), float(spacing[1])
    return None


def _of_frame(dataset: Any, frame: int, name: str) -> Any:
    """The dataset in a sequence of a frame's functional groups; the file where there is none."""
    for groups, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        sequence = dataset.get(groups)
        if sequence and len(sequence) > place and (inner := sequence[place].get(name)):
            return inner[0]
    return dataset


def _slope_intercept(source: Any) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where they are left out or empty."""
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    return 1.0 if slope in (None, "") else float(slope), 0.0 if intercept in (None, "") else float(intercept)


def _rescaled(array: np.ndarray, source: Any) -> np.ndarray:
    if source.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        return np.asarray(apply_modality_lut(array, source), np.float64)
    slope, intercept = _slope_intercept(source)
    return array * slope + intercept
