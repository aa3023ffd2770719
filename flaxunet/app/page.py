"""A predictor and what is known of it enter; a Gradio page leaves, whose parts are all served by itself."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import gradio as gr

from flaxunet.app import session, text
from flaxunet.app.session import Found, Look
from flaxunet.hub.facts import Facts
from flaxunet.labels import Color, class_color
from flaxunet.prediction.predictor import Predictor
from flaxunet.report import overlay

STYLE = (files("flaxunet.app") / "style.css").read_text(encoding="utf-8")
KEPT = 3600  # seconds that pictures stay on disk, at most
HINT = (
    "PNG, JPEG, TIFF, DICOM or NIfTI. The image stays with the program that serves this page. "
    "For research; no medical device."
)


def theme() -> gr.themes.Base:
    """Calm colours; its fonts are those that come with Gradio."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.sky,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
    )


def build(predictor: Predictor, known: Facts) -> gr.Blocks:
    """The page.

    Args:
      predictor: called by one image at a time.
      known: of its network.
    """
    count = len(known.classes) - 1
    binary = known.spec.classes == 1
    with gr.Blocks(
        title=f"{known.name}: flaxunet",
        analytics_enabled=False,
        delete_cache=(KEPT // 6, KEPT),
        fill_width=True,
    ) as page:
        gr.HTML(text.header(known), elem_classes="about")
        state, several = gr.State(None), gr.State(1)  # what was found, and how many pictures its file has
        with gr.Row(elem_classes="body"):
            with gr.Column(scale=0, min_width=320, elem_classes="side"):
                file = gr.File(label="Image", file_count="single", height=150, elem_id="image-file")
                gr.HTML(text.status(HINT), elem_id="hint")
                number = gr.Slider(0, 1, 0, step=1, label="Page", visible=False, elem_id="page")
                with gr.Column(elem_classes="classes"):
                    visible, colors = _class_rows(known.classes, predictor.colors)
                opacity = gr.Slider(0, 1, overlay.OPACITY, step=0.05, label="Opacity", elem_id="opacity")
                threshold = gr.Slider(
                    *(0.01, 0.99, 0.5),
                    step=0.01,
                    label="Threshold",
                    info="A pixel is found where its probability is above.",
                    visible=binary,
                    elem_id="threshold",
                )
            with gr.Column(scale=1, min_width=320):
                status = gr.HTML(text.status(), elem_id="status")
                empty = gr.HTML("<div class=empty>The result appears here.</div>", elem_id="empty")
                with gr.Column(visible=False) as shown:
                    with gr.Row():
                        pictures = [_picture(name) for name in ("Image", "Overlay", "Mask")]
                    areas = gr.HTML(elem_id="areas")
        looks: list[Any] = [opacity, threshold, *visible, *colors]
        painted = [*pictures[1:], areas]

        def look(values: Sequence[Any]) -> Look:
            return Look(
                opacity=float(values[0]),
                threshold=float(values[1]),
                visible=tuple(map(bool, values[2 : 2 + count])),
                colors=tuple(map(text.color_of, values[2 + count :])),
            )

        def paint(found: Found | None, *values: Any) -> list[Any]:
            if found is None:
                return [None, None, ""]
            chosen = look(values)
            return [*session.paint(found, chosen), text.results(found, known, chosen)]

        def read(path: str | None, page_number: int | None, pages: int, values: Sequence[Any]) -> list[Any]:
            found, told = None, text.status()
            try:
                if path is not None:
                    found = session.find(predictor, path, page_number, pages)
                    pages, told = found.pages, text.status(_told(found))
            except ValueError as error:
                told = text.status(str(error), error=True)
            choice = gr.update(visible=pages > 1)
            if pages > 1 and page_number is None:
                label = f"Page (0 to {pages - 1})"
                choice = gr.update(visible=True, maximum=pages - 1, value=0, label=label)
            elif page_number is not None:
                choice = gr.update()
            views = gr.update(visible=found is None), gr.update(visible=found is not None)
            base = None if found is None else session.to_bytes(found.base)
            return [found, pages, told, choice, *views, base, *paint(found, *values)]

        def read_file(path: str | None, *values: Any) -> list[Any]:
            return read(path, None, 1, values)

        def read_page(path: str | None, page_number: int, pages: int, *values: Any) -> list[Any]:
            return read(path, int(page_number), pages, values)

        everything = [state, several, status, number, empty, shown, pictures[0], *painted]
        alone: dict[str, Any] = {
            "concurrency_limit": 1,
            "concurrency_id": "predictor",
            "api_visibility": "private",
        }
        file.change(read_file, [file, *looks], everything, **alone)
        number.release(read_page, [file, number, several, *looks], everything, **alone)
        for _, event in (
            (opacity, opacity.input),
            (threshold, threshold.input),
            *((box, box.input) for box in visible),
            *((color, color.change) for color in colors),
        ):
            event(
                *(paint, [state, *looks], painted),
                show_progress="hidden",
                trigger_mode="always_last",
                api_visibility="private",
            )
    return page


def _class_rows(
    classes: Sequence[str], palette: Sequence[Color]
) -> tuple[list[gr.Checkbox], list[gr.ColorPicker]]:
    visible, colors = [], []
    for label, name in enumerate(classes[1:], 1):
        with gr.Row():
            colors.append(
                gr.ColorPicker(
                    text.hex_color(class_color(label, palette)),
                    label=f"Colour of {name}",
                    show_label=False,
                    container=False,
                    min_width=40,
                    scale=0,
                )
            )
            visible.append(gr.Checkbox(True, label=name, container=False, min_width=100))
    return visible, colors


def _picture(name: str) -> gr.Image:
    return gr.Image(
        label=name,
        format="png",
        interactive=False,
        buttons=["fullscreen"],
        elem_classes="picture",
        elem_id=f"picture-{name.lower()}",
        alt_text=name,
    )


def _told(found: Found) -> str:
    height, width = found.scores.shape
    which = f", page {found.page} (of {found.pages})" if found.pages > 1 else ""
    return f"{found.name}{which}: {width} x {height} pixels"
