"""Images are matched with masks by their names, in one set or in a set for each split."""

import shutil

from tests.support import written
from tests.support.listings import list_dataset, problems_of


def test_masks_beside_their_images_are_told_apart_by_suffix(tmp_path):
    written.suffixes(tmp_path)
    listing = list_dataset(tmp_path)
    assert listing.layout == "folders"
    assert [record.mask.name for record in listing.records][:2] == ["n0_mask.png", "n1_mask.png"]
    (tmp_path / "n3_mask.png").unlink()
    shutil.copy(tmp_path / "n4_mask.png", tmp_path / "n4_gt.png")
    shutil.copy(tmp_path / "n4_mask.png", tmp_path / "other_mask.png")
    assert [line.split(": ")[1] for line in problems_of(tmp_path)] == [
        "the same image as n4_gt.png; expected one mask per image",
        f"no mask of this name in {tmp_path}",
        f"no image of this name in {tmp_path}",
    ]


def test_splits_may_lie_below_images_and_masks(roots, tmp_path):
    for name in ("train", "val", "test"):
        for kind in ("images", "labels"):
            shutil.copytree(roots["splits"] / name / kind, tmp_path / kind / name)
    assert {record.name: record.split for record in list_dataset(tmp_path).records} == {
        record.name: record.split for record in list_dataset(roots["splits"]).records
    }
