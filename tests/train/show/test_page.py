"""report.html: shown whole by a real browser, light, dark, narrow and on paper; no name is markup."""

import html
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from flaxunet.labels import IGNORE, class_color, hex_color
from tests.support.browser import browse, measure_page, needs_browser
from train.config.settings import Config
from train.data.dataset import Dataset
from train.evaluation import Scores
from train.show import page
from train.storage.folder import settings

HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;"
LONG = "a-very-long-file-name-without-a-space-" * 8


def dataset(names):
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 3, (6, 8)), np.ones((8, 8), int)).astype(np.int32)
    label[:4] = IGNORE
    image = (0.3 * np.maximum(label, 0) + 0.2)[..., None].astype(np.float32)
    split = [{"image": image, "label": label, "name": name} for name in names]
    return Dataset("data " + HOSTILE, ("background", "a" + HOSTILE, "vessel"), 3, 1, split, split[:2], split)


def text(names=(HOSTILE, LONG, *"cdefgh"), title="run " + HOSTILE):
    data = dataset(names)
    rng = np.random.default_rng(1)
    found = {index: rng.integers(0, 3, (48, 64)).astype(np.uint8) for index in range(len(names))}
    confusion = rng.integers(1, 10**6, (3, 3))
    rows = [{"step": n, "train_loss": 1 / n, "val_loss": 1 / n, "val_dice": 1 - 1 / n} for n in range(1, 9)]
    rows.append({"step": 8, "best_step": 7, "test_dice": 0.875, "test_iou": None})
    scores = Scores({}, confusion, np.linspace(0.9, 0.2, len(names)), found)
    content = {
        "config": settings(Config.from_flat(name=HOSTILE, loss="dice+ce", class_weights=(1.0, 2.0, 3.0)))
    }
    return page.render(title, content, data, rows, scores, {"time": "1.2 s", "jax": HOSTILE})


class Elements(HTMLParser):
    """Collects tags with their attributes."""

    def __init__(self, source):
        super().__init__()
        self.found = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_names_are_text_and_nothing_is_fetched_or_run():
    source = text()
    assert "<img src=x" not in source
    assert html.escape(HOSTILE) in source
    elements = Elements(source).found
    assert {tag for tag, _ in elements}.isdisjoint({"script", "link", "iframe", "object", "base"})
    for tag, attributes in elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "srcset", "href"):
            if name in attributes:
                assert attributes[name].startswith("data:image/png;base64,")
    assert "url(" not in source
    assert "@import" not in source
    assert "default-src 'none'" in source


def test_every_picture_has_a_text_and_the_worst_come_first():
    source = text(names="abcdefgh")
    images = [attributes for tag, attributes in Elements(source).found if tag == "img"]
    assert len(images) == 1 + 4 * (page.WORST + page.BEST)
    assert all(attributes["alt"] for attributes in images)
    shown = [attributes["alt"] for attributes in images if attributes["alt"].startswith("errors")]
    assert shown == [
        f"errors of {name}, Dice {dice:.3f}"
        for name, dice in (("h", 0.2), ("g", 0.3), ("f", 0.4), ("e", 0.5), ("a", 0.9), ("b", 0.8))
    ]


def test_no_image_is_shown_twice_where_there_are_few():
    images = [attributes for tag, attributes in Elements(text(names="ab")).found if tag == "img"]
    assert len(images) == 1 + 4 * 2


def test_classes_have_the_colours_of_the_overlays():
    source = text()
    for label in (1, 2):
        assert f'style="background:{hex_color(class_color(label))}"' in source


def test_the_command_repeats_the_settings():
    source = text()
    command = html.unescape(re.search(r"<pre><code>(.*?)</code>", source).group(1))
    assert "--class-weights 1.0 2.0 3.0" in command
    assert "--loss" not in command  # which is the default


@needs_browser
def test_a_browser_shows_every_picture_and_nothing_sticks_out(tmp_path):
    count, loaded, shown, wide, sections = measure_page(tmp_path, text(), width=360)
    assert count == loaded == shown == 1 + 4 * (page.WORST + page.BEST)
    assert wide <= 360
    assert sections >= 8


@needs_browser
def test_the_page_is_readable_light_and_dark(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(text())
    for scheme, flags in (("light", ()), ("dark", ("--blink-settings=preferredColorScheme=0",))):
        picture = tmp_path / f"{scheme}.png"
        browse(tmp_path, *flags, "--window-size=1100,1500", f"--screenshot={picture}", path.as_uri())
        with Image.open(picture) as image:
            pixels = np.asarray(image.convert("L")).astype(int)
        paper, writing = pixels[5, 5], pixels[:300, 25:600]  # the corner, and the heading
        assert (paper > 240) if scheme == "light" else (paper < 40)
        assert np.abs(writing - paper).max() > 150


@needs_browser
def test_the_page_can_be_printed(tmp_path):
    path, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    path.write_text(text())
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={printed}", path.as_uri())
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 2
    assert (
        content.count(b"/Subtype /Image") + content.count(b"/Subtype/Image") >= 10
    )  # equal ones are kept once
