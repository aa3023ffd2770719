"""Renders the parts of HTML pages that need no network and run no script.

Text arguments are escaped, except where a docstring calls them HTML.
"""

import base64
import html
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from flaxunet.labels import class_color, hex_color
from flaxunet.report import overlay

SIDE = 384  # pixels of the longer side of a picture of a case, at most
LISTED = 500  # rows of `ranked`, at most
# Whatever a name holds, a browser that obeys this fetches nothing and runs nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

escape = html.escape
Cells = Sequence[str]


def document(title: str, parts: Iterable[str]) -> str:
    """Assembles a page of parts that are HTML; empty ones are left out."""
    style = (files("flaxunet.report") / "page.css").read_text(encoding="utf-8")
    head = (
        f'<meta charset=utf-8><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        '<meta name=color-scheme content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style>"
    )
    body = "\n".join(filter(None, parts))
    return (
        f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def header(kind: str, title: str, note: str) -> str:
    """The head of a page: what it is about, its title, and a note."""
    heading = f"<p class=kind>{escape(kind)}</p><h1>{escape(title)}</h1>"
    return f"<header>{heading}<p class=quiet>{escape(note)}</p></header>"


def section(title: str, inner: str, note: str = "") -> str:
    """A heading, a note, and content that is HTML."""
    note = f"<p class=quiet>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{note}{inner}</section>"


def figures(values: Iterable[tuple[str, str]]) -> str:
    """A row of large numbers, given as pairs of value and name."""
    cells = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in values)
    return f"<div class=figures>{''.join(cells)}</div>"


def table(
    head: Cells, rows: Sequence[Cells], kind: str, *, last_bold: bool = False, escaped: bool = False
) -> str:
    """A table of a CSS class `kind`; the first cell of each row is its heading.

    Args:
      head, rows: the heads of the columns, and their cells, which are HTML.
      last_bold, escaped: whether the last row is a total, and whether the heads are HTML, too.
    """
    heads = "".join(f"<th scope=col>{cell if escaped else escape(cell)}</th>" for cell in head)
    lines = []
    for place, (first, *rest) in enumerate(rows):
        style = " class=total" if last_bold and place == len(rows) - 1 else ""
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f"<tr{style}><th scope=row>{first}</th>{cells}</tr>")
    return (
        f'<div class=scroll><table class="{kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def pairs(values: Mapping[str, Any], changed: Collection[str] = ()) -> str:
    """A list of names and values, where those of the names in `changed` are bold."""
    cells = ""
    for key, value in values.items():
        style, name = " class=changed" if key in changed else "", key.replace("_", " ")
        cells += f"<div{style}><dt>{escape(name)}</dt><dd>{escape(text(value))}</dd></div>"
    return f"<dl class=settings>{cells}</dl>"


def text(value: Any) -> str:
    """A setting in words: yes or no, the items of a sequence, or a dash for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "-" if value is None else str(value)


def ranked(head: Cells, rows: Sequence[Cells], scores: np.ndarray, rest: str = "") -> str:
    """A collapsed table of cases, below the lowest, median and highest of their scores.

    Args:
      head: the heads of the columns; the last one, for a bar as long as the score, is added.
      rows: a row of HTML cells for each case, the lowest score first; LISTED of them are shown.
      scores: of all cases, in the same order, in [0, 1].
      rest: added to the sentence that says how many are shown, such as "; scores.csv has all".
    """
    ends = zip(("lowest", "median", "highest"), np.quantile(scores, (0, 0.5, 1)).tolist(), strict=True)
    note = " · ".join(f"{name} {number(value)}" for name, value in ends) + "."
    if len(rows) > LISTED:
        note += f" The {LISTED} lowest are listed{rest}."
    lines = [[*row, bar(score)] for row, score in zip(rows[:LISTED], scores[:LISTED].tolist(), strict=True)]
    listing = table((*head, ""), lines, "list")
    return f"<p>{quiet(note)}</p><details><summary>Show the list</summary>{listing}</details>"


def command(words: str, note: str) -> str:
    """A command line, and a note about it."""
    return f"<pre><code>{escape(words)}</code></pre><p>{quiet(note)}</p>"


def chart(light: bytes, dark: bytes, width: int, height: int, description: str) -> str:
    """A PNG file for light pages and paper, and another one for dark pages."""
    uri, dark_uri, alt = data_uri(light), data_uri(dark), escape(description)
    sources = f'<source media="print" srcset="{uri}">'
    sources += f'<source media="(prefers-color-scheme: dark)" srcset="{dark_uri}">'
    image = f'<img class=curves width={width} height={height} src="{uri}" alt="{alt}">'
    return f"<div class=scroll><picture>{sources}{image}</picture></div>"


def case(name: str, caption: str, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> str:
    """Shows an image beside its truth, its prediction, and the errors.

    Args:
      name, caption: of the image, and a note such as its Dice.
      image: (H, W, C) of any range.
      truth, prediction: (H, W) labels; IGNORE in the truth is striped in all pictures.
    """
    panels = overlay.panels(image, truth, prediction)
    name, caption, cells = escape(name), escape(caption), ""
    for kind, pixels in zip(overlay.PANELS, panels, strict=True):
        alt = f"{kind} of {name}, {caption}"
        cells += f'<div><img src="{picture(pixels)}" alt="{alt}"><span>{kind}</span></div>'
    head = f"<figcaption><b class=name>{name}</b><span>{caption}</span></figcaption>"
    return f"<figure>{head}<div class=four>{cells}</div></figure>"


def legend(names: Sequence[str]) -> str:
    """The colours of the classes (the background is first and has none) and of the errors."""
    classes = (f"<li>{named(index, name)}</li>" for index, name in enumerate(names) if index)
    mistakes = (f"<li>{swatch(color)}{name}</li>" for name, color in overlay.mistakes(len(names)))
    return f"<ul class=legend>{''.join(classes)}<li class=gap>errors:</li>{''.join(mistakes)}</ul>"


def quiet(text: str) -> str:
    """Text in a fainter colour."""
    return f"<span class=quiet>{escape(text)}</span>"


def case_name(name: str) -> str:
    """The name of a case, in a table."""
    return f"<span class=name>{escape(name)}</span>"


def named(index: int, name: str) -> str:
    """The name of a class, with its colour in the pictures."""
    return (swatch(class_color(index)) if index else "<i class=none></i>") + escape(name)


def swatch(color: overlay.Color) -> str:
    """A small square of a colour."""
    return f'<i style="background:{hex_color(color)}"></i>'


def bar(score: float) -> str:
    """A bar as long as a score in [0, 1]."""
    return f'<span class=bar><span style="width:{100 * float(np.clip(score, 0, 1)):.1f}%"></span></span>'


def number(value: float | None, digits: int = 3) -> str:
    """A score with three digits after the point, or another number; a dash for None and NaN."""
    return "-" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def picture(pixels: np.ndarray) -> str:
    """A data: URI of an image (H, W, 3) in [0, 1], reduced to SIDE pixels a side."""
    image, file = Image.fromarray(overlay.to_bytes(pixels)), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "PNG", optimize=True)
    return data_uri(file.getvalue())


def data_uri(png: bytes) -> str:
    """A data: URI of a PNG file, for the `src` of an image."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
