"""DICOM files enter, the numbers that they mean leave: rescaled, and bright where it is white."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flaxunet.io.pixels import Pixels, PixelsError, check_size, choose, reason, silence, unlogged

PREAMBLE, MAGIC = 128, b"DICM"
# Of the distance between neighbours: positions are rounded, and a missing slice is a difference of 1.
_UNEVEN = 0.1


def read_dicom(file: BinaryIO, page: int | None, *, mask: bool) -> Pixels:
    """One frame, gray or RGB.

    For an image, MONOCHROME1 (low is white) is inverted, rescale slope and intercept are applied and make
    it float, in the unit of the file (HU for CT); without them the largest value is that of the bits stored:
    4095 for 12. For a mask the stored numbers are the labels.

    Raises: PixelsError if pydicom is missing, if there are no pixels, or if the colours are others.
    """
    with silence(), unlogged("pydicom"):  # it converts values, and warns of them, when they are used
        dataset = _dataset(file)
        frame = choose(page, int(dataset.get("NumberOfFrames") or 1))
        return _pixels(dataset, frame, mask=mask, unit=_is_rescaled(_rescale(dataset, frame)))


def count(file: BinaryIO) -> int:
    """Frames of a file."""
    with silence(), unlogged("pydicom"):
        return int(_dataset(file).get("NumberOfFrames") or 1)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; of one that cannot be opened, no."""
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE + 4)[PREAMBLE:] == MAGIC
    except OSError:
        return False


def are_series(paths: Iterable[Path]) -> bool:
    """Whether several DICOM files are of one series with places in the patient; without pydicom, no."""
    try:
        import pydicom
    except ImportError:
        return False
    wanted = ["SeriesInstanceUID", "ImagePositionPatient", "Rows"]
    series, pictures = set(), 0
    with silence(), unlogged("pydicom"):
        for path in paths:
            try:
                read = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
            except Exception:  # a damaged file is not what decides
                continue
            if "Rows" in read:
                series.add(str(read.get("SeriesInstanceUID", "")))
                pictures += "ImagePositionPatient" in read
    return len(series) == 1 and pictures > 1


def read_series(folder: Path, *, mask: bool) -> tuple[Pixels, np.ndarray]:
    """The slices of a folder, sorted by their positions; neither names nor instance numbers play a part.

    Objects that are no images are passed over, and so are files that are not DICOM, unless they are named so.

    Returns: pixels (X, Y, Z, C): columns, rows and slices as stored; and the affine (4, 4) from their
      indices to mm right, front and up.
    Raises: PixelsError, which names the file or the series, for several series, frames, slices that differ in
      size, orientation or spacing, lie at the same place or are missing.
    """
    with silence(), unlogged("pydicom"):
        return _stacked(_one_series(folder), mask=mask)


def read_spacing(path: Path) -> tuple[float, float] | None:
    """Millimetres between rows and between columns of the first frame; None if it is no DICOM file, or one
    that does not say. So it is of a damaged one: reading it says why."""
    if not is_dicom(path):
        return None
    try:
        with silence(), unlogged("pydicom"):
            import pydicom  # of the medical extra

            return _spacing(pydicom.dcmread(path, stop_before_pixels=True), 0)
    except Exception:  # damaged headers make it raise anything
        return None


def _one_series(folder: Path) -> list["_Slice"]:
    """The slices of a folder, in the order of their names."""
    found: dict[str, list[_Slice]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            slice_ = _slice(path)
            if slice_ is not None:
                found[str(slice_.dataset.get("SeriesInstanceUID", ""))].append(slice_)
    if len(found) != 1:
        listed = "".join(f", {len(files)} from {files[0].name}" for files in found.values())
        raise PixelsError(f"{len(found)} DICOM series{listed}; one is accepted")
    return next(iter(found.values()))


def _stacked(slices: list["_Slice"], *, mask: bool) -> tuple[Pixels, np.ndarray]:
    """Their pixels and affine, for `read_series`."""
    first = slices[0]
    for one in slices:
        if one.layout != first.layout or not np.allclose(one.axes, first.axes, atol=1e-3):
            raise PixelsError(f"{one.name} has another size, spacing or orientation than {first.name}")
    normal = np.cross(first.axes[:, 0], first.axes[:, 1])
    normal /= np.linalg.norm(normal)
    slices.sort(key=lambda one: float(one.position @ normal))
    _check_spacing(slices, np.array([one.position @ normal for one in slices]))
    check_size(len(slices), *first.layout)
    unit = any(_is_rescaled(_rescale(one.dataset, 0)) for one in slices)
    pictures = []
    for one in slices:
        with _named(one.name):
            pictures.append(_pixels(one.dataset, 0, mask=mask, unit=unit))
    array = np.stack([picture.array for picture in pictures]).transpose(2, 1, 0, 3)
    step = normal * float(first.dataset.get("SliceThickness") or 1)
    if len(slices) > 1:
        step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, :2], affine[:3, 2], affine[:3, 3] = first.axes, step, slices[0].position
    # DICOM's axes point to the patient's left and back.
    return Pixels(array, pictures[0].top), np.diag([-1, -1, 1, 1]) @ affine


@dataclass(frozen=True)
class _Slice:
    """A file of a series.

    `axes` (3, 2) are the steps in mm, left, back and up, from a column to the next and from a row to the
    next; `position` (3,) is that of the first pixel.
    """

    name: str
    dataset: Any
    layout: tuple[int, ...]
    axes: np.ndarray
    position: np.ndarray


