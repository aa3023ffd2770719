"""`inspect` prints and writes the numbers of the files; a mistake is one line."""

import zipfile
from pathlib import Path

import pytest

from flaxunet.__main__ import main
from tests.support import written
from tests.support.datasets import pattern, write_pair, write_pairs
from tests.support.inspected import inspect_command

NUCLEI = Path(__file__).parents[3] / "shared" / "data" / "nuclei_mini.zip"


def test_numbers_are_those_of_the_files(roots, capsys):
    page, content = inspect_command(capsys, roots["splits"])
    masks = [written.truth(number)[1] > 0 for number in range(written.COUNT)]
    inside = int(sum(mask.sum() for mask in masks))
    assert content["images"] == {
        "sizes": {"20 x 24": written.COUNT},
        "types": {"uint8": written.COUNT},
        "channels": {"1": written.COUNT},
    }
    assert content["masks"]["values"] == {"0": written.COUNT * 480 - inside, "1": inside}
    assert content["masks"]["labels"][1] == {
        "value": 1, "name": "foreground", "pixels": inside, "masks": written.COUNT
    }  # fmt: skip
    assert [content["splits"][name]["samples"] for name in ("train", "validation", "test")] == [8, 1, 1]
    assert f"{inside:,}" in page
    _, content = inspect_command(capsys, roots["dsb2018"])
    assert content["masks"]["objects"] == sum(len(written.boxes(number)) for number in range(written.COUNT))


def test_equal_warnings_are_one_line_with_their_number(tmp_path, capsys):
    for number in range(12):
        write_pair(tmp_path / "data", f"n{number:02}", *pattern(number, 20 + number % 2, 40))
    page, content = inspect_command(capsys, tmp_path / "data")
    assert len(content["findings"]) == 12  # the file has them all
    assert "12 warnings" in page
    (line,) = [line for line in page.splitlines() if "fewer than 32 pixels a side" in line]
    assert "n00.png" in line
    assert "and 9 more" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere: no such file or folder"),
        (["DATA", "--layout", "voc"], "error: unknown layout 'voc'; expected one of folders"),
        (["DATA", "--target", "edges"], "error: unknown target 'edges'; expected one of classes"),
        (["DATA", "--axis", "up"], "error: unknown axis 'up'; expected one of"),
        (["DATA", "--group", "patient"], "error: DATA: --group is 'patient'; expected a column"),
        (["DATA", "--workers", "0"], "error: --workers is 0; expected an integer >= 1"),
    ],
)
def test_a_mistake_is_one_line(roots, arguments, message, capsys, tmp_path):
    given = [str(roots["folders"]) if word == "DATA" else word for word in arguments]
    assert main(["inspect", *given, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(message.replace("DATA", str(roots["folders"])))
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_cannot_be_trained_on_ends_with_1(tmp_path, capsys):
    root = write_pairs(tmp_path / "data", 6)
    (root / "masks" / "n03.png").unlink()
    page, content = inspect_command(capsys, root, code=1)
    assert "n03.png: no mask of this name" in page
    assert not content["usable"]


@pytest.mark.long
@pytest.mark.skipif(not NUCLEI.is_file(), reason="no ../shared/data/nuclei_mini.zip beside the project")
def test_real_nuclei_are_told_as_they_are(tmp_path, capsys):
    with zipfile.ZipFile(NUCLEI) as archive:
        archive.extractall(tmp_path / "nuclei")
    _, content = inspect_command(capsys, tmp_path / "nuclei")
    assert content["command"].endswith(" --target foreground")
    assert content["images"]["sizes"] == {"256 x 256": 48, "256 x 320": 12}
    assert content["images"]["channels"] == {"1": 48, "3": 12}
    assert content["masks"]["objects"] == 2223  # counted apart, with np.unique over the files
    assert [label["pixels"] for label in content["masks"]["labels"]] == [3656763, 472005]
    assert not content["findings"]
