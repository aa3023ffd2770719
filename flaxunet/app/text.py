"""What is known of a network, and areas, enter; HTML leaves. All text of others is escaped."""

import base64
import html
import re
from collections.abc import Mapping
from urllib.parse import quote

from flaxunet.app import session
from flaxunet.app.session import Found, Look
from flaxunet.hub import card
from flaxunet.hub.facts import Facts
from flaxunet.labels import Color

_escape = html.escape


def header(known: Facts) -> str:
    """What the network is: its name, its classes, its data, its scores."""
    scores, spec = known.scores, known.spec
    channels = f"{spec.in_channels} channel{'s' * (spec.in_channels > 1)}"
    facts = [("Finds", ", ".join(known.classes[1:])), ("In", f"images of {channels}")]
    data = card.origin(known).rstrip(".").removeprefix("Trained on ") if known.data else "not known"
    facts.append(("Trained on", data))
    if scores is not None and scores.dice is not None:
        facts.append((f"{scores.split.capitalize()} Dice", f"{scores.dice:.3f}"))
    else:
        facts.append(("Scores", "not known"))
    cells = "".join(f"<div><dt>{_escape(term)}</dt><dd>{_escape(told)}</dd></div>" for term, told in facts)
    title = f"<p class=kind>{_escape(card.title(known))}</p><h1>{_escape(known.name)}</h1>"
    return f"<header>{title}<dl>{cells}</dl></header>"


def status(message: str = "", *, error: bool = False) -> str:
    """The one line about the image."""
    kind = "class=error role=alert" if error else "class=quiet role=status"
    return f"<p {kind}>{_escape(message)}</p>"


def results(found: Found, known: Facts, look: Look) -> str:
    """The areas, with the scores of the classes, and links to the files to keep."""
    classes, scores = known.classes, _class_scores(known)
    lines = []
    for label, name, pixels, part in session.areas(found, classes, look):
        color = f' style="background:{hex_color(look.colors[label - 1])}"' if label else " class=none"
        cells = [f"{pixels:,}", f"{part:.1%}"]
        if scores:
            cells.append(f"{scores[name]:.3f}" if name in scores else "")
        data = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f"<tr><th scope=row><i{color}></i>{_escape(name)}</th>{data}</tr>")
    heads = ["class", "pixels", "area"]
    if scores and known.scores is not None:
        heads.append(f"Dice in {'tests' if known.scores.split == 'test' else 'validation'}")
    head = "".join(f"<th scope=col>{one}</th>" for one in heads)
    png = base64.b64encode(session.mask_png(found, look)).decode("ascii")
    links = (
        ("Mask, indexed PNG", f"{found.stem}-mask.png", f"data:image/png;base64,{png}"),
        (
            "Areas, CSV",
            f"{found.stem}-areas.csv",
            f"data:text/csv;charset=utf-8,{quote(session.areas_csv(found, classes, look))}",
        ),
    )
    anchors = "".join(
        f'<a download="{_escape(file)}" href="{address}">{text}</a>' for text, file, address in links
    )
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        f"<nav><span>Download</span>{anchors}</nav>"
    )


def hex_color(color: Color) -> str:
    """As CSS has it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def color_of(value: str) -> Color:
    """Of "#56b4e9" or "rgba(86.2, 180, 233, 1)", as browsers say it; what is neither is gray."""
    if found := re.fullmatch(r"#([0-9a-fA-F]{6})([0-9a-fA-F]{2})?", value.strip()):
        return tuple(bytes.fromhex(found[1]))  # pyright: ignore[reportReturnType]
    numbers = [round(float(number)) for number in re.findall(r"\d+\.?\d*", value)[:3]]
    red, green, blue = numbers if len(numbers) == 3 else (128, 128, 128)
    return min(red, 255), min(green, 255), min(blue, 255)


def _class_scores(known: Facts) -> Mapping[str, float]:
    scores: Mapping[str, float] = known.scores.classes if known.scores else {}
    if not scores and known.scores and known.scores.dice is not None and len(known.classes) == 2:
        return {known.classes[1]: known.scores.dice}
    return scores
