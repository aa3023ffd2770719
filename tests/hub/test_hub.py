"""Networks are pushed and pulled whole, checked, and with a card that says what is known and nothing else."""

import hashlib
import inspect
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml
from flax import nnx
from PIL import Image

import flaxunet
from flaxunet.__main__ import main
from flaxunet.cli.pull import Pull
from flaxunet.hub import client as hub
from flaxunet.hub import facts, repository
from flaxunet.io import images
from flaxunet.models.spec import Spec
from flaxunet.prediction.predictor import Predictor
from flaxunet.weights import store
from flaxunet.weights.store import CONFIG, WEIGHTS, StoreError
from tests.architecture.test_imports import importers
from tests.support.networks import fill, network, shallow

CLASSES = ["background", "gray matter", "white | matter"]
SECRET = "/home/somebody/secret"


@pytest.fixture(autouse=True)
def _small_networks():
    with shallow():
        yield


def tiny(classes=3, **options):
    return network("unet", "shallow", in_channels=1, classes=classes, **options)


def make_run(folder, *, test=True, pictures=("predictions.png", "validation.png")):
    """What a run leaves, without its checkpoints."""
    source = {"run": folder.name, "classes": CLASSES, "best_step": 40, "test_dice": 0.75}
    if not test:
        del source["test_dice"]
    flaxunet.save(tiny(), folder / "model", source=source)
    settings = {
        "steps": 60,
        "loss": "dice+ce",
        "class_weights": [1.0, 2.0, 0.5],
        "remat": False,
        "data": SECRET,
    }
    content = {
        "config": {**settings, "out": SECRET, "encoder_weights": SECRET, "learning_rate": 0.001},
        "model": {"class_names": CLASSES},
        "begins": {"folder": f"{SECRET}/resnet34", "sha256": "0" * 64},
        "data": {"name": "Set *one*", "train": ["patient-17"] * 5, "validation": ["b"], "test": ["c", "d"]},
    }
    (folder / "config.json").write_text(json.dumps(content))
    rows = [
        {"step": step, "val_dice": dice, "val_iou": dice / 2, "val_dice_gray_matter": dice + 0.1}
        for step, dice in ((20, 0.5), (40, 0.7), (60, 0.6))
    ]
    if test:
        each = {"test_dice_gray_matter": 0.875, "test_dice_white_|_matter": 0.625}
        rows.append({"step": 60, "best_step": 40, "test_dice": 0.75, "test_iou": None, **each})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 8')
    for name in pictures:
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / name)
    return folder


def card_of(folder):
    """The YAML and the prose."""
    _, front, prose = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), prose


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_pulled_gives_the_same_numbers_bit_for_bit(tmp_path):
    run = make_run(tmp_path / "run")
    repository.push(run, str(tmp_path / "repo"))
    repository.pull(f"file://{tmp_path / 'repo'}", tmp_path / "deep" / "er" / "got")
    x = np.random.default_rng(0).random((2, 19, 33, 1), np.float32)
    logits = nnx.jit(lambda model: model(x))
    here, there = (logits(flaxunet.load(at)) for at in (run / "model", tmp_path / "deep" / "er" / "got"))
    np.testing.assert_array_equal(np.asarray(here), np.asarray(there))
    assert left_in(tmp_path / "deep" / "er") == ["got"]
    assert left_in(tmp_path / "deep" / "er" / "got") == ["README.md", CONFIG, WEIGHTS, "predictions.png"]


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
    assert "began with the weights resnet34" in prose
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


def test_no_folder_and_no_sample_of_the_user_is_told(tmp_path):
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"))
    for name in ("README.md", CONFIG):
        text = (tmp_path / "repo" / name).read_text()
        assert "somebody" not in text
        assert "patient-17" not in text
        assert str(tmp_path) not in text


