"""What the app makes of an image, and the page: looked at and used by a real browser, without a network."""

import asyncio
import base64
import contextlib
import importlib.util
import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

import flaxunet
from flaxunet.__main__ import main
from flaxunet.app import server, session, text
from flaxunet.app.session import Look
from flaxunet.hub.facts import Facts, Scores
from flaxunet.io import images
from flaxunet.labels import PALETTE
from flaxunet.models.spec import Spec
from flaxunet.prediction.predictor import Predictor
from flaxunet.weights import store
from tests.support import levels
from tests.support.browser import needs_browser
from tests.support.devtools import Browser
from tests.support.imports import ROOT, importers
from tests.support.networks import fill, network

CLASSES = ("background", "cell", "<b>vessel</b>")
LOOK = Look(PALETTE[:2], (True, True), 0.5, 0.5)


class Thirds:
    """A predictor by whom a class is a third of [0, 1]; or the probability is the pixel."""

    intensity, axis, colors = "dtype", None, PALETTE
    labels = staticmethod(Predictor.labels)

    def __init__(self, outputs=3):
        self.outputs = outputs

    def __call__(self, image):
        if image.shape[-1] != 1:
            raise ValueError(f"{image.shape[-1]} channels; accepted are 1")
        return image if self.outputs == 1 else np.eye(3, dtype=np.float32)[(image[..., 0] * 2.99).astype(int)]


def facts(classes=CLASSES, scores=None, data=None):
    spec = Spec("unet3plus", "resnet34", in_channels=1, classes=1 if len(classes) == 2 else len(classes))
    known = {"versions": {}, "settings": {}, "begins": None, "step": None, "source": {}, "picture": None}
    images = {"train": 1_200} if data else {}
    return Facts("run <i>", spec, classes, 5, "0" * 64, data=data, images=images, scores=scores, **known)


def write_gray(path, height=4, width=9):
    pixels = np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_prediction_is_counted_painted_and_kept(tmp_path):
    pixels = write_gray(tmp_path / "a.b.png")
    labels = (pixels / 255 * 2.99).astype(int)
    found = session.find(Thirds(), tmp_path / "a.b.png")
    assert (found.name, found.stem, found.pages) == ("a.b.png", "a.b", 1)
    counts = np.bincount(labels.ravel())
    assert session.areas(found, CLASSES, LOOK) == [
        (label, name, counts[label], counts[label] / 36) for label, name in enumerate(CLASSES)
    ]
    over, mask = session.paint(found, LOOK)
    for label, color in ((1, PALETTE[0]), (2, PALETTE[1])):
        np.testing.assert_array_equal(mask[labels == label], np.broadcast_to(color, (counts[label], 3)))
    expected = (255 * found.base[0, 0], 127.5 * found.base[-1, -1] + np.array(PALETTE[1]) / 2)
    np.testing.assert_allclose((over[0, 0], over[-1, -1]), expected, atol=0.51)
    (tmp_path / "kept.png").write_bytes(session.mask_png(found, LOOK))
    np.testing.assert_array_equal(images.read_mask(tmp_path / "kept.png"), labels)
    head, first, *_ = session.areas_csv(found, CLASSES, LOOK).splitlines()
    assert (head, first) == ("label,class,pixels,fraction", f"0,background,{counts[0]},{counts[0] / 36:.6f}")


def test_a_hidden_class_is_not_painted_and_yet_kept(tmp_path):
    pixels = write_gray(tmp_path / "a.png")
    labels = (pixels / 255 * 2.99).astype(int)
    look = Look(((1, 2, 3), (250, 0, 9)), (False, True), 1.0, 0.5)
    found = session.find(Thirds(), tmp_path / "a.png")
    over, mask = session.paint(found, look)
    assert not mask[labels == 1].any()
    np.testing.assert_array_equal(over[labels == 1], session.to_bytes(found.base)[labels == 1])
    assert set(map(tuple, mask[labels == 2])) == {(250, 0, 9)}
    with Image.open(io.BytesIO(session.mask_png(found, look))) as kept:
        assert kept.getpalette()[3:9] == [1, 2, 3, 250, 0, 9]
        np.testing.assert_array_equal(np.asarray(kept), labels)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_a_threshold_chooses_where_there_is_one_output(tmp_path, threshold):
    pixels = write_gray(tmp_path / "a.png")
    found = session.find(Thirds(outputs=1), tmp_path / "a.png")
    look = Look(PALETTE[:1], (True,), 0.5, threshold)
    wanted = Predictor.labels((pixels / np.float32(255))[..., None], threshold)
    np.testing.assert_array_equal(found.labels(threshold), wanted)
    assert session.areas(found, ("background", "cell"), look)[1][2] == wanted.sum()


