"""Decodes DICOM files, rescaled to their unit, and stacks those of a series into a volume."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from flaxunet.io.pixels import DecodedPixels, DecodeError, check_size, name_errors, quiet, select_page

PREAMBLE, MAGIC = 128, (b"DICM",)  # how many bytes lie before the magic ones
_RESCALING = "PixelValueTransformationSequence"
_SPACING_TOLERANCE = 0.1  # of the usual distance: positions are rounded, and a missing slice makes it 1


def read_dicom(file: BinaryIO, page: int | None, *, mask: bool) -> DecodedPixels:
    """Decodes one frame, gray or RGB.

    For an image, MONOCHROME1 (low is white) is inverted, rescale slope and intercept are applied and make
    it float, in the unit of the file (HU for CT); without them the largest value is that of the bits stored:
    4095 for 12. For a mask the stored numbers are the labels.

    Raises: DecodeError if pydicom is missing, if there are no pixels, or for other colours.
    """
    with quiet("pydicom"):  # which converts values, and warns of them, when they are used
        dataset = _read_dataset(file)
        frame = select_page(page, int(dataset.get("NumberOfFrames") or 1))
        return _decode_frame(dataset, frame, mask=mask, unit=_is_rescaled(dataset, frame))


def frame_count(file: BinaryIO) -> int:
    """How many frames a file holds."""
    with quiet("pydicom"):
        return int(_read_dataset(file).get("NumberOfFrames") or 1)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; False for one that cannot be opened."""
    try:
        with path.open("rb") as file:
            return _has_magic(file)
    except OSError:
        return False


def read_spacing(path: Path) -> tuple[float, float] | None:
    """Reads mm between rows and between columns; None where they are missing, damaged or not DICOM."""
    if not is_dicom(path):
        return None
    try:
        with quiet("pydicom"):
            import pydicom  # of the medical extra

            return _spacing(pydicom.dcmread(path, stop_before_pixels=True), 0)
    except Exception:  # damaged headers make it raise anything
        return None


def is_series(paths: Iterable[Path]) -> bool:
    """Whether several DICOM files are one series of slices in a patient; False without pydicom."""
    try:
        import pydicom
    except ImportError:
        return False
    tags = ["SeriesInstanceUID", "ImagePositionPatient", "Rows"]
    series, slices = set(), 0
    with quiet("pydicom"):
        for path in paths:
            try:
                dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            except Exception:  # a damaged file does not decide
                continue
            if "Rows" in dataset:
                series.add(str(dataset.get("SeriesInstanceUID", "")))
                slices += "ImagePositionPatient" in dataset
    return len(series) == 1 and slices > 1


def read_series(folder: Path, *, mask: bool) -> tuple[DecodedPixels, np.ndarray]:
    """Reads the slices of a folder, sorted by their positions; names and instance numbers play no part.

    Objects other than images are skipped, and so are files that are not DICOM, unless their suffix is .dcm.

    Returns: pixels (X, Y, Z, C): columns, rows and slices as stored; and the affine (4, 4) from their
      indices to mm right, front and up.
    Raises: DecodeError, which names the file or the series, for several series or frames, and for slices that
      differ in size, orientation or spacing, lie at the same place or are missing.
    """
    with quiet("pydicom"):
        return _stack(_find_slices(folder), mask=mask)


class _NoPixelsError(DecodeError):
    """An object without pixels: damaged if its class is one of images, else not an image."""

    def __init__(self, object_class: str):
        super().__init__("a DICOM file without pixels")
        self.object_class = object_class


def _has_magic(file: BinaryIO) -> bool:
    """Whether a file begins as DICOM files do; it is then at its beginning again."""
    start = file.read(PREAMBLE + len(MAGIC[0]))
    file.seek(0)
    return start[PREAMBLE:] == MAGIC[0]


