"""Builds the Gradio page: an uploaded image, its overlay and mask, and the areas of the classes."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import gradio as gr

from flaxunet.app import session, text
from flaxunet.app.session import Prediction, Style
from flaxunet.hub.facts import Facts
from flaxunet.labels import Color, class_color, hex_color
from flaxunet.prediction.predictor import Predictor
from flaxunet.report import overlay

STYLE = (files("flaxunet.app") / "style.css").read_text(encoding="utf-8")
KEPT = 3600  # seconds that Gradio keeps pictures on disk, at most
HINT = (
    "PNG, JPEG, TIFF, DICOM or NIfTI. The image stays on the machine that serves this page. "
    "For research only; not a medical device."
)


def theme() -> gr.themes.Base:
    """Returns the colours and corners of the page; it uses the fonts that come with Gradio."""
    colors, radius = gr.themes.colors, gr.themes.sizes.radius_md
    return gr.themes.Base(primary_hue=colors.sky, neutral_hue=colors.slate, radius_size=radius)


def build(predictor: Predictor, facts: Facts) -> gr.Blocks:
    """Builds the page of a predictor, which is called with one image at a time, and what is known of it."""
    count = len(facts.classes) - 1
    title, cache = f"{facts.name}: flaxunet", (KEPT // 6, KEPT)
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=cache, fill_width=True) as page:
        gr.HTML(text.header(facts), elem_classes="about")
        state = gr.State(None)  # the prediction
        with gr.Row(elem_classes="body"):
            with gr.Column(scale=0, min_width=320, elem_classes="side"):
                file = gr.File(label="Image", file_count="single", height=150, elem_id="image-file")
                gr.HTML(text.status(HINT), elem_id="hint")
                slider = gr.Slider(0, 1, 0, step=1, label="Page", visible=False, elem_id="page")
                with gr.Column(elem_classes="classes"):
                    visible, colors = _class_rows(facts.classes, predictor.colors)
                opacity = gr.Slider(0, 1, overlay.OPACITY, step=0.05, label="Opacity", elem_id="opacity")
                info, binary = "Foreground is where the probability is above.", facts.spec.classes == 1
                about: dict[str, Any] = {"label": "Threshold", "info": info, "elem_id": "threshold"}
                threshold = gr.Slider(0.01, 0.99, 0.5, step=0.01, visible=binary, **about)
            with gr.Column(scale=1, min_width=320):
                status = gr.HTML(text.status(), elem_id="status")
                empty = gr.HTML("<div class=empty>The result appears here.</div>", elem_id="empty")
                with gr.Column(visible=False) as shown:
                    with gr.Row():
                        pictures = [_picture(name) for name in ("Image", "Overlay", "Mask")]
                    areas = gr.HTML(elem_id="areas")
        styling: list[Any] = [opacity, threshold, *visible, *colors]
        painted = [*pictures[1:], areas]

        def paint(prediction: Prediction | None, opacity: float, threshold: float, *rest: Any) -> list[Any]:
            if prediction is None:
                return [None, None, ""]
            visible, colors = tuple(map(bool, rest[:count])), tuple(map(text.parse_color, rest[count:]))
            style = Style(colors, visible, float(opacity), float(threshold))
            return [*session.paint(prediction, style), text.results(prediction, facts, style)]

        def read(path: str | None, page_number: int | None, *values: Any) -> list[Any]:
            prediction, message = None, text.status()
            try:
                if path is not None:
                    prediction = session.predict(
                        predictor, path, None if page_number is None else int(page_number)
                    )
                    message = text.status(_description(prediction))
            except ValueError as error:
                message = text.status(str(error), error=True)
            last, slider = prediction.pages - 1 if prediction is not None else 0, {}
            if page_number is None:  # else it stays as it is, while the pages of one file are read
                label = f"Page (0 to {last})"
                slider = {"visible": last > 0, "maximum": max(last, 1), "value": 0, "label": label}
            views = gr.update(visible=prediction is None), gr.update(visible=prediction is not None)
            base = None if prediction is None else overlay.to_bytes(prediction.base)
            return [prediction, message, gr.update(**slider), *views, base, *paint(prediction, *values)]

        def read_first(path: str | None, *values: Any) -> list[Any]:
            return read(path, None, *values)

        everything = [state, status, slider, empty, shown, pictures[0], *painted]
        private: dict[str, Any] = {"api_visibility": "private"}
        alone = {"concurrency_limit": 1, "concurrency_id": "predictor", **private}
        file.change(read_first, [file, *styling], everything, **alone)
        slider.release(read, [file, slider, *styling], everything, **alone)
        events = [one.input for one in (opacity, threshold, *visible)]
        for event in (*events, *(color.change for color in colors)):
            quick = {"show_progress": "hidden", "trigger_mode": "always_last", **private}
            event(paint, [state, *styling], painted, **quick)
    return page


def _class_rows(classes: Sequence[str], palette: Sequence[Color]) -> tuple[list[Any], list[Any]]:
    visible, colors = [], []
    for label, name in enumerate(classes[1:], 1):
        with gr.Row():
            color = hex_color(class_color(label, palette))
            about: dict[str, Any] = {"label": f"Colour of {name}", "show_label": False, "container": False}
            colors.append(gr.ColorPicker(color, min_width=40, scale=0, **about))
            visible.append(gr.Checkbox(True, label=name, container=False, min_width=100))
    return visible, colors


def _picture(name: str) -> gr.Image:
    about: dict[str, Any] = {"label": name, "alt_text": name, "elem_id": f"picture-{name.lower()}"}
    return gr.Image(format="png", interactive=False, buttons=["fullscreen"], elem_classes="picture", **about)


def _description(prediction: Prediction) -> str:
    height, width = prediction.scores.shape
    page = f", page {prediction.page} (of {prediction.pages})" if prediction.pages > 1 else ""
    return f"{prediction.name}{page}: {width} x {height} pixels"