def test_of_what_a_user_has_noted_only_what_is_known_becomes_public(tmp_path):
    known = {"classes": CLASSES, "fit": "resize", "size": 64, "axis": "axial", "best_step": 40}
    known["colors"] = [[250, 10, 20], [0, 90, 240]]
    noted = {
        "run": f"{SECRET}/night",
        "data": f"{SECRET}/patients/",
        "begins": r"C:\Users\somebody\resnet34",
        "images": {"train": 5, "from": SECRET},
        "settings": {"loss": "ce", "out": SECRET},
        "scores": {"split": "test", "dice": 0.5, "of": SECRET},
        "notes": SECRET,
    }
    flaxunet.save(tiny(), tmp_path / "net", source=known | noted)
    repository.push(tmp_path / "net", str(tmp_path / "repo"))
    assert json.loads((tmp_path / "repo" / CONFIG).read_text())["source"] == {
        **known,
        "run": "night",
        "data": "patients",
        "begins": "resnet34",
        "images": {"train": 5},
        "settings": {"loss": "ce"},
        "scores": {"split": "test", "dice": 0.5, "iou": None, "classes": {}},
    }
    prose = card_of(tmp_path / "repo")[1]
    assert "Trained on patients, with 5 images" in prose
    assert "axial slices of volumes, scaled from the smallest value" in prose
    for name in ("README.md", CONFIG):
        assert "somebody" not in (tmp_path / "repo" / name).read_text()


def test_what_was_pulled_is_pushed_with_the_same_card(tmp_path):
    run = make_run(tmp_path / "run")
    repository.push(run, str(tmp_path / "one" / "repo"), picture=False)
    repository.pull(str(tmp_path / "one" / "repo"), tmp_path / "got")
    repository.push(tmp_path / "got", str(tmp_path / "two" / "repo"))
    for name in ("README.md", CONFIG, WEIGHTS):
        one, two = (tmp_path / at / "repo" / name for at in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert not (tmp_path / "one" / "repo" / "predictions.png").exists()


@pytest.mark.parametrize("names", [{"source": None}, {"source": {"classes": CLASSES}}])
def test_a_network_without_a_run_has_a_true_card(tmp_path, names):
    flaxunet.save(tiny(), tmp_path / "net", **names)
    repository.push(tmp_path / "net", str(tmp_path / "repo"))
    front, prose = card_of(tmp_path / "repo")
    assert "model-index" not in front
    assert "license" not in front
    assert "![" not in prose
    assert "No scores are known" in prose
    assert "What it was trained on is not known." in prose
    assert "With which settings it was trained is not known." in prose
    assert ("gray matter" if names["source"] else "| 1 | class 1 |") in prose
    assert left_in(tmp_path / "repo") == ["README.md", CONFIG, WEIGHTS]


def test_one_sigmoid_channel_is_a_foreground(tmp_path):
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


def test_without_a_test_the_validation_of_these_weights_counts(tmp_path):
    repository.push(make_run(tmp_path / "run", test=False), str(tmp_path / "repo"))
    front, prose = card_of(tmp_path / "repo")
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["split"] == "validation"
    assert result["metrics"][0]["value"] == 0.7
    assert "expect less on other images" in prose
    assert "![Predictions](validation.png)" in prose


def test_a_resumed_run_keeps_the_score_of_the_network_it_has(tmp_path):
    run = make_run(tmp_path / "run")
    rows = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(rows[:3]) + "\n")  # the row of its test is gone
    scores = facts.read(run)[1].scores
    assert (scores.split, scores.dice, scores.classes) == ("test", 0.75, {})


def test_a_run_that_is_not_done_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "model")
    (run / "checkpoints").mkdir()
    with pytest.raises(
        StoreError, match=r"run is a run that has not stored its best network in model/ yet; expected one"
    ):
        repository.push(run, str(tmp_path / "repo"))
    assert left_in(tmp_path) == ["run"]