def _read_dataset(file: BinaryIO) -> Any:
    """Reads a file's content, with pixels of a size that fits into memory, which are not decoded yet."""
    try:
        import pydicom  # of the medical extra
        from pydicom.uid import UID
    except ImportError:
        raise DecodeError("DICOM, which needs pip install 'flaxunet[medical]'") from None
    dataset = pydicom.dcmread(file)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise _NoPixelsError(dataset.file_meta.get("MediaStorageSOPClassUID", UID("")).name)
    check_size(int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    return dataset


def _decode_frame(dataset: Any, frame: int, *, mask: bool, unit: bool) -> DecodedPixels:
    """Decodes a frame: its stored numbers for a mask, rescaled to its unit where `unit` says so."""
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
        array, white = _rescaled(array, _of_frame(dataset, frame, _RESCALING)), None
    return DecodedPixels(np.atleast_3d(array), white, spacing=_spacing(dataset, frame))


def _is_rescaled(dataset: Any, frame: int) -> bool:
    """Whether a frame has a rescaling other than by 1 and 0."""
    source = _of_frame(dataset, frame, _RESCALING)
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


class _Slice(NamedTuple):
    name: str
    dataset: Any
    layout: tuple[int, ...]  # rows, columns and samples per pixel
    axes: np.ndarray  # (3, 2), from a column and from a row to the next, in mm left, back and up
    position: np.ndarray  # (3,) of the first pixel, in mm left, back and up


def _find_slices(folder: Path) -> list[_Slice]:
    """The slices of the one series in a folder, in the order of their names."""
    series: dict[str, list[_Slice]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        is_visible = path.is_file() and not path.name.startswith(".")
        if is_visible and (slice_ := _read_slice(path)) is not None:
            series[str(slice_.dataset.get("SeriesInstanceUID", ""))].append(slice_)
    if len(series) != 1:
        listed = "".join(f", {len(files)} from {files[0].name}" for files in series.values())
        raise DecodeError(f"{len(series)} DICOM series{listed}; expected one")
    return next(iter(series.values()))


def _read_slice(path: Path) -> _Slice | None:
    with path.open("rb") as file:
        if not _has_magic(file):
            if path.suffix.lower() == ".dcm":
                raise DecodeError(f"{path.name} is not a DICOM file")
            return None
        with name_errors(path.name, DecodeError):
            try:
                dataset = _read_dataset(file)
            except _NoPixelsError as error:
                if "Image Storage" in error.object_class:
                    raise
                return None
    try:
        orientation = np.array(dataset.ImageOrientationPatient, np.float64).reshape(2, 3)
        position = np.array(dataset.ImagePositionPatient, np.float64).reshape(3)
        down, across = map(float, dataset.PixelSpacing)  # between rows, between columns
        layout = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    except (AttributeError, TypeError, ValueError):
        raise DecodeError(f"{path.name} has no position, orientation or spacing") from None
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DecodeError(f"{path.name} has several frames")
    return _Slice(path.name, dataset, layout, orientation.T * [across, down], position)


def _stack(slices: list[_Slice], *, mask: bool) -> tuple[DecodedPixels, np.ndarray]:
    first = slices[0]
    for one in slices:
        if one.layout != first.layout or not np.allclose(one.axes, first.axes, atol=1e-3):
            raise DecodeError(f"{one.name} has another size, spacing or orientation than {first.name}")
    normal = np.cross(first.axes[:, 0], first.axes[:, 1])
    normal /= np.linalg.norm(normal)
    slices.sort(key=lambda one: float(one.position @ normal))
    gaps = np.diff([one.position @ normal for one in slices])
    usual = np.median(gaps) if gaps.size else 0.0
    for before, after, gap in zip(slices, slices[1:], gaps, strict=False):
        if gap <= 1e-3:
            raise DecodeError(f"{before.name} and {after.name} are at the same place")
        if abs(gap - usual) > _SPACING_TOLERANCE * usual:
            raise DecodeError(f"{gap:g} mm between {before.name} and {after.name}, and mostly {usual:g} mm")
    check_size(len(slices), *first.layout)
    unit = any(_is_rescaled(one.dataset, 0) for one in slices)
    images = []
    for one in slices:
        with name_errors(one.name, DecodeError):
            images.append(_decode_frame(one.dataset, 0, mask=mask, unit=unit))
    array = np.stack([image.array for image in images]).transpose(2, 1, 0, 3)
    step = normal * float(first.dataset.get("SliceThickness") or 1)
    if len(slices) > 1:
        step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, :2], affine[:3, 2], affine[:3, 3] = first.axes, step, slices[0].position
    # DICOM's axes point to the patient's left and back.
    return DecodedPixels(array, images[0].white), np.diag([-1, -1, 1, 1]) @ affine
