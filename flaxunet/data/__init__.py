"""Lists datasets of any known layout, and splits them; the pixels are read later, sample by sample."""

from flaxunet.data.detect import find
from flaxunet.data.layouts import LAYOUTS
from flaxunet.data.record import MAX_LISTED, DataError, Listing, Record
from flaxunet.data.split import split_samples

__all__ = ["LAYOUTS", "MAX_LISTED", "DataError", "Listing", "Record", "find", "split_samples"]