def test_the_code_of_the_card_works(tmp_path, monkeypatch):
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"))
    Image.fromarray(np.arange(0, 250, 2, np.uint8).reshape(5, 25)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", card_of(tmp_path / "repo")[1], re.DOTALL)
    exec(code, {})
    probabilities = Predictor.load(["run"])(images.read_image("image.png"))
    np.testing.assert_array_equal(images.read_mask("mask.png"), probabilities.argmax(-1))
    assert len(code.splitlines()) <= 5  # an import, a space, and three lines


# What pull refuses. Each breaks a repository in a way of its own.
def flip_a_bit(repo):
    content = bytearray((repo / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (repo / WEIGHTS).write_bytes(content)


def change(repo, **values):
    content = json.loads((repo / CONFIG).read_text())
    (repo / CONFIG).write_text(json.dumps(content | values))


BROKEN = {
    "a flipped bit": (flip_a_bit, "is damaged: its sha256 is not the one in config.json"),
    "another format": (lambda repo: change(repo, format=2), "is of format 2; expected 1"),
    "another network": (
        lambda repo: change(repo, model={"arch": "unet", "encoder": "plain", "in_channels": 2, "classes": 3}),
        "is not unet on plain",
    ),
    "a foreign config": (
        lambda repo: (repo / CONFIG).write_text('{"model_type": "bert"}'),
        "does not describe",
    ),
    "no weights": (lambda repo: (repo / WEIGHTS).unlink(), f"holds no {WEIGHTS}"),
    "no config": (lambda repo: (repo / CONFIG).unlink(), f"holds no {CONFIG}"),
    "odd classes": (
        lambda repo: change(repo, source={"classes": 3}),
        "its classes are 3; accepted are 3 names",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path, how, capsys):
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"))
    BROKEN[how][0](tmp_path / "repo")
    assert main(["pull", str(tmp_path / "repo"), "--out", str(tmp_path / "new" / "got")]) == 2
    out, told = capsys.readouterr()
    assert told.startswith(f"error: {tmp_path / 'repo'}")  # and not the place where it was looked at
    assert BROKEN[how][1] in told
    assert told.count("\n") == 1
    assert out == ""
    assert left_in(tmp_path / "new") == []


def test_strange_notes_of_others_are_no_facts(tmp_path):
    repository.push(make_run(tmp_path / "run"), str(tmp_path / "repo"))
    strange = {
        "scores": [1],
        "images": {"train": "many", "test": -1},
        "settings": {"loss": {"a": 1}},
        "data": 7,
    }
    change(tmp_path / "repo", source=strange | {"best_step": True, "begins": []}, versions=3)
    known = repository.pull(str(tmp_path / "repo"), tmp_path / "got")
    assert (known.scores, known.images, known.settings, known.data, known.step) == (None, {}, {}, None, None)
    repository.push(tmp_path / "got", str(tmp_path / "again"))
    assert "No scores are known" in card_of(tmp_path / "again")[1]


def test_an_existing_folder_stays_as_it_is(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    repository.push(run, str(tmp_path / "repo"))
    (tmp_path / "mine").mkdir()
    for words in (
        ("pull", str(tmp_path / "repo"), "--out", str(tmp_path / "mine")),
        ("push", str(run), str(tmp_path / "mine")),
    ):
        assert main(words) == 2
        assert capsys.readouterr().err == f"error: {tmp_path / 'mine'} exists; accepted is a new folder\n"
    assert left_in(tmp_path / "mine") == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        repository.push(run, str(tmp_path / "new" / "repo"))
    assert left_in(tmp_path / "new") == []


@pytest.mark.parametrize(
    "repo", ["name", "a/b/c", "https://x.y/a/b", "a b/c", "", "file://elsewhere/a", "a/-b"]
)
def test_what_is_no_repository_is_refused(repo):
    with pytest.raises(StoreError, match="is no repository; accepted are OWNER/NAME"):
        repository.place(repo)


def test_where_a_repository_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for repo, folder in (
        ("./a", "a"),
        ("../a", "../a"),
        ("/a/b", "/a/b"),
        ("file:///a%20b", "/a b"),
        ("~/a", "/home/me/a"),
    ):
        assert str(repository.place(repo).folder) == folder
    assert repository.place("owner/name.v1").folder is None


def test_a_license_is_an_identifier(tmp_path):
    with pytest.raises(StoreError, match="--license is 'A B'; accepted is an identifier"):
        repository.push(tmp_path, str(tmp_path / "repo"), license="A B")


def test_only_one_file_speaks_with_the_hub():
    assert importers("huggingface_hub") == {"flaxunet/hub/client.py"}


# The hub. Its library is replaced where its documentation says one calls it.
class Hub:
    """Keeps what is uploaded, and gives it back."""

    def __init__(self, tmp_path, monkeypatch):
        import huggingface_hub

        self.calls, self.folder = [], tmp_path / "hub"
        for name in ("create_repo", "upload_folder", "snapshot_download"):
            real = getattr(huggingface_hub, name)
            monkeypatch.setattr(huggingface_hub, name, self.checked(name, inspect.signature(real)))

    def checked(self, name, signature):
        """A call that the installed library would not take is an error here as well."""

        def call(*args, **options):
            given = signature.bind(*args, **options).arguments
            self.calls.append((name, given))
            return getattr(self, name)(**given)

        return call

    def create_repo(self, repo_id, **_):
        return f"https://hub/{repo_id}"

    def upload_folder(self, folder_path, **_):
        shutil.copytree(folder_path, self.folder)

    def snapshot_download(self, local_dir, allow_patterns, **_):
        local_dir.joinpath(".cache").mkdir(exist_ok=True)
        for name in allow_patterns:
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, local_dir / name)


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    return Hub(tmp_path, monkeypatch)


def test_push_and_pull_by_the_hub(tmp_path, fake_hub, capsys):
    run = make_run(tmp_path / "run")
    assert main(["push", str(run), "owner/name", "--private", "--license", "mit"]) == 0
    assert (
        capsys.readouterr().out
        == "https://hub/owner/name\npredictions.png is part of it: it shows images of Set *one*\n"
    )
    (_, created), (_, uploaded) = fake_hub.calls
    assert created == {"repo_id": "owner/name", "repo_type": "model", "private": True, "exist_ok": True}
    assert uploaded["repo_id"] == "owner/name"
    assert set(uploaded["delete_patterns"]) == {"predictions.png", "validation.png"}
    assert "python -m flaxunet pull owner/name --out name" in card_of(fake_hub.folder)[1]
    (fake_hub.folder / "evil.py").write_text("raise SystemExit")

    assert main(["pull", "owner/name", "--out", str(tmp_path / "got"), "--revision", "v1"]) == 0
    assert "owner" not in capsys.readouterr().err
    asked = [given for name, given in fake_hub.calls if name == "snapshot_download"]
    assert [given["allow_patterns"][0] for given in asked] == [CONFIG, CONFIG]
    assert len(asked[0]["allow_patterns"]) == 1
    assert {given["revision"] for given in asked} == {"v1"}
    assert left_in(tmp_path / "got") == ["README.md", CONFIG, WEIGHTS, "predictions.png"]


def test_what_is_no_network_of_ours_is_refused_before_its_weights_are_fetched(tmp_path, fake_hub):
    fake_hub.folder.mkdir()
    (fake_hub.folder / CONFIG).write_text('{"model_type": "bert"}')
    with pytest.raises(StoreError, match=r"^owner/name/config.json does not describe a network"):
        repository.pull("owner/name", tmp_path / "got")
    assert len(fake_hub.calls) == 1
    assert not (tmp_path / "got").exists()


@pytest.fixture
def answering(monkeypatch):
    """A function that makes the hub a server on this machine that answers everything with a code."""
    constants = pytest.importorskip("huggingface_hub.constants")
    servers = []

    def start(code, **headers):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(code)
                for name, value in {**headers, "content-length": "0"}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            do_HEAD = do_POST = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        point(f"http://127.0.0.1:{servers[-1].server_port}")

    def point(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.hf_api.api.endpoint", address
        )  # of create_repo and upload_folder

    start.point = point
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("code", "headers", "told"),
    [
        (401, {}, "does not exist, or the hub does not know you (401)"),
        (401, {"X_Error_Code": "RepoNotFound"}, "does not exist, or the hub does not know you (401)"),
        (403, {}, "is not yours to read or write with this token (403)"),
        (403, {"X_Error_Code": "GatedRepo"}, "is shown to those only whom its owner lets in"),
        (404, {}, "does not exist, or is private (404)"),
        (404, {"X_Error_Code": "RepoNotFound"}, "does not exist, or is private (404)"),
        (404, {"X_Error_Code": "RevisionNotFound"}, "has no such revision"),
    ],
)
def test_the_hubs_real_library_is_told_no(tmp_path, answering, code, headers, told, capsys):
    answering(code, **headers)
    assert main(["pull", "owner/name", "--out", str(tmp_path / "got")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: owner/name {told}")
    assert said.count("\n") == 1
    assert left_in(tmp_path) == []


def test_pushing_without_a_token(tmp_path, answering, capsys):
    run = make_run(tmp_path / "run")
    answering(401)
    assert main(["push", str(run), "owner/name"]) == 2
    assert "log in with `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err


def test_without_a_network_one_line_says_so(tmp_path, answering, capsys):
    answering.point("http://127.0.0.1:9")
    assert main(["pull", "owner/name", "--out", str(tmp_path / "got")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: owner/name cannot be reached: ")
    assert "refused" in said
    assert said.count("\n") == 1


def test_without_the_library_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(hub.HubError, match=r"accepted is after pip install 'flaxunet\[hub\]'"):
        Pull("owner/name", str(tmp_path / "got")).run()
