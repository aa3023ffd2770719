"""Makes batches of random crops for training and of whole images for evaluation, on any number of hosts."""

from collections.abc import Callable, Iterator

import grain
import numpy as np

from flaxunet.labels import IGNORE
from train.data import samples
from train.data.dataset import Sample, Split

Batch = dict[str, np.ndarray]
# Maps the place of a sample in its split, and its random numbers, to the (top, left) of a crop.
Corner = Callable[[int, np.random.Generator], tuple[int, int]]


def train_batches(
    split: Split,
    *,
    batch_size: int,
    size: int,
    seed: int,
    start: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 4,
    foreground: float = 0.0,
) -> Iterator[Batch]:
    """Yields shuffled random crops without end: this process's share of the global batches from `start` on.

    Global batch k is all processes' shares in the order of their index. It depends, crops included, on the
    split, `seed` and k alone: not on the number of processes or threads, nor on where the iterator started.

    Args:
      split: the samples; every epoch has a new order.
      batch_size: rows of a global batch, a multiple of `process_count`.
      size: side of the square crops in pixels; an image smaller than that is padded at its right and bottom
        with zeros whose label is IGNORE.
      seed: of order and crops.
      start: the first global batch, which is the number of steps already taken.
      process_index, process_count: this process, from 0, and those that share each global batch.
      threads: that cut crops ahead of time; Grain runs and feeds them.
      foreground: probability that a crop is centred on the foreground; see `crop_corners`.
    Returns: an iterator of image (b, size, size, C) float32, label (b, size, size) int32 and index (b,)
      int32, the places in `split`; b = batch_size // process_count.
    Raises: ValueError if the split is empty or the processes cannot share a batch evenly.
    """
    if not len(split) or batch_size < 1 or batch_size % process_count:
        sizes = f"{len(split)} samples, {batch_size} a batch, {process_count} processes"
        raise ValueError(f"{sizes}; expected samples, and a batch that is a multiple of the processes")
    corner = crop_corners(split, size, foreground)
    crops = (
        grain.MapDataset.range(len(split))
        .seed(seed)
        .shuffle()
        .repeat(None)
        .random_map(lambda place, rng: _crop(split[place], place, size, corner(place, rng)))
    )
    # Endless data has no remainder, but not dropping it makes grain count batches in floats, which overflows.
    batches = crops.batch(batch_size // process_count, drop_remainder=True)
    share = batches[start * process_count + process_index :: process_count]
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(share.to_iter_dataset(options))


def crop_corners(split: Split, size: int, foreground: float) -> Corner:
    """Makes the function that draws the corners of square crops.

    With probability `foreground`, the centre of a crop is a pixel of the foreground: first one of the classes
    of the image is drawn, each with equal probability, then one of its pixels. Otherwise the crop lies
    anywhere in the image with equal probability. A crop that would leave the image is moved back.

    Args:
      split, size: as of `train_batches`; crops of an image smaller than `size` begin at its corner.
      foreground: probability in [0, 1]; without effect on images without classes above 0.
    """
    classes = [samples.classes(sample) for sample in split] if foreground else []

    def corner(place: int, rng: np.random.Generator) -> tuple[int, int]:
        sample = split[place]
        height, width = (max(side - size, 0) for side in samples.size(sample))
        if foreground:  # otherwise no number is drawn, so that crops are those of runs without this setting
            present = classes[place][classes[place] > 0]
            if rng.random() < foreground and present.size:
                label = sample["label"]
                pixels = np.flatnonzero(label == rng.choice(present))
                row, column = divmod(int(rng.choice(pixels)), label.shape[1])
                row, column = np.clip((row - size // 2, column - size // 2), 0, (height, width)).tolist()
                return row, column
        return int(rng.integers(height + 1)), int(rng.integers(width + 1))

    return corner


def _crop(sample: Sample, place: int, size: int, corner: tuple[int, int]) -> Batch:
    """Cuts a square from one sample, padded where the sample is smaller."""
    top, left = corner
    image, label = samples.window(sample, np.s_[top : top + size, left : left + size])
    if label.shape == (size, size):  # the batch will copy it
        return {"image": image, "label": label, "index": np.array(place, np.int32)}
    batch = blank(1, size, size, image.shape[-1])
    _put(batch, 0, place, image, label)
    return {name: array[0] for name, array in batch.items()}


def eval_batches(split: Split, *, batch_size: int, multiple: int = 32) -> Iterator[Batch]:
    """Yields every image of a split once, whole and in order, in batches of one shape.

    Args:
      split, batch_size: the samples and the rows of a batch; the last one is filled up with blank images.
      multiple: height and width of a batch are the split's largest, rounded up to a multiple of this.
    Returns: an iterator of image (batch_size, H, W, C) float32 and label (batch_size, H, W) int32, padded at
      the right and bottom with zeros and IGNORE, and index (batch_size,) int32, the places in `split`, -1 for
      blank images.
    """
    height, width = frame(split, multiple)
    for first in range(0, len(split), batch_size):
        batch = blank(batch_size, height, width, split[first]["image"].shape[-1])
        for row, sample in enumerate(split[first : first + batch_size]):
            _put(batch, row, first + row, sample["image"], sample["label"])
        yield batch


def frame(split: Split, multiple: int = 32) -> tuple[int, int]:
    """Returns the (H, W) in pixels that holds every image of a split, each rounded up to a multiple."""
    sizes = np.array([samples.size(sample) for sample in split], int).reshape(-1, 2)
    height, width = (-(-sizes.max(0, initial=1) // multiple) * multiple).tolist()
    return height, width


def blank(rows: int, height: int, width: int, channels: int) -> Batch:
    """Makes a batch of black images that IGNORE covers, with the dtypes of all batches."""
    return {
        "image": np.zeros((rows, height, width, channels), np.float32),
        "label": np.full((rows, height, width), IGNORE, np.int32),
        "index": np.full(rows, -1, np.int32),
    }


def _put(batch: Batch, row: int, place: int, image: np.ndarray, label: np.ndarray) -> None:
    """Writes one sample into the top left of a row."""
    height, width = label.shape
    batch["image"][row, :height, :width] = image
    batch["label"][row, :height, :width] = label
    batch["index"][row] = place
