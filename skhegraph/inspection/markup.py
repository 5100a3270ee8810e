"""Pieces of a page: text escaped, tables, pictures within the file, one curve. No script.

What comes from a user goes through :func:`text`; every other function takes and gives HTML.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from skhegraph.support import Floats

#: Longer side of a thumbnail, in pixels.
THUMBNAIL = 112
#: Bytes of a thumbnail: 500 of them, and 48 shown twice, are 4.4 MB as text.
THUMBNAIL_BYTES = 6000
#: Side of the reliability curve's square, in units of its picture.
SIDE = 240

_STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1f2328; --soft: #59636e;
  --line: #d1d9e0; --panel: #f6f8fa; --link: #0059b3; --right: 0 114 178; --wrong: 196 78 0; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --text: #e6e8eb; --soft: #9ba5b0;
  --line: #3a424c; --panel: #1d2229; --link: #79b8ff; --right: 86 180 233; --wrong: 240 140 60; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; padding-top: .5rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: .5rem 0; }
p { margin: .5rem 0; max-width: 48rem; }
.soft, figcaption small { color: var(--soft); }
a { color: var(--link); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
td, thead th { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; min-width: 8.5rem; max-width: 16rem; }
tr.first th, tr.first td { font-weight: 700; }
.matrix td, .matrix thead th { text-align: center; padding: .25rem .4rem; min-width: 2.25rem;
  white-space: normal; }
.matrix td { border: 1px solid var(--line); }
.matrix thead th:not(:first-child) span { writing-mode: vertical-rl; transform: rotate(180deg);
  max-height: 10rem; text-align: left; }
.matrix .right { background: rgb(var(--right) / calc(.55 * var(--share))); }
.matrix .wrong { background: rgb(var(--wrong) / calc(.15 + .5 * var(--share))); }
.matrix td a { color: inherit; display: block; }
.cell { display: none; padding: .5rem .75rem; background: var(--panel); border-radius: 6px; }
.cell:target { display: block; }
.sheet { display: grid; gap: .75rem; margin: .5rem 0;
  grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); }
figure { margin: 0; min-width: 0; }
figure img, .none { display: block; width: 7rem; max-width: 100%; height: 7rem;
  object-fit: contain; object-position: left bottom; }
.none { border: 1px dashed var(--line); color: var(--soft); padding: .5rem; font-size: .8rem; }
figcaption { font-size: .82rem; line-height: 1.35; }
figcaption small { display: block; font-size: .76rem; }
.bad { color: rgb(var(--wrong)); }
.card { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; padding: .75rem;
  margin: .75rem 0; background: var(--panel); border-radius: 6px; }
.card > figure { flex: 0 0 8rem; }
.card > div { flex: 1 1 24rem; min-width: 0; }
.curve { width: 100%; max-width: 26rem; height: auto; }
.curve text { fill: var(--soft); font-size: 11px; }
.curve .mark { fill: rgb(var(--right)); stroke: var(--back); }
.curve .line { fill: none; stroke: rgb(var(--right)); stroke-width: 2; }
.curve .frame { fill: none; stroke: var(--line); }
.curve .ideal { stroke: var(--soft); stroke-dasharray: 4 4; }
@media (max-width: 40rem) { th, td { padding: .25rem .35rem; }
  thead th { white-space: normal; overflow-wrap: normal; } tbody th { min-width: 7rem; } }
@media print { .cell { display: block; } }
"""


def text(value: Any) -> str:
    """Escape what a user named, for the text of an element and for an attribute in quotes."""
    return escape(str(value), quote=True)


def page(title: str, body: str) -> str:
    """Join a whole file; the policy in its head lets a browser fetch nothing."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def section(name: str, title: str, *parts: str) -> str:
    """Part of a page that a link `#name` leads to."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{name}">\n<h2>{text(title)}</h2>\n{body}\n</section>'


