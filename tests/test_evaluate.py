"""`python -m flaxunet evaluate`: its numbers are those of the masks and networks that it is given."""

import csv
import json
import re

import nibabel
import numpy as np
import pytest

import flaxunet
from flaxunet import scores, surface
from flaxunet.__main__ import main
from flaxunet.images import read_image, read_mask, write_mask
from flaxunet.losses import IGNORE
from flaxunet.predictor import load
from flaxunet.store import leaves
from tests import written
from tests.browser import needs_browser, seen
from tests.networks import network, shallow
from tests.squares import make_data
from tests.test_dicom import STORED, dicom

HOSTILE = "<img src=x onerror=alert(1)>"


def evaluate(tmp_path, *words, code=0):
    """What scores.json and scores.csv say."""
    out = tmp_path / "evaluated"
    assert main(["evaluate", *map(str, words), "--out", str(out)]) == code
    if code:
        assert not out.exists()
        return None
    with (out / "scores.csv").open() as file:
        return json.loads((out / "scores.json").read_text()), list(csv.DictReader(file))


def refused(tmp_path, capsys, *words):
    """The lines of an error."""
    evaluate(tmp_path, *words, code=2)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    return said.removeprefix("error: ").splitlines()


def classes(root, count=6):
    """Images with masks of three classes, and predictions that are a little wrong."""
    rng = np.random.default_rng(0)
    truths, found = [], []
    for number in range(count):
        truth = np.kron(rng.integers(0, 3, (4, 5)), np.ones((5, 5), int))
        truth[:, -3:] = 0
        # The later, the worse.
        wrong = np.where(rng.random(truth.shape) < 0.05 * number, rng.integers(0, 3, truth.shape), truth)
        written.save(root / "data" / "images" / f"n{number}.png", (80 * truth + 20).astype(np.uint8))
        for folder, labels in (("data/masks", truth), ("found", wrong)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_mask(root / folder / f"n{number}.png", labels)
        truths.append(truth)
        found.append(wrong)
    (root / "data" / "class_names.txt").write_text("background\ncell\nwall\n")
    return root / "data", root / "found", truths, found


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two stored networks of two classes, and the names of their folders."""
    root = tmp_path_factory.mktemp("networks")
    model = network("unet", "shallow", in_channels=1)
    flaxunet.save(model, root / "one")
    bias = leaves(model)["heads.0.bias"]
    bias[...] = bias[...] - 1.5  # which finds less
    flaxunet.save(model, root / "other")
    with shallow():
        yield root / "one", root / "other"


def test_masks_are_scored_by_image_and_class(tmp_path, capsys):
    data, found, truths, predictions = classes(tmp_path)
    content, rows = evaluate(tmp_path, "--predictions", found, data, "--tolerance", "1.5", "--spacing", "2")
    said = capsys.readouterr().out
    assert [row["name"] for row in rows[::2]] == [f"n{number}" for number in range(6)]
    assert [row["class"] for row in rows[:2]] == ["cell", "wall"]
    expected = np.stack(
        [
            scores.score(truth, prediction, 3, spacing=(2, 2), tolerance=1.5)
            for truth, prediction in zip(truths, predictions, strict=True)
        ]
    )
    written_down = np.array([[float(row[score]) for score in scores.SCORES] for row in rows])
    np.testing.assert_allclose(written_down.reshape(6, 2, 7), expected, atol=1e-6)
    between = surface.distances(predictions[5] == 2, truths[5] == 2, (2, 2))
    assert float(rows[-1]["hd95"]) == pytest.approx(surface.hd(between), abs=1e-6)
    (model,) = content["models"]
    assert model["means"]["wall"]["dice"]["mean"] == pytest.approx(expected[:, 1, 0].mean())
    assert model["means"]["mean of classes"]["nsd"]["mean"] == pytest.approx(expected[:, :, 6].mean())
    assert model["confusion"] == sum(map(confusion, truths, predictions)).tolist()
    assert content["data"]["unit"] == "mm"
    assert content["data"]["split"] == "all"
    assert f"{expected[:, 0, 0].mean():.3f}" in said
    assert "lowest Dice  n5" in said
    assert all(len(line) <= 80 or "/" in line for line in said.splitlines())


def confusion(truth, prediction):
    return scores.confusion_matrix(truth, prediction, 3)


def test_a_network_is_scored_by_what_it_predicts(tmp_path, capsys, networks):
    data = make_data(tmp_path / "data", side=6)
    content, rows = evaluate(tmp_path, networks[0], data, "--split", "all")
    assert [row["class"] for row in rows] == ["foreground"] * 12
    predictor = load([networks[0]])
    total = np.zeros((2, 2), np.int64)
    for row in rows:
        image = read_image(data / "images" / f"{row['name']}.png")
        found = predictor.labels(predictor(image))
        counted = scores.confusion_matrix(read_mask(data / "masks" / f"{row['name']}.png"), found, 2)
        assert float(row["dice"]) == pytest.approx(scores.overlaps(counted)[1, 0], abs=1e-6)
        total += counted
    assert content["models"][0]["pooled"]["foreground"]["dice"] == scores.overlaps(total)[1, 0]
    assert content["data"]["target"] == "classes"
    assert "distances in pixels" in capsys.readouterr().out


def test_the_default_split_is_that_of_training(tmp_path, capsys, networks):
    from flaxunet import layouts

    data = make_data(tmp_path / "data", side=6)
    content, rows = evaluate(tmp_path, networks[0], data, "--seed", "3")
    expected = layouts.divide(layouts.find(data), seed=3)["test"]
    assert [row["name"] for row in rows] == [record.name for record in expected]
    assert content["data"]["cut_by_seed"]
    assert "cut by the seed" in capsys.readouterr().out


def test_two_networks_are_compared_on_the_same_images(tmp_path, capsys, networks):
    from scipy import stats

    data = make_data(tmp_path / "data", side=6)
    content, rows = evaluate(tmp_path, networks[0], data, "--split", "all", "--against", networks[1])
    dice = np.array([float(row["dice"]) for row in rows]).reshape(2, 12)
    found = content["differences_of_dice"]["foreground"]
    assert found["mean"] == pytest.approx((dice[0] - dice[1]).mean(), abs=1e-6)
    assert found["p"] == pytest.approx(stats.wilcoxon(dice[0], dice[1]).pvalue, rel=1e-3)
    assert found["low"] < found["mean"] < found["high"]
    assert {row["model"] for row in rows} == set(map(str, networks))
    content, rows = evaluate(tmp_path, networks[0], data, "--split", "all", "--against", networks[0])
    assert content["differences_of_dice"]["foreground"]["p"] == 1


def test_images_of_the_training_are_warned_of(tmp_path, capsys, networks):
    data = make_data(tmp_path / "data", side=6)
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").symlink_to(networks[0])
    splits = {"train": ["00", "01"], "validation": ["02"], "test": ["03"]}
    (run / "config.json").write_text(json.dumps({"config": {"data": str(data)}, "data": splits}))
    content, _ = evaluate(tmp_path, run, data, "--split", "all")
    (line,) = content["warnings"]
    assert line.startswith("3 of 12 samples were for training or validation")
    assert "warning  3 of 12" in capsys.readouterr().out
    assert evaluate(tmp_path, networks[0], data, "--split", "all")[0]["warnings"] == []


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_volumes_are_scored_whole_in_millimetres(tmp_path, axis):
    affine = np.array([[0, 0, 1.5, 0], [-0.7, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])
    written.nifti(tmp_path / "data", affine)
    tables = []
    for path in sorted((tmp_path / "data" / "labelsTr").iterdir()):
        stored = nibabel.load(path)
        truth = np.asarray(stored.dataobj)
        found = np.roll(truth, 2, axis=0)
        (tmp_path / "found").mkdir(exist_ok=True)
        # In another order of axes, with the affine that belongs to it.
        other = nibabel.as_closest_canonical(nibabel.Nifti1Image(found, affine))
        nibabel.save(other, tmp_path / "found" / path.name)
        tables.append(scores.score(truth, found, 2, spacing=(0.7, 3.0, 1.5)))
    content, rows = evaluate(tmp_path, "--predictions", tmp_path / "found", tmp_path / "data", "--axis", axis)
    assert [row["name"] for row in rows] == [f"v{number}" for number in range(5)]
    given = np.array([[float(row[score]) for score in scores.SCORES] for row in rows])
    np.testing.assert_allclose(given, np.concatenate(tables), atol=1e-6)
    assert (content["data"]["scored"], content["data"]["unit"]) == ("volumes", "mm")


def test_slices_can_be_scored_by_themselves_and_are_drawn_by_volume(tmp_path, networks):
    data = written.written("nifti", tmp_path / "data")
    content, rows = evaluate(tmp_path, networks[0], data, "--slices", "--split", "all")
    assert len(rows) == written.COUNT
    assert {row["group"] for row in rows} == {f"v{number}" for number in range(written.PATIENTS)}
    assert (content["data"]["scored"], content["data"]["groups"]) == ("images", written.PATIENTS)
    whole, _ = evaluate(tmp_path, networks[0], data, "--split", "all")
    assert whole["models"][0]["confusion"] == content["models"][0]["confusion"]


def test_spacing_of_dicom_is_taken(tmp_path):
    rows = ["image,mask"]
    (tmp_path / "data").mkdir()
    for number in range(2):
        path = dicom(tmp_path / "data" / f"i{number}.dcm", STORED, PixelSpacing=["0.5", "2.0"])
        mask = np.greater(STORED, np.median(STORED)).astype(np.uint8)
        written.save(tmp_path / "data" / f"m{number}.png", mask)
        written.save(tmp_path / "found" / f"i{number}.png", np.roll(mask, 1, axis=1))
        rows.append(f"{path.name},m{number}.png")
    (tmp_path / "data" / "pairs.csv").write_text("\n".join(rows))
    content, table = evaluate(tmp_path, "--predictions", tmp_path / "found", tmp_path / "data")
    assert content["data"]["unit"] == "mm"
    expected = scores.score(mask, np.roll(mask, 1, axis=1), 2, spacing=(0.5, 2.0))[0]
    np.testing.assert_allclose([float(table[0][score]) for score in scores.SCORES], expected, atol=1e-6)


@pytest.mark.parametrize("layout", ["dsb2018", "instances", "coco", "yolo"])
@pytest.mark.parametrize("numbered", [False, True])
def test_objects_are_counted(tmp_path, capsys, layout, numbered):
    data = written.written(layout, tmp_path / "data")
    total = scores.Objects(0, 0, 0)
    for number in range(written.COUNT):
        _, objects = written.truth(number)
        found = objects.astype(np.int32)
        found[objects == 1] = 0  # which leaves one or two, that do not touch
        written.save(
            tmp_path / "found" / f"n{number}.png", (found if numbered else 255 * (found > 0)).astype(np.uint8)
        )
        total += scores.match(objects, found)
    flags = {"instances": ["--layout", "instances"], "coco": ["--objects"], "yolo": ["--objects"]}
    content, rows = evaluate(tmp_path, "--predictions", tmp_path / "found", data, *flags.get(layout, []))
    counted = content["models"][0]["objects"]["pooled"]
    assert (counted["hits"], counted["extra"], counted["missed"]) == (15, 0, 10)
    assert counted["f1"] == total.f1 == 30 / 40
    assert counted["ap"] == 15 / 25
    of_objects = [row for row in rows if row["class"] == "objects"]
    assert [int(row["object_missed"]) for row in of_objects] == [1] * written.COUNT
    assert "15 matched, 0 extra, 10 missed" in capsys.readouterr().out


def test_a_network_of_insides_and_boundaries_is_scored_by_objects(tmp_path):
    data = written.written("instances", tmp_path / "data")
    names = ["background", "inside", "boundary"]
    with shallow():
        model = network("unet", "shallow", in_channels=1, classes=3)
        flaxunet.save(model, tmp_path / "model", source={"classes": names})
        content, rows = evaluate(
            tmp_path, tmp_path / "model", data, "--layout", "instances", "--split", "all"
        )
    assert content["data"]["target"] == "3class"
    assert [row["class"] for row in rows[:3]] == ["inside", "boundary", "objects"]
    assert content["models"][0]["objects"]["pooled"]["missed"] > 0


def test_ignored_pixels_count_for_nothing(tmp_path):
    data, found, truths, predictions = classes(tmp_path)
    truths[2][:10] = 200
    write_mask(data / "masks" / "n2.png", truths[2])
    content, rows = evaluate(tmp_path, "--predictions", found, data, "--ignore-label", "200")
    expected = scores.score(np.where(truths[2] == 200, IGNORE, truths[2]), predictions[2], 3)
    given = [float(rows[4 + label][score]) for label in range(2) for score in scores.OVERLAPS]
    np.testing.assert_allclose(given, expected[:, :4].reshape(-1), atol=1e-6)
    assert np.sum(content["models"][0]["confusion"]) == 6 * truths[0].size - 10 * truths[2].shape[1]


def test_what_is_empty_is_left_out_or_costs_the_diagonal(tmp_path):
    data, found, _, _ = classes(tmp_path, count=3)
    shape = read_mask(data / "masks" / "n0.png").shape
    blank, spot = np.zeros((2, *shape), int)
    spot[2, 3] = 1
    for number, (truth, prediction) in enumerate(((blank, blank), (spot, blank), (blank, spot))):
        write_mask(data / "masks" / f"n{number}.png", truth)
        write_mask(found / f"n{number}.png", prediction)
    content, rows = evaluate(tmp_path, "--predictions", found, data)
    diagonal = f"{np.hypot(shape[0] - 1, shape[1] - 1):.6f}"
    zero = "0.000000"
    cells = [[row[score] for score in scores.SCORES] for row in rows if row["class"] == "cell"]
    assert cells == [
        [""] * 7,
        [zero, zero, "", zero, diagonal, diagonal, zero],
        [zero, zero, zero, "", diagonal, diagonal, zero],
    ]
    means = content["models"][0]["means"]
    assert (means["cell"]["dice"]["images"], means["cell"]["dice"]["mean"]) == (2, 0)
    assert (means["wall"]["dice"]["images"], means["wall"]["dice"]["mean"]) == (0, None)


def test_all_that_does_not_fit_is_listed_by_file(tmp_path, capsys, networks):
    data, found, truths, _ = classes(tmp_path)
    (found / "n0.png").unlink()
    (found / "n1.png").write_bytes(b"no picture")
    write_mask(found / "n2.png", truths[2][:-1])
    write_mask(found / "n3.png", truths[3] + 1)
    write_mask(data / "masks" / "n4.png", truths[4] + 3)
    (data / "images" / "n5.png").write_bytes(b"neither")
    said = refused(tmp_path, capsys, "--predictions", found, data)
    for line, place, words in zip(
        sorted(said),
        (
            data / "images" / "n5.png",
            data / "masks" / "n4.png",
            found / "n1.png",
            found / "n2.png",
            found / "n3.png",
            f"{found}: none of its masks is called n0",
        ),
        (
            "neither PNG",
            "labels 3, 4, 5; accepted are 0..2",
            "neither PNG",
            "equal sizes",
            "accepted are 0..2",
            "",
        ),
        strict=True,
    ):
        assert line.startswith(str(place)), said
        assert words in line
    (line, *_) = refused(
        tmp_path, capsys, networks[0], written.written("folders", tmp_path / "more"), "--split", "x"
    )
    assert line == "--split is 'x'; accepted are train, val, test and all"


def test_labels_beyond_the_classes_of_a_network_are_refused_by_file(tmp_path, capsys, networks):
    data, _, _, _ = classes(tmp_path)
    said = refused(tmp_path, capsys, networks[0], data, "--split", "all")
    assert len(said) == 6
    assert all("labels 2; accepted are 0..1" in line for line in said)
    written.save(data / "images" / "n0.png", np.zeros((20, 25, 4), np.uint8))
    said = refused(tmp_path, capsys, networks[0], data, "--split", "all")
    assert f"{data / 'images' / 'n0.png'}: 3 channels; accepted are 1" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing: accepted are MODEL ... DATA"),
        (("DATA",), "accepted are MODEL ... DATA, or --predictions DIR and DATA"),
        (("MODEL", "DATA", "--predictions", "FOUND"), "accepted are MODEL ... DATA"),
        (("DATA", "DATA"), "holds no config.json"),
        (("DATA", "--predictions", "nowhere"), "nowhere: no such folder"),
        (("MODEL", "nowhere"), "nowhere: no such file or folder"),
        (("MODEL", "DATA", "--tolerance", "-1"), "--tolerance is -1.0"),
        (("MODEL", "DATA", "--surface", "skin"), "accepted are border, pieces"),
        (("MODEL", "DATA", "--spacing", "1", "2", "3"), "accepted are one number > 0, or 2"),
        (("MODEL", "DATA", "--spacing", "0"), "accepted are one number > 0"),
        (("MODEL", "DATA", "--target", "3class"), "accepted are equal numbers"),
        (("MODEL", "DATA", "--target", "x"), "unknown target 'x'"),
        (("MODEL", "DATA", "--layout", "x"), "unknown layout 'x'"),
        (("MODEL", "DATA", "--workers", "0"), "--workers is 0"),
        (("MODEL", "DATA", "--against", "nowhere"), "nowhere: no such folder"),
        (("MODEL", "DATA", "--split", "val", "--seed", "-1"), "--seed is -1"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, networks, words, said):
    data = make_data(tmp_path / "data")
    places = {"DATA": data, "MODEL": networks[0], "FOUND": data / "masks"}
    (line,) = refused(tmp_path, capsys, *(places.get(word, word) for word in words))
    assert said in line


def test_networks_of_other_classes_are_not_compared(tmp_path, capsys, networks):
    with shallow():
        model = network("unet", "shallow", in_channels=1, classes=3)
        flaxunet.save(model, tmp_path / "three")
        words = (networks[0], make_data(tmp_path / "data"), "--against", tmp_path / "three")
        (line,) = refused(tmp_path, capsys, *words)
    assert "accepted are networks of the same classes" in line


def page(tmp_path):
    """report.html of names that look like markup, compared and with objects."""
    data, found, _, _ = classes(tmp_path)
    (data / "class_names.txt").write_text(f"background\n{HOSTILE}\nwall\n")
    for folder in (data / "images", data / "masks", found):
        (folder / "n5.png").rename(folder / "<b>n5.png")
    evaluate(tmp_path, "--predictions", found, data, "--against", data / "masks", "--cases", "3")
    return (tmp_path / "evaluated" / "report.html").read_text()


def test_the_page_shows_the_worst_first_and_no_name_is_markup(tmp_path):
    source = page(tmp_path)
    assert HOSTILE not in source
    assert "<b>n5" not in source
    assert re.findall(r'alt="errors of (\S+), Dice', source) == ["&lt;b&gt;n5", "n4", "n3"]
    assert source.count("<img ") == 3 * 4
    assert not re.search(r"<script|<link|url\(|https?:", source)
    for heading in (
        "Class by class",
        "Compared",
        "Lowest Dice",
        "Every image",
        "How it is counted",
        "Settings",
    ):
        assert f"<h2>{heading}</h2>" in source


@needs_browser
def test_a_browser_shows_every_picture_and_nothing_sticks_out(tmp_path):
    count, loaded, shown, wide, sections = seen(tmp_path, page(tmp_path), width=360)
    assert count == loaded == shown == 12
    assert wide <= 360
    assert sections >= 8