def _slice(path: Path) -> _Slice | None:
    with path.open("rb") as file:
        magic = file.read(PREAMBLE + 4)[PREAMBLE:]
        file.seek(0)
        if magic != MAGIC:
            if path.suffix.lower() == ".dcm":
                raise PixelsError(f"{path.name} is no DICOM file")
            return None
        with _named(path.name):
            try:
                dataset = _dataset(file)
            except _NoPixelsError as error:
                if "Image Storage" in error.kind:
                    raise
                return None
    try:
        orientation = np.array(dataset.ImageOrientationPatient, np.float64).reshape(2, 3)
        position = np.array(dataset.ImagePositionPatient, np.float64).reshape(3)
        down, across = map(float, dataset.PixelSpacing)  # between rows, between columns
        layout = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    except (AttributeError, TypeError, ValueError):
        raise PixelsError(f"{path.name} has no position, orientation or spacing") from None
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise PixelsError(f"{path.name} has several frames")
    return _Slice(path.name, dataset, layout, orientation.T * [across, down], position)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors begin with the name of a file of the series."""
    try:
        yield
    except Exception as error:
        raise PixelsError(f"{name}: {reason(error)}") from error


def _check_spacing(slices: list[_Slice], heights: np.ndarray) -> None:
    """Raises PixelsError where two slices are at one place, or farther apart than the others."""
    gaps = np.diff(heights)
    usual = np.median(gaps) if gaps.size else 0.0
    for before, after, gap in zip(slices, slices[1:], gaps, strict=False):
        if gap <= 1e-3:
            raise PixelsError(f"{before.name} and {after.name} are at the same place")
        if abs(gap - usual) > _UNEVEN * usual:
            raise PixelsError(f"{gap:g} mm between {before.name} and {after.name}, and mostly {usual:g} mm")


class _NoPixelsError(PixelsError):
    """An object without pixels: of an image class it is damaged, of another it is no image."""

    def __init__(self, kind: str):
        super().__init__("a DICOM file without pixels")
        self.kind = kind


def _dataset(file: BinaryIO) -> Any:
    """A file's content, with pixels that are not decoded yet but of a size that is accepted."""
    try:
        import pydicom  # of the medical extra
        from pydicom.uid import UID
    except ImportError:
        raise PixelsError("DICOM, which needs pip install 'flaxunet[medical]'") from None
    dataset = pydicom.dcmread(file)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise _NoPixelsError(dataset.file_meta.get("MediaStorageSOPClassUID", UID("")).name)
    check_size(int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    return dataset


def _pixels(dataset: Any, frame: int, *, mask: bool, unit: bool) -> Pixels:
    """A frame (H, W, C); with `unit`, of an image, in the unit that its rescaling leads to."""
    from pydicom.pixels import apply_color_lut, pixel_array

    kind = str(dataset.PhotometricInterpretation)
    gray = kind.startswith("MONOCHROME") or (kind == "PALETTE COLOR" and mask)
    if not gray and kind not in ("RGB", "PALETTE COLOR") and not kind.startswith("YBR"):
        raise PixelsError(f"{kind} colours; convert them to RGB")
    _check_compression(dataset.file_meta.TransferSyntaxUID, mask=mask)
    array, top = pixel_array(dataset, index=frame), None  # YBR becomes RGB
    if kind == "PALETTE COLOR" and not mask:
        array = apply_color_lut(array, dataset)
    if gray and array.dtype.kind in "iu":
        bits, signed = int(dataset.BitsStored), array.dtype.kind == "i"
        top = 2 ** (bits - signed) - 1
        # Bits above those stored may hold anything, such as an overlay; the sign is the highest one stored.
        unused = 8 * array.dtype.itemsize - bits
        array = array << unused >> unused
        if kind == "MONOCHROME1" and not mask:
            array = (-1 if signed else top) - array.astype(np.int64)
    if unit and not mask:
        array, top = _rescaled(array, _rescale(dataset, frame)), None
    return Pixels(array[..., None] if array.ndim == 2 else array, top, spacing=_spacing(dataset, frame))


def _check_compression(syntax: Any, *, mask: bool) -> None:
    """Raises PixelsError where nothing that is installed decodes it, or where it has blurred labels."""
    from pydicom import uid
    from pydicom.pixels import get_decoder

    lossy = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000)
    if mask and syntax in lossy:
        raise PixelsError(f"{syntax.name} compression, which blurs labels")
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        needed = " or ".join(get_decoder(syntax).missing_dependencies)
        raise PixelsError(f"{syntax.name} compression, for which pydicom needs {needed}")


def _rescale(dataset: Any, frame: int) -> Any:
    """What holds the slope and the intercept of a frame: the file, or its functional groups."""
    return _of_frame(dataset, frame, "PixelValueTransformationSequence")


def _spacing(dataset: Any, frame: int) -> tuple[float, float] | None:
    """Of rows and of columns in mm: in the patient, or on the detector."""
    source = _of_frame(dataset, frame, "PixelMeasuresSequence")
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        given = source.get(name)
        if given is not None and len(given) == 2 and min(map(float, given)) > 0:
            return float(given[0]), float(given[1])
    return None


def _of_frame(dataset: Any, frame: int, name: str) -> Any:
    """What a sequence of a frame's functional groups holds; the file where there is none."""
    for groups, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        sequence = dataset.get(groups)
        if sequence and len(sequence) > place and (found := sequence[place].get(name)):
            return found[0]
    return dataset


def _line(source: Any) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where they are left out or empty."""
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    return 1.0 if slope in (None, "") else float(slope), 0.0 if intercept in (None, "") else float(intercept)


def _is_rescaled(source: Any) -> bool:
    return bool(source.get("ModalityLUTSequence")) or _line(source) != (1.0, 0.0)


def _rescaled(array: np.ndarray, source: Any) -> np.ndarray:
    if source.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        return np.asarray(apply_modality_lut(array, source), np.float64)
    slope, intercept = _line(source)
    return array * slope + intercept