def test_a_large_image_is_shown_smaller_and_kept_whole(tmp_path):
    pixels = write_gray(tmp_path / "a.png", 40, 2 * session.SIDE)
    found = session.find(Thirds(), tmp_path / "a.png")
    over, mask = session.paint(found, LOOK)
    assert over.shape == mask.shape == (20, session.SIDE, 3)
    kept = np.asarray(Image.open(io.BytesIO(session.mask_png(found, LOOK))))
    assert kept.shape == pixels.shape


def test_every_kind_of_stack_gets_the_labels_that_predict_gives_it(tmp_path, monkeypatch):
    stack = np.random.default_rng(0).integers(0, 256, (3, 5, 6))
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", stack.astype(np.uint8), photometric="minisblack")
    scan = nibabel.Nifti1Image((8 * stack - 1000).astype(np.int16).transpose(2, 1, 0), np.eye(4))
    scan.to_filename(folder / "b.nii.gz")
    model = levels.installed(tmp_path / "net", monkeypatch, classes=4)
    levels.predict(model, folder, "--out", tmp_path / "out", "--window", 32)
    network = levels.Levels((), levels.NAMES, 1, "dtype")
    for name in ("a.tif", "b.nii.gz"):
        for page in range(3):
            found = session.find(network, folder / name, page or None, 3)
            assert (found.pages, found.page) == (3, page)
            assert found.stem.endswith(f"-page{page}")
            wanted = images.read_mask(tmp_path / "out" / "masks" / name, page=page)
            assert len(np.unique(wanted)) == 4
            np.testing.assert_array_equal(found.labels(0.5), wanted)
    with pytest.raises(ValueError, match=r"^b.nii.gz: page 3 of a file with 3 images"):
        session.find(network, folder / "b.nii.gz", 3)


def test_dicom_is_read(tmp_path):
    pytest.importorskip("pydicom")
    from tests.support.dicom import write_dicom  # which needs it as well

    write_dicom(tmp_path / "a.dcm", np.array([[0, 2000, 4095]], np.uint16))
    assert session.find(Thirds(), tmp_path / "a.dcm").labels(0.5).tolist() == [[0, 1, 2]]


