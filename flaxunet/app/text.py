"""Writes the HTML of the page: what is known of the network, the status line, areas and downloads."""

import re
from collections.abc import Mapping
from urllib.parse import quote

from flaxunet.app import session
from flaxunet.app.session import Prediction, Style
from flaxunet.hub import card
from flaxunet.hub.facts import Facts
from flaxunet.labels import Color
from flaxunet.report import html


def header(facts: Facts) -> str:
    """Describes the network: its name, classes, channels, data and scores."""
    scores, channels = facts.scores, facts.spec.in_channels
    dice = scores.dice if scores is not None else None
    origin = card.origin(facts).rstrip(".").removeprefix("Trained on ")
    rows = {
        "Classes": ", ".join(facts.classes[1:]),
        "Input": f"images of {channels} channel{'s' * (channels > 1)}",
        "Trained on": origin if facts.data else "not known",
    }
    if scores is None or dice is None:
        rows["Scores"] = "not known"
    else:
        rows[f"{scores.split.capitalize()} Dice"] = html.number(dice)
    cells = (f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(rows[key])}</dd></div>" for key in rows)
    title = f"<p class=kind>{html.escape(card.title(facts))}</p><h1>{html.escape(facts.name)}</h1>"
    return f"<header>{title}<dl>{''.join(cells)}</dl></header>"


def status(message: str = "", *, error: bool = False) -> str:
    """The line about the image."""
    kind = "class=error role=alert" if error else "class=quiet role=status"
    return f"<p {kind}>{html.escape(message)}</p>"


def results(prediction: Prediction, facts: Facts, style: Style) -> str:
    """The areas of the classes with their scores, and links to the downloads."""
    classes, scores = facts.classes, _class_scores(facts)
    rows = []
    for label, name, pixels, fraction in session.areas(prediction, classes, style):
        colored = html.swatch(style.colors[label - 1]) + html.escape(name) if label else html.named(0, name)
        row = [colored, f"{pixels:,}", f"{fraction:.1%}"]
        rows.append([*row, *([html.number(scores[name]) if name in scores else ""] if scores else [])])
    head = ["class", "pixels", "area"]
    if scores and facts.scores is not None:
        head.append(f"{facts.scores.split} Dice")
    table = quote(session.areas_csv(prediction, classes, style))
    links = (
        ("Mask, indexed PNG", "mask.png", html.data_uri(session.mask_png(prediction, style))),
        ("Areas, CSV", "areas.csv", f"data:text/csv;charset=utf-8,{table}"),
    )
    stem = html.escape(prediction.stem)
    anchors = "".join(f'<a download="{stem}-{file}" href="{url}">{text}</a>' for text, file, url in links)
    return f"{html.table(head, rows, 'areas')}<nav><span>Download</span>{anchors}</nav>"


def parse_color(value: str) -> Color:
    """Parses "#56b4e9" or "rgba(86.2, 180, 233, 1)", as browsers write colours; anything else is gray."""
    if match := re.fullmatch(r"#([0-9a-fA-F]{6})([0-9a-fA-F]{2})?", value.strip()):
        return tuple(bytes.fromhex(match[1]))  # pyright: ignore[reportReturnType]
    numbers = [round(float(number)) for number in re.findall(r"\d+\.?\d*", value)[:3]]
    red, green, blue = numbers if len(numbers) == 3 else (128, 128, 128)
    return min(red, 255), min(green, 255), min(blue, 255)


def _class_scores(facts: Facts) -> Mapping[str, float]:
    scores = facts.scores
    if scores is not None and not scores.classes and scores.dice is not None and len(facts.classes) == 2:
        return {facts.classes[1]: scores.dice}
    return scores.classes if scores is not None else {}
