"""No group is in two splits, whether they are those of the layout, cut by a seed or folds."""

import pytest

from flaxunet.data import split_samples
from tests.support import written
from tests.support.listings import list_dataset


def groups(splits):
    return [{record.group for record in records} for records in splits.values()]


@pytest.mark.parametrize("layout", ["csv", "nifti"])
@pytest.mark.parametrize("fold", [(1, 1), (2, 3)])
def test_no_group_is_in_two_splits(roots, layout, fold):
    problems = []
    splits = split_samples(list_dataset(roots[layout]), seed=0, fold=fold, problems=problems)
    train, validation, test = groups(splits)
    assert not problems
    assert len(train) + len(validation) + len(test) == written.PATIENTS == len(train | validation | test)
    assert sum(map(len, splits.values())) == written.COUNT
    assert all(splits.values())


def test_folds_hold_every_group_once_and_keep_the_test(roots):
    listing = list_dataset(roots["csv"])
    folds = [split_samples(listing, seed=0, fold=(number, 2)) for number in (1, 2)]
    assert folds[0]["test"] == folds[1]["test"] == split_samples(listing, seed=0)["test"]
    validation = [groups(fold)[1] for fold in folds]
    assert not validation[0] & validation[1]
    assert len(validation[0] | validation[1]) == written.PATIENTS - 1
    problems = []
    split_samples(listing, seed=0, fold=(1, 5), problems=problems)
    assert problems == [f"{listing.root}: 4 groups to fold; expected 5 or more with --fold 1/5"]


def test_a_group_in_two_given_splits_is_named(roots):
    problems = []
    split_samples(list_dataset(roots["splits"], group=r"n\d*([02468]|\d)"), seed=0, problems=problems)
    assert not problems
    split_samples(list_dataset(roots["splits"], group=r"(n)\d"), seed=0, problems=problems)
    assert len(problems) == 2
    assert "group n is in validation and, with" in problems[0]
    assert problems[0].endswith("in train; expected one split for a group")
