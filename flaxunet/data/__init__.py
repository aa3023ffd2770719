"""A dataset of any known layout enters; its samples leave, not read yet, and all that is wrong with it."""

from flaxunet.data.detect import LAYOUTS, find
from flaxunet.data.record import LISTED, DataError, Found, Record
from flaxunet.data.split import divide

__all__ = ["LAYOUTS", "LISTED", "DataError", "Found", "Record", "divide", "find"]