def test_what_cannot_be_used_is_one_line_without_its_place(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    (tmp_path / "bad.dcm").write_bytes(b"no picture")
    for name, told in (("rgb.png", "3 channels; accepted are 1"), ("bad.dcm", "unrecognised format")):
        with pytest.raises(ValueError, match=f"^{name}: {told}") as caught:
            session.find(Thirds(), tmp_path / name)
        assert str(tmp_path) not in str(caught.value)
        assert "\n" not in str(caught.value)
    write_gray(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"page 3 of 1 picture"):
        session.find(Thirds(), tmp_path / "a.png", 3)


def test_the_page_says_what_is_known_and_no_name_is_markup(tmp_path):
    write_gray(tmp_path / "a<i>.png")
    scores = Scores("test", 0.75, None, {"cell": 0.875, CLASSES[2]: 0.625})
    known = facts(scores=scores, data="<script>")
    top = text.header(known)
    assert "UNet 3+ on ResNet-34" in top
    assert "&lt;script&gt;, 1,200 images" in top
    assert "<dt>Test Dice</dt><dd>0.750</dd>" in top
    below = text.results(session.find(Thirds(), tmp_path / "a<i>.png"), known, LOOK)
    assert "<td>0.875</td>" in below
    assert text.status(CLASSES[2], error=True) == "<p class=error role=alert>&lt;b&gt;vessel&lt;/b&gt;</p>"
    for source in (top, below):
        assert not any(tag in source for tag in ("<i>", "<b>", "<script>"))


def test_what_is_not_known_is_said():
    top = text.header(facts())
    assert "<dt>Trained on</dt><dd>not known</dd>" in top
    assert "<dt>Scores</dt><dd>not known</dd>" in top


@pytest.mark.parametrize(
    ("said", "color"),
    [
        ("#56b4e9", (86, 180, 233)),
        ("#56B4E9ff", (86, 180, 233)),
        ("rgba(86.2, 180, 232.9, 1)", (86, 180, 233)),
        ("rgb(999, 0, 0)", (255, 0, 0)),
        ("odd", (128, 128, 128)),
    ],
)
def test_colours_as_browsers_say_them(said, color):
    assert text.color_of(said) == color


def test_an_address_is_taken_or_refused_with_one_line():
    with server.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert server.url("0.0.0.0", listening) == f"http://127.0.0.1:{port}"
        assert server.url("::1", listening) == f"http://[::1]:{port}"
        listening.listen()
        with pytest.raises(
            server.ServerError, match=f"^127.0.0.1, port {port}: Address already in use; accepted"
        ):
            server.listen("127.0.0.1", port)
    for host, port, told in (("127.0.0.1", 70000, "--port is 70000"), ("no such host", 0, "--host is")):
        with pytest.raises(server.ServerError, match=told):
            server.listen(host, port)


def test_gradio_is_told_to_be_quiet_and_then_nothing_is_changed(monkeypatch):
    monkeypatch.setenv("GRADIO_SHARE", "True")
    before = dict(os.environ)
    with server.prepared():
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == os.environ["GRADIO_SHARE"] == "False"
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        (folder / "kept").mkdir()
    assert not folder.exists()
    assert dict(os.environ) == before


def test_there_is_no_sharing_through_strangers(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["app", "anything", "--share"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: unrecognized arguments: --share")


def test_what_is_no_segmenter_is_refused_before_anything_is_served(tmp_path, capsys):
    pytest.importorskip("gradio")
    spec = Spec("resnet18", "resnet18", in_channels=1)
    flaxunet.save(fill(store.abstract(spec)), tmp_path / "encoder", spec=spec)
    for folder, told in (
        ("none", "no such folder"),
        (".", "holds no config.json"),
        ("encoder", "expected a whole"),
    ):
        assert main(["app", str(tmp_path / folder), "--port", "0"]) == 2
        out, said = capsys.readouterr()
        assert told in said
        assert (out, said.count("\n")) == ("", 1)


@pytest.fixture(scope="module")
def page():
    """The module, which imports Gradio; outside of a running event loop its pages would leave some open."""
    pytest.importorskip("gradio")
    with server.prepared():
        from flaxunet.app import page

        yield page


def test_an_upload_above_the_limit_is_refused(page, monkeypatch):
    import httpx

    monkeypatch.setattr(server, "LARGEST", "1kb")

    async def answers(*sizes):
        app = server.application(page.build(Thirds(), facts()))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return [await client.post("gradio_api/upload", files={"files": bytes(size)}) for size in sizes]

    small, large = asyncio.run(answers(1000, 1100))
    assert small.status_code == 200
    assert Path(small.json()[0]).stat().st_size == 1000
    assert large.status_code == 413
    assert "maximum allowed size of 1024 bytes" in large.text


def test_a_bad_page_does_not_make_the_stack_forgotten(tmp_path, page):
    stack = np.stack([np.full((5, 6), value, np.float32) for value in (0, np.nan, 1)])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")

    async def handlers():
        return {one.name: one.fn for one in page.build(Thirds(), facts()).fns.values()}

    handle = asyncio.run(handlers())
    look = (0.5, 0.5, True, True, "#56b4e9", "#e69f00")
    path = str(tmp_path / "a.tif")
    _, pages, *_ = handle["read_file"](path, *look)
    found, pages, told, *_ = handle["read_page"](path, 1, pages, *look)
    assert found is None
    assert "NaN" in told
    found, pages, told, *_ = handle["read_page"](path, 2, pages, *look)
    assert (found.stem, pages) == ("a-page2", 3)
    assert "a.tif, page 2 (of 3): 6 x 5 pixels" in told


def test_gradio_is_known_by_two_files():
    assert importers("gradio") == {"flaxunet/app/page.py", "flaxunet/app/server.py"}


# A real browser, and a real server in a process of its own.
needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio")


@dataclass
class Running:
    """An app: where it is, and its process."""

    url: str
    process: subprocess.Popen


@contextlib.contextmanager
def running(model, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "COLUMNS": "300"}
    command = [sys.executable, "-m", "flaxunet", "app", str(model), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        try:
            line = process.stdout.readline()
            assert "http://127.0.0.1:" in line, line + process.stderr.read()
            yield Running(next(word for word in line.split() if word.startswith("http")), process)
        finally:
            process.kill()


def download(browser, place):
    """The bytes of a link of the page."""
    head, _, data = browser.ask(f"document.querySelectorAll('#areas a')[{place}].href").partition(",")
    return base64.b64decode(data) if head.endswith("base64") else unquote(data).encode()


def agreement(png, labels):
    return (np.asarray(Image.open(io.BytesIO(png))) == labels).mean()


@pytest.mark.long
@needs_browser
@needs_gradio
def test_a_browser_uses_the_page(tmp_path):
    model = tmp_path / "net"
    source = {
        "run": "night",
        "classes": list(CLASSES),
        "data": "hand-drawn",
        "scores": {"split": "test", "dice": 0.5},
    }
    flaxunet.save(network("unet", "resnet18", in_channels=1, classes=3), model, source=source)
    stack = np.random.default_rng(0).integers(0, 256, (3, 48, 64), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    Image.new("RGB", (32, 32)).save(tmp_path / "rgb.png")
    predict = Predictor.load([model])
    wanted = [predict.labels(predict(page[..., None] / np.float32(255))) for page in stack]

    with running(model, tmp_path) as app, Browser(tmp_path) as page:
        page.open(app.url)
        page.wait("document.querySelector('input[type=file]')")
        for told in ("night", "UNet on ResNet-18", "cell, <b>vessel</b>", "hand-drawn", "0.500"):
            assert told in page.text()

        page.give("input[type=file]", tmp_path / "stack.tif")
        page.wait("document.querySelector('#status').innerText.includes('page 0 (of 3): 64 x 48 pixels')")
        page.wait("document.querySelector('#areas table')")
        # Rounding may differ between two processes, and turn a pixel that is nearly a tie.
        assert agreement(download(page, 0), wanted[0]) > 0.99
        first = page.wait("document.querySelector('#picture-mask img').src")
        page.wait("document.querySelector('#picture-mask img').naturalWidth == 64")
        page.click(".classes input[type=checkbox]")
        page.wait(f"document.querySelector('#picture-mask img').src != {first!r}")
        assert agreement(download(page, 0), wanted[0]) > 0.99  # which has all classes

        page.type("#page input[type=number]", 2)
        page.wait("document.querySelector('#status').innerText.includes('page 2 (of 3)')")
        page.wait("document.querySelector('#areas a').download == 'stack-page2-mask.png'")
        assert agreement(download(page, 0), wanted[2]) > 0.99
        counts = [int(line.split(",")[-2]) for line in download(page, 1).decode().splitlines()[1:]]
        assert abs(counts[0] - (wanted[2] == 0).sum()) < 0.01 * wanted[2].size

        page.click("#image-file button[aria-label=Clear]")
        page.wait("document.querySelector('.empty')")
        page.give("input[type=file]", tmp_path / "rgb.png")
        error = page.wait("document.querySelector('#status .error').innerText")
        assert error == "rgb.png: 3 channels; accepted are 1"

        hosts = {
            address.split("/")[2] for address in page.requests if not address.startswith(("data:", "blob:"))
        }
        assert hosts == {app.url.removeprefix("http://")}
        assert page.troubles == []

        app.process.send_signal(signal.SIGINT)
        out, said = app.process.communicate(timeout=60)
        assert (app.process.returncode, out, said) == (0, "", "")
        assert not list(tmp_path.glob("flaxunet-app-*"))


@pytest.mark.long
@needs_browser
@needs_gradio
def test_a_browser_moves_the_threshold(tmp_path):
    model = tmp_path / "net"
    flaxunet.save(network("unet", "resnet18", in_channels=1, classes=1), model)
    pixels = write_gray(tmp_path / "a.png", 48, 64)
    predict = Predictor.load([model])
    probabilities = predict(pixels[..., None] / np.float32(255))
    with running(model, tmp_path) as app, Browser(tmp_path) as page:
        page.open(app.url)
        page.wait("document.querySelector('input[type=file]')")
        page.give("input[type=file]", tmp_path / "a.png")
        page.wait("document.querySelector('#areas table')")
        for threshold in (0.51, 0.53):  # among this network's probabilities
            before = page.ask("document.querySelector('#areas a').href")
            page.type("#threshold input[type=number]", threshold)
            page.wait(f"document.querySelector('#areas a').href != {before!r}")
            assert agreement(download(page, 0), predict.labels(probabilities, threshold)) > 0.99
        app.process.send_signal(signal.SIGTERM)
        assert app.process.wait(60) == 0
