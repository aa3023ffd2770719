"""The card says what is known of a network, and nothing else."""

import hashlib
import re

import numpy as np
import pytest
from PIL import Image

import flaxunet
from flaxunet.hub import facts, repository
from flaxunet.io import images
from flaxunet.models.spec import Spec
from flaxunet.prediction.predictor import Predictor
from flaxunet.weights import store
from flaxunet.weights.store import CONFIG, WEIGHTS
from tests.support.networks import fill
from tests.support.stored_run import CLASSES, card_of, left_in, make_run, tiny


def test_the_card_says_what_is_known(tmp_path):
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"), license="apache-2.0")
    front, prose = card_of(tmp_path / "repo")
    assert front["license"] == "apache-2.0"
    assert (front["library_name"], front["pipeline_tag"]) == ("flaxunet", "image-segmentation")
    assert {"unet", "jax", "biomedical"} <= set(front["tags"])
    (index,) = front["model-index"]
    (result,) = index["results"]
    assert result["dataset"] == {"name": "Set *one*", "type": "set-one", "split": "test"}
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values == {
        "Dice, mean of foreground classes": 0.75,
        "Dice, gray matter": 0.875,
        "Dice, white | matter": 0.625,
    }
    assert r"| 2 | white \| matter | 0.625 |" in prose
    assert r"Trained on Set \*one\*, with 5 images for training, 1 image for validation and 2 images" in prose
    assert "Dice on 2 test images" in prose
    assert "those of step 40" in prose
    assert "started with the weights resnet34" in prose
    assert "| class weights | 1.0 2.0 0.5 |" in prose
    assert "![Predictions](predictions.png)" in prose
    digest = hashlib.sha256((tmp_path / "repo" / WEIGHTS).read_bytes()).hexdigest()
    assert digest in prose
    parameters = facts.read(tmp_path / "repo")[1].parameters
    trained = sum(
        x.size
        for path, x in store.read(tmp_path / "repo").tensors.items()
        if not path.endswith(("mean", "var"))
    )
    assert parameters == trained
    assert f"{trained:,} parameters" in prose


def test_the_hubs_own_library_reads_the_card(tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"), license="mit")
    data = huggingface_hub.ModelCard.load(tmp_path / "repo" / "README.md").data
    assert data.license == "mit"
    assert [one.metric_value for one in data.eval_results] == [0.75, 0.875, 0.625]
    assert {one.task_type for one in data.eval_results} == {"image-segmentation"}


def test_the_card_names_no_folder_and_no_sample(tmp_path):
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"))
    for name in ("README.md", CONFIG):
        text = (tmp_path / "repo" / name).read_text()
        assert "somebody" not in text
        assert "patient-17" not in text
        assert str(tmp_path) not in text


@pytest.mark.parametrize("names", [{"source": None}, {"source": {"classes": CLASSES}}])
def test_the_card_of_a_network_without_a_run_says_what_is_not_known(tmp_path, names):
    flaxunet.save(tiny(), tmp_path / "net", **names)
    repository.push(tmp_path / "net", str(tmp_path / "repo"))
    front, prose = card_of(tmp_path / "repo")
    assert "model-index" not in front
    assert "license" not in front
    assert "![" not in prose
    assert "No scores are known" in prose
    assert "The training data are not known." in prose
    assert "The settings of the training are not known." in prose
    assert ("gray matter" if names["source"] else "| 1 | class 1 |") in prose
    assert left_in(tmp_path / "repo") == ["README.md", CONFIG, WEIGHTS]


def test_one_sigmoid_channel_has_the_class_foreground(tmp_path):
    flaxunet.save(tiny(classes=1), tmp_path / "net")
    repository.push(tmp_path / "net", str(tmp_path / "repo"))
    assert "| 1 | foreground |" in card_of(tmp_path / "repo")[1]


def test_an_encoder_alone_is_no_segmenter(tmp_path):
    spec = Spec("resnet18", "resnet18", in_channels=1)
    encoder = fill(store.abstract(spec))
    flaxunet.save(encoder, tmp_path / "net", spec=spec)
    repository.push(tmp_path / "net", str(tmp_path / "repo"))
    front, prose = card_of(tmp_path / "repo")
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert "semantic-segmentation" not in front["tags"]
    assert "python -m train --encoder resnet18 --encoder-weights repo" in prose
    assert "Classes" not in prose


@pytest.mark.parametrize("pictures", [(), ("validation.png",)])
def test_a_missing_picture_is_not_shown(tmp_path, pictures):
    repository.push(make_run(tmp_path / "run", pictures=pictures), str(tmp_path / "repo"))
    assert "![" not in card_of(tmp_path / "repo")[1]
    assert left_in(tmp_path / "repo") == ["README.md", CONFIG, WEIGHTS]


def test_without_a_test_the_card_has_the_validation_scores(tmp_path):
    repository.push(make_run(tmp_path / "run", test=False), str(tmp_path / "repo"))
    front, prose = card_of(tmp_path / "repo")
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["split"] == "validation"
    assert result["metrics"][0]["value"] == 0.7
    assert "expect less on other images" in prose
    assert "![Predictions](validation.png)" in prose


def test_the_code_of_the_card_works(tmp_path, monkeypatch):
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"))
    Image.fromarray(np.arange(0, 250, 2, np.uint8).reshape(5, 25)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", card_of(tmp_path / "repo")[1], re.DOTALL)
    exec(code, {})
    probabilities = Predictor.load(["run"])(images.read_image("image.png"))
    np.testing.assert_array_equal(images.read_mask("mask.png"), probabilities.argmax(-1))
    assert len(code.splitlines()) <= 5  # an import, a blank line, and three lines
