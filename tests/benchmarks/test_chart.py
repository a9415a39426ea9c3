"""The chart of `python -m tests.benchmarks load`: well-formed, and each point where its numbers say."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from tests.benchmarks.chart import GAP, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Panel, decades, draw, ticks
from tests.benchmarks.offered import Row, picture, table

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    Row(offered=100, believed=100, believed_p99=2.0, shed=0, shed_p99=None, set=100, set_p99=3.0),
    Row(offered=1500, believed=900, believed_p99=80.0, shed=600, shed_p99=40.0, set=1500, set_p99=500.0),
]


def lines(root: Element, kind: str) -> list[list[tuple[float, float]]]:
    """The points of each line of that class that is not of the legend."""
    found = []
    for each in root.iter(f"{SVG}polyline"):
        points = [tuple(map(float, pair.split(","))) for pair in each.attrib["points"].split()]
        if each.attrib["class"] == kind and points[0][1] >= TOP:
            found.append([(x, y) for x, y in points])
    return found


def texts(root: Element) -> list[str]:
    """What can be read, in order."""
    return [each.text or "" for each in root.iter(f"{SVG}text")]


def test_points_are_where_their_numbers_say() -> None:
    """From nought to the last tick on both axes of the first panel; each power of ten as high on the second."""
    panels = [
        Panel("a second", {"a": [(0, 0), (500, 25), (1000, 50)], "b": [(1000, 10)]}),
        Panel("ms", {"a": [(0, 1), (500, 10), (1000, 100)], "b": []}, log=True),
    ]
    root = fromstring(draw("1 < 2 & 3", "a note", "x, each", panels, (500, "half")))
    right, middle, second = WIDTH - RIGHT, (LEFT + WIDTH - RIGHT) / 2, TOP + HEIGHT + GAP
    rising = [(LEFT, HEIGHT), (middle, HEIGHT / 2), (right, 0)]
    assert lines(root, "line s0") == [[(x, top + y) for x, y in rising] for top in (TOP, second)]
    assert lines(root, "line s1") == [[(right, TOP + HEIGHT * 0.8)]]
    assert lines(root, "mark") == [[(middle, top), (middle, top + HEIGHT)] for top in (TOP, second)]
    circles = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")]
    assert circles[1:] == [(x, top + y) for top in (TOP, second) for x, y in rising]
    said = texts(root)
    assert said[:4] == ["1 < 2 & 3", "a note", "a", "b"]
    assert {"a second", "ms", "x, each", "half", "1,000"} <= set(said)
    assert root.findtext(f"{SVG}title") == "1 < 2 & 3"


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1000, [0, 200, 400, 600, 800, 1000]),
        (1001, [0, 500, 1000, 1500]),
        (2850, [0, 1000, 2000, 3000]),
        (4999, [0, 1000, 2000, 3000, 4000, 5000]),
    ],
)
def test_ticks_are_round_and_few(most: float, expected: list[float]) -> None:
    """The last is not below the most."""
    assert ticks(most) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [(2, 500, [1, 10, 100, 1000]), (0.5, 5, [0.1, 1, 10]), (10, 10, [10, 100])],
)
def test_decades_enclose(least: float, most: float, expected: list[float]) -> None:
    """At least two, so that there is a height."""
    assert decades(least, most) == pytest.approx(expected)


def test_what_did_not_happen_is_not_drawn() -> None:
    """Nothing was shed at the lower rate: one point of it in each panel, and `-` in the table."""
    root = fromstring(picture(ROWS, 1000, "of a test"))
    assert [len(points) for points in lines(root, "line s0")] == [2, 2]
    assert [len(points) for points in lines(root, "line s1")] == [1, 1]
    assert texts(root)[2:5] == ["believed and on disk", "shed with 503", "R: one SET"]
    calm = fromstring(picture(ROWS[:1], 1000, "of a test"))
    assert "shed with 503" not in texts(calm)
    _, low, high = table(ROWS, 1000).splitlines()
    assert low.replace("|", "").split() == ["10%", "100", "100", "2.0", "0", "-", "100", "3.0"]
    assert high.replace("|", "").split() == ["150%", "1500", "900", "80.0", "600", "40.0", "1500", "500.0"]
