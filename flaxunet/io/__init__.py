"""Reads and writes image files, label masks and volumes."""

from flaxunet.io.images import ImageError, read_image, read_mask, write_mask
from flaxunet.io.volumes import Volume, read_volume, read_volume_mask, write_volume_mask

__all__ = [
    "ImageError",
    "Volume",
    "read_image",
    "read_mask",
    "read_volume",
    "read_volume_mask",
    "write_mask",
    "write_volume_mask",
]
