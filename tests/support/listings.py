"""Listings of the datasets that `tests.support.written` writes."""

import shutil
from pathlib import Path

from flaxunet.data import find


def list_dataset(root, **options):
    """The listing of a dataset without problems."""
    listing = find(root, **options)
    assert not listing.problems
    return listing


def problems_of(root, **options):
    """The problems of a listing."""
    return find(root, **options).problems


def copy_of(roots, layout, folder):
    """A copy of a dataset, to be damaged."""
    return Path(shutil.copytree(roots[layout], folder / layout))
