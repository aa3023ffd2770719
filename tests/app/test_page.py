"""The page: handlers, uploads, and a real browser that uses it without a network."""

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

import numpy as np
import pytest
import tifffile
from PIL import Image

import flaxunet
from flaxunet.app import server
from flaxunet.prediction.predictor import Predictor
from tests.support.app import CLASSES, Thirds, facts, write_gray
from tests.support.browser import needs_browser
from tests.support.devtools import Browser
from tests.support.imports import ROOT
from tests.support.networks import network


@pytest.fixture(scope="module")
def page():
    """The module, which imports Gradio; outside of a running event loop its pages would leave some open."""
    pytest.importorskip("gradio")
    with server.quiet_gradio():
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


def test_the_next_page_can_be_read_after_a_bad_one(tmp_path, page):
    stack = np.stack([np.full((5, 6), value, np.float32) for value in (0, np.nan, 1)])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")

    async def handlers():
        return {one.name: one.fn for one in page.build(Thirds(), facts()).fns.values()}

    handle = asyncio.run(handlers())
    style = (0.5, 0.5, True, True, "#56b4e9", "#e69f00")
    path = str(tmp_path / "a.tif")
    _, _, slider, *_ = handle["read_first"](path, *style)
    assert (slider["visible"], slider["maximum"]) == (True, 2)
    prediction, status, slider, *_ = handle["read"](path, 1, *style)
    assert prediction is None
    assert "NaN" in status
    assert "visible" not in slider
    prediction, status, *_ = handle["read"](path, 2, *style)
    assert (prediction.stem, prediction.pages) == ("a-page2", 3)
    assert "a.tif, page 2 (of 3): 6 x 5 pixels" in status


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
    head, _, data = browser.evaluate(f"document.querySelectorAll('#areas a')[{place}].href").partition(",")
    return base64.b64decode(data) if head.endswith("base64") else unquote(data).encode()


def agreement(png, labels):
    return (np.asarray(Image.open(io.BytesIO(png))) == labels).mean()


@pytest.mark.long
@needs_browser
@needs_gradio
def test_the_page_in_a_browser(tmp_path):
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
        for part in ("night", "UNet on ResNet-18", "cell, <b>vessel</b>", "hand-drawn", "0.500"):
            assert part in page.text()

        page.upload("input[type=file]", tmp_path / "stack.tif")
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
        page.upload("input[type=file]", tmp_path / "rgb.png")
        error = page.wait("document.querySelector('#status .error').innerText")
        assert error == "rgb.png: 3 channels; expected 1"

        hosts = {
            address.split("/")[2] for address in page.requests if not address.startswith(("data:", "blob:"))
        }
        assert hosts == {app.url.removeprefix("http://")}
        assert page.errors == []

        app.process.send_signal(signal.SIGINT)
        out, err = app.process.communicate(timeout=60)
        assert (app.process.returncode, out, err) == (0, "", "")
        assert not list(tmp_path.glob("flaxunet-app-*"))


@pytest.mark.long
@needs_browser
@needs_gradio
def test_the_threshold_in_a_browser(tmp_path):
    model = tmp_path / "net"
    flaxunet.save(network("unet", "resnet18", in_channels=1, classes=1), model)
    pixels = write_gray(tmp_path / "a.png", 48, 64)
    predict = Predictor.load([model])
    probabilities = predict(pixels[..., None] / np.float32(255))
    with running(model, tmp_path) as app, Browser(tmp_path) as page:
        page.open(app.url)
        page.wait("document.querySelector('input[type=file]')")
        page.upload("input[type=file]", tmp_path / "a.png")
        page.wait("document.querySelector('#areas table')")
        for threshold in (0.51, 0.53):  # among this network's probabilities
            before = page.evaluate("document.querySelector('#areas a').href")
            page.type("#threshold input[type=number]", threshold)
            page.wait(f"document.querySelector('#areas a').href != {before!r}")
            assert agreement(download(page, 0), predict.labels(probabilities, threshold)) > 0.99
        app.process.send_signal(signal.SIGTERM)
        assert app.process.wait(60) == 0