def paragraph(words: str, kind: str = "") -> str:
    """Paragraph of plain text."""
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, first: bool = False) -> str:
    """Table of HTML cells, the first of each row its head; `first` makes the first row bold."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = []
    for k, (name, *cells) in enumerate(rows):
        kind = ' class="first"' if first and k == 0 else ""
        rest = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr{kind}><th scope="row">{name}</th>{rest}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def thumbnail(image: Any) -> str | None:
    """Small JPEG of an image as a data URI; None where the image cannot be read."""
    from skhegraph.clip.images import ImageDecodeError, decode_image

    try:
        small = decode_image(image, least_side=THUMBNAIL)
    except ImageDecodeError:
        return None
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    for quality in (75, 50, 30, 10):  # noise takes most; of 112 pixels 3 kB at the last
        data = io.BytesIO()
        small.save(data, "JPEG", quality=quality, optimize=True)
        if data.tell() <= THUMBNAIL_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def name_of(image: Any, number: int) -> str:
    """Name of an image in a caption: its path, or its number."""
    if isinstance(image, (str, os.PathLike)):
        from skhegraph.clip.images import describe_source

        return describe_source(image)
    return f"image {number}"


def figure(uri: str | None, name: str, caption: str, note: str = "", *, bad: bool = False) -> str:
    """Picture with a caption and a note below it, which are plain text."""
    base = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    shown = (
        '<div class="none">no picture</div>'
        if uri is None
        else f'<img src="{uri}" alt="{text(base)}" loading="lazy">'
    )
    words = f'<span class="bad">{text(caption)}</span>' if bad else text(caption)
    small = f"<small>{text(note)}</small>" if note else ""
    return (
        f'<figure title="{text(name)}">{shown}<figcaption>{words}{small}'
        f"<small>{text(base)}</small></figcaption></figure>"
    )


def signed(value: float) -> str:
    """Number with its sign; zero has none."""
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def sheet(figures: Iterable[str]) -> str:
    """Figures in as many columns as there is room for."""
    return '<div class="sheet">\n' + "\n".join(figures) + "\n</div>"


def matrix(names: Sequence[str], counts: Floats, links: dict[tuple[int, int], str]) -> str:
    """Confusion matrix, true classes down, predicted across; a count links to its pictures."""
    head = "".join(f'<th scope="col"><span>{text(name)}</span></th>' for name in names)
    lines = []
    for i, name in enumerate(names):
        total = counts[i].sum() or 1
        cells = []
        for j, count in enumerate(counts[i]):
            if not count:
                cells.append("<td></td>")
                continue
            kind = "right" if i == j else "wrong"
            link = links.get((i, j))
            shown = f'<a href="#{link}">{count:.0f}</a>' if link else f"{count:.0f}"
            share = f"--share: {count / total:.2f}"
            cells.append(f'<td class="{kind}" style="{share}">{shown}</td>')
        lines.append(f'<tr><th scope="row">{text(name)}</th>{"".join(cells)}</tr>')
    return (
        '<div class="wide"><table class="matrix">\n<thead><tr>'
        f'<th scope="col">true \\ predicted</th>{head}</tr></thead>\n'
        "<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def reliability_curve(said: Floats, right: Floats) -> str:
    """Curve through points (probability said, share that is right), both in 0 to 1, as SVG."""
    left, top = 46, 10
    points = [(left + SIDE * x, top + SIDE * (1 - y)) for x, y in zip(said, right, strict=True)]
    marks = "".join(
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
        f"<title>says {100 * p:.0f} %, right {100 * q:.0f} %</title></circle>"
        for (x, y), p, q in zip(points, said, right, strict=True)
    )
    ticks = "".join(
        f'<text x="{left + SIDE * t / 100:.0f}" y="{top + SIDE + 16}" text-anchor="middle">{t}'
        f'</text><text x="{left - 6}" y="{top + SIDE * (1 - t / 100) + 4:.0f}" '
        f'text-anchor="end">{t}</text>'
        for t in (0, 25, 50, 75, 100)
    )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    middle = left + SIDE / 2
    return (
        f'<svg class="curve" viewBox="0 0 {left + SIDE + 14} {top + SIDE + 40}" role="img" '
        'aria-label="Reliability curve">'
        f'<rect class="frame" x="{left}" y="{top}" width="{SIDE}" height="{SIDE}"/>'
        f'<line class="ideal" x1="{left}" y1="{top + SIDE}" x2="{left + SIDE}" y2="{top}"/>'
        f'<polyline class="line" points="{path}"/>{marks}{ticks}'
        f'<text x="{middle}" y="{top + SIDE + 34}" text-anchor="middle">'
        "probability of the predicted class (%)</text>"
        f'<text transform="rotate(-90)" x="{-(top + SIDE / 2)}" y="13" text-anchor="middle">'
        "how often it is right (%)</text></svg>"
    )
