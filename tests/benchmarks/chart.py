"""A chart of lines as SVG: panels above each other over one axis. It has its own background, light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 760, 76, 24
TOP, HEIGHT, GAP, BOTTOM = 92, 200, 44, 56
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .note { fill: #59636e }
.back { fill: #ffffff } .grid { stroke: #d1d9e0 } .mark { stroke: #59636e; stroke-dasharray: 2 4 }
.line { fill: none; stroke-width: 2 }
.s0 { stroke: #0969da } .s1 { stroke: #bc4c00; stroke-dasharray: 7 4 } .s2 { stroke: #59636e; stroke-dasharray: 2 3 }
.p0 { fill: #0969da } .p1 { fill: #bc4c00 } .p2 { fill: #59636e }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .note { fill: #9198a1 }
.back { fill: #0d1117 } .grid { stroke: #30363d } .mark { stroke: #9198a1 }
.s0 { stroke: #4493f8 } .s1 { stroke: #f0883e } .s2 { stroke: #9198a1 }
.p0 { fill: #4493f8 } .p1 { fill: #f0883e } .p2 { fill: #9198a1 }
}"""


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share an axis: name → points. `log`: each power of ten is as high as the next; values are above 0."""

    label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log: bool = False


def ticks(most: float) -> list[float]:
    """Round values from 0 to the first that is not below `most`: six at most."""
    step = next(each for power in range(floor(log10(most)) - 1, 99) if (each := _step(power, most)))
    return [step * number for number in range(ceil(round(most / step, 9)) + 1)]


def _step(power: int, most: float) -> float:
    return next((each for part in (1, 2, 5) if most / (each := part * 10.0**power) <= 5), 0.0)


def decades(least: float, most: float) -> list[float]:
    """The powers of ten around both."""
    lowest = floor(log10(least))
    return [10.0**power for power in range(lowest, max(ceil(log10(most)), lowest + 1) + 1)]


def draw(title: str, note: str, x_label: str, panels: Sequence[Panel], mark: tuple[float, str]) -> str:
    """The SVG. `mark` is a value of the x axis and what it is; `x_label` and each panel's label name their unit.

    A name has the same colour and dash in each panel, by its place among all names; three look different.
    """
    names = list(dict.fromkeys(name for panel in panels for name, points in panel.lines.items() if points))
    across = ticks(max(x for panel in panels for points in panel.lines.values() for x, _ in points))
    height = TOP + len(panels) * (HEIGHT + GAP) - GAP + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><style>{STYLE}</style>',
        f'<rect class="back" width="{WIDTH}" height="{height}"/>',
        _text(LEFT, 28, title, "title"),
        _text(LEFT, 48, note, "note"),
    ]
    for look, name in enumerate(names):
        x = LEFT + look * 210
        parts += [_line([(x, 68), (x + 30, 68)], f"line s{look}"), _dot(x + 15, 68, look), _text(x + 38, 72.5, name)]
    for number, panel in enumerate(panels):
        top = TOP + number * (HEIGHT + GAP)
        parts += _drawn(panel, top, across, names, (mark[0], "" if number else mark[1]))
    bottom = height - BOTTOM
    parts += [_text(_at(each, across), bottom + 18, f"{each:,.10g}", anchor="middle") for each in across]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 42, x_label, anchor="middle"))
    return "\n".join([*parts, "</svg>", ""])


def _at(value: float, across: Sequence[float]) -> float:
    return LEFT + value / across[-1] * (WIDTH - LEFT - RIGHT)


def _drawn(
    panel: Panel, top: float, across: Sequence[float], names: Sequence[str], mark: tuple[float, str]
) -> list[str]:
    values = [y for points in panel.lines.values() for _, y in points]
    marks = decades(min(values), max(values)) if panel.log else ticks(max(values))

    def high(value: float) -> float:
        part = log10(value / marks[0]) / log10(marks[-1] / marks[0]) if panel.log else value / marks[-1]
        return top + HEIGHT * (1 - part)

    parts = []
    for each in marks:
        parts.append(_line([(LEFT, high(each)), (WIDTH - RIGHT, high(each))], "grid"))
        parts.append(_text(LEFT - 8, high(each) + 4, f"{each:,.10g}", anchor="end"))
    x = _at(mark[0], across)
    parts += [_line([(x, top), (x, top + HEIGHT)], "mark"), _text(x + 5, top + 12, mark[1], "note")]
    middle = top + HEIGHT / 2
    parts.append(_text(18, middle, panel.label, anchor="middle", more=f' transform="rotate(-90 18 {middle:.6g})"'))
    for name, points in reversed(list(panel.lines.items())):
        if points:
            look, placed = names.index(name), [(_at(x, across), high(y)) for x, y in points]
            parts += [_line(placed, f"line s{look}"), *(_dot(x, y, look) for x, y in placed)]
    return parts


def _line(points: Sequence[tuple[float, float]], kind: str) -> str:
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.2f},{y:.2f}" for x, y in points)}"/>'


def _dot(x: float, y: float, look: int) -> str:
    """A circle, a square, a diamond."""
    if look == 0:
        return f'<circle class="p0" cx="{x:.2f}" cy="{y:.2f}" r="4"/>'
    turned = f' transform="rotate(45 {x:.2f} {y:.2f})"' if look > 1 else ""
    return f'<rect class="p{look}" x="{x - 3.5:.2f}" y="{y - 3.5:.2f}" width="7" height="7"{turned}/>'


def _text(x: float, y: float, said: str, kind: str = "", anchor: str = "start", more: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}"{more}>{escape(said)}</text>'
