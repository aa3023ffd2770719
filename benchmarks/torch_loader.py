"""Loads batches with a torch DataLoader and albumentations, as most segmentation code does."""

from collections.abc import Iterator
from pathlib import Path

import albumentations as A  # noqa: N812, as its documentation has it
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch.utils.data import DataLoader, Dataset

# As far as `train.augment.ranges` goes, and in the same order.
CHANGES = {
    "none": list,
    "light": lambda: [
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.RandomBrightnessContrast(0.02, 0.05, p=1),
    ],
    "medium": lambda: [
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.01, 0.8), p=1),
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.Affine(scale=(1 / 1.15, 1.15), rotate=(-15, 15), translate_percent=(-0.05, 0.05), p=1),
        A.ElasticTransform(alpha=60, sigma=12, p=1),
        A.HueSaturationValue(8, 20, 0, p=1),
        A.RandomGamma((80, 125), p=1),
        A.RandomBrightnessContrast(0.1, 0.25, p=1),
        A.GaussNoise(std_range=(0.0, 0.03), p=1),
    ],
}


class Pairs(Dataset):
    """Images and masks, decoded when they are asked for, or once and for all.

    Args:
      pairs: files of an image and its mask.
      crop: side of the random squares in pixels.
      strength: of the augmentation.
      decoded: keeps the pixels in memory, of which every process has its own.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], crop: int, strength: str, *, decoded: bool):
        self._kept = [read(*pair) for pair in pairs] if decoded else None
        self._pairs = pairs
        square = A.RandomCrop(crop, crop, pad_if_needed=True)
        self._change = A.Compose([square, *CHANGES[strength](), A.ToFloat(max_value=255), ToTensorV2()])

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = read(*self._pairs[place]) if self._kept is None else self._kept[place]
        changed = self._change(image=image, mask=mask)
        return changed["image"], changed["mask"].long()


def read(image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a pair with OpenCV."""
    found, labels = cv2.imread(str(image)), cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    if found is None or labels is None:
        raise OSError(f"{image}: OpenCV cannot read it or its mask")
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB), labels


def batches(
    pairs: list[tuple[Path, Path]], crop: int, batch: int, strength: str, workers: int, *, decoded: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches, prepared by so many processes, whose OpenCV has one thread each."""
    loader = DataLoader(
        Pairs(pairs, crop, strength, decoded=decoded),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",  # a fork would have the threads of JAX half alive
        worker_init_fn=alone,
    )
    while True:
        yield from loader


def alone(_: int) -> None:
    """One thread in each process."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
