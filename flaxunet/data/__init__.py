"""A dataset of any known layout enters; its samples leave, not read yet, and all that is wrong with it."""

from flaxunet.data.detect import LAYOUTS, find
from flaxunet.data.record import MAX_LISTED, DataError, Listing, Record
from flaxunet.data.split import split_samples

__all__ = ["LAYOUTS", "MAX_LISTED", "DataError", "Listing", "Record", "find", "split_samples"]
