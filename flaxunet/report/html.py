"""Names, numbers and pictures enter; parts of a page leave that needs no network and runs no script."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

import numpy as np
from PIL import Image

from flaxunet.labels import IGNORE, class_color, hex_color
from flaxunet.report import overlay

SIDE = 384  # pixels of the longer side of a picture of a case, at most
# Whatever a name holds, a browser that obeys this fetches nothing and runs nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

escape = html.escape


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page of parts that are HTML; empty ones are left out."""
    style = (files("flaxunet.report") / "page.css").read_text(encoding="utf-8")
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        '<meta name=color-scheme content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body><main>\n"
        + "\n".join(filter(None, parts))
        + "\n</main></body></html>\n"
    )


def header(kind: str, title: str, note: str) -> str:
    """The page's head."""
    return (
        f"<header><p class=kind>{escape(kind)}</p><h1>{escape(title)}</h1>"
        f"<p class=quiet>{escape(note)}</p></header>"
    )


def section(title: str, inner: str, note: str = "") -> str:
    """A heading with what belongs below it."""
    note = f"<p class=quiet>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{note}{inner}</section>"


def figures(values: Iterable[tuple[str, str]]) -> str:
    """A row of large numbers with what they are."""
    cells = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in values)
    return f"<div class=figures>{''.join(cells)}</div>"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    kind: str,
    *,
    last_bold: bool = False,
    escaped: bool = False,
) -> str:
    """A table of cells that are HTML already; so are its heads if `escaped`."""
    heads = "".join(f"<th scope=col>{cell if escaped else escape(cell)}</th>" for cell in head)
    lines = []
    for place, (first, *rest) in enumerate(rows):
        style = " class=total" if last_bold and place == len(rows) - 1 else ""
        lines.append(
            f"<tr{style}><th scope=row>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
        )
    return (
        f'<div class=scroll><table class="{kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def pairs(values: Mapping[str, str]) -> str:
    """Names with their values."""
    cells = (f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in values.items())
    return f"<dl class=settings>{''.join(cells)}</dl>"


def case(name: str, said: str, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> str:
    """An image beside its truth, its prediction, and the errors.

    Args:
      name: of the image.
      said: of it, such as its Dice.
      image: (H, W, C) of any range.
      truth: (H, W) labels; what is IGNORE there is striped in all.
      prediction: (H, W) labels.
    """
    base = overlay.gray_or_rgb(image)
    painted = np.where(truth == IGNORE, IGNORE, prediction.astype(np.int32))
    pictures = (
        ("image", base),
        ("truth", overlay.overlay(base, truth)),
        ("prediction", overlay.overlay(base, painted)),
        ("errors", overlay.errors(base, truth, painted)),
    )
    name, said = escape(name), escape(said)
    cells = "".join(
        f'<div><img src="{picture(pixels)}" alt="{kind} of {name}, {said}"><span>{kind}</span></div>'
        for kind, pixels in pictures
    )
    return (
        f"<figure><figcaption><b class=name>{name}</b><span>{said}</span></figcaption>"
        f"<div class=four>{cells}</div></figure>"
    )


def legend(names: Sequence[str]) -> str:
    """The colours of classes, background first, and of errors."""
    kinds = (("missed", overlay.MISSED), ("extra", overlay.EXTRA), ("wrong class", overlay.CONFUSED))
    classes = (f"<li>{named(index, name)}</li>" for index, name in enumerate(names) if index)
    mistakes = (f"<li>{swatch(color)}{name}</li>" for name, color in kinds[: 3 if len(names) > 2 else 2])
    return f"<ul class=legend>{''.join(classes)}<li class=gap>errors:</li>{''.join(mistakes)}</ul>"


def quiet(text: str) -> str:
    """Text of little weight."""
    return f"<span class=quiet>{escape(text)}</span>"


def named(index: int, name: str) -> str:
    """A class with the colour that it has in the pictures."""
    return (swatch(class_color(index)) if index else "<i class=none></i>") + escape(name)


def swatch(color: overlay.Color) -> str:
    """A small square."""
    return f'<i style="background:{hex_color(color)}"></i>'


def bar(score: float) -> str:
    """As long as a score in [0, 1]."""
    return f'<span class=bar><span style="width:{100 * float(np.clip(score, 0, 1)):.1f}%"></span></span>'


def number(value: float | None) -> str:
    """Three digits; a dash for what is not known."""
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def picture(pixels: np.ndarray) -> str:
    """A data: URI of (H, W, 3) in [0, 1], made smaller where it is larger than SIDE."""
    image = Image.fromarray(np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8))
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return data_uri(file.getvalue())


def data_uri(png: bytes) -> str:
    """For the `src` of an image."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
