"""Writes DICOM files and series for tests, which are skipped without pydicom."""

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs the medical extra")
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

STORED = np.random.default_rng(0).integers(0, 4096, (6, 9), np.uint16)


def write_dicom(path, stored=STORED, *, position=None, across=(1, 0, 0), down=(0, 1, 0), **tags):
    """Writes a 12-bit gray file.

    Args:
      path: of the file.
      stored: pixels (H, W), or several frames (N, H, W, 1).
      position: mm left, back and up of the first pixel; None for a file without a place in the patient.
      across, down: directions of a row and of a column.
      tags: replace those that the file would have; None removes one. `syntax`, `kind` and `packed` are the
        transfer syntax, the object class and the encoded pixels.
    Returns: the path.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    dataset.SOPClassUID = tags.pop("kind", SecondaryCaptureImageStorage)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.Rows, dataset.Columns = stored.shape[:2] if stored.ndim == 2 else stored.shape[-3:-1]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = min(dataset.BitsAllocated, 12)
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(stored.dtype.kind == "i")
    if position is not None:
        dataset.ImagePositionPatient, dataset.PixelSpacing = list(position), [0.5, 0.25]
        dataset.ImageOrientationPatient = [*across, *down]
    dataset.PixelData = tags.pop("packed", stored.tobytes())
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, count=5, *, step=(0, 0, 2.0), start=(10.0, 20.0, 30.0), **options):
    """A series in files whose names have another order than their places; slice k holds 100 k and more."""
    folder.mkdir(exist_ok=True)
    for k in range(count):
        position = np.add(start, np.multiply(step, k))
        write_dicom(
            folder / f"{count - k}.dcm", STORED // 64 + np.uint16(100 * k), position=position, **options
        )
    return folder
