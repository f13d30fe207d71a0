"""Elements escape what they hold; charts are well-formed and in their frames."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from dinogrl_jax.retrieval.report import charts
from dinogrl_jax.retrieval.report.page import Html, element, join, page, table

NASTY = "<script>alert('x')</script> & \"q\""


def test_text_is_escaped_and_markup_is_not():
    made = element("p", NASTY, element("b", "x"), title=NASTY, class_="a", data_x=None)
    assert made.count("<") == 4  # of <p>, <b> and their ends
    parsed = ElementTree.fromstring(made)
    assert parsed.text == NASTY and parsed.get("title") == NASTY
    assert parsed.attrib.keys() == {"title", "class"}
    assert join(NASTY, Html("<br>")).endswith("<br>")


def test_pages_and_tables_escape_too():
    whole = page(NASTY, table([NASTY], [[NASTY, NASTY, element("td", NASTY)]]))
    assert "<script" not in whole
    assert whole.count("&lt;script&gt;") == 6
    assert "default-src 'none'" in whole.replace("&#x27;", "'")


@pytest.mark.parametrize("low, high", [(0, 1), (0, 0.0003), (-7, 12), (9.1, 9.2), (1, 50)])
def test_ticks_are_few_and_inside(low, high):
    ticks = charts.Axis("x", low, high).ticks()
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-9 <= t <= high + (high - low) * 1e-5 for t in ticks)


def test_logarithmic_ticks_are_powers():
    assert charts.Axis("x", 1e-4, 1, log=True).ticks() == pytest.approx([1e-4, 1e-3, 0.01, 0.1, 1])


def coordinates(svg, tag, *names):
    for item in ElementTree.fromstring(svg).iter(tag):
        yield [float(item.get(name)) for name in names]


def test_a_curve_goes_from_corner_to_corner():
    x, y = charts.Axis("rank", 1, 5), charts.Axis("share", 0, 1, percent=True)
    svg = charts.line_chart(x, y, {"a": np.array([[1, 0.0], [5, 1.0]])})
    (curve,) = [p for p in ElementTree.fromstring(svg).iter("path") if "curve" in p.get("class")]
    numbers = [float(n) for n in re.findall(r"[\d.]+", curve.get("d"))]
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    assert numbers == [left, charts.HEIGHT - charts.BOTTOM, right, charts.TOP]
    assert "100 %" in svg and "rank" in svg


@pytest.mark.parametrize(("length", "below"), [(3, False), (60, True)])
def test_names_of_curves_stand_in_the_chart_or_below_it(length, below):
    x, y = charts.Axis("rank", 1, 5), charts.Axis("share", 0, 1)
    series = {f"<{letter * length}>": np.array([[1, 0.0], [5, 1.0]]) for letter in "abc"}
    made = charts.line_chart(x, y, series)
    parsed = ElementTree.fromstring(f"<all>{made}</all>")
    assert (parsed.find("div") is not None) == below
    curves = [p.get("class") for p in parsed.find("svg").iter("path") if "curve" in p.get("class")]
    assert curves == ["curve first", "curve second", "curve third"]
    for name in series:
        assert sum(name == text for text in parsed.itertext()) == 1


def test_more_curves_than_colours_are_an_error():
    axis = charts.Axis("x", 0, 1)
    series = {str(i): np.zeros((2, 2)) for i in range(len(charts.CLASSES) + 1)}
    with pytest.raises(ValueError):
        charts.line_chart(axis, axis, series)


def test_bars_stand_up_or_hang():
    svg = charts.bar_chart(np.array([2.0, -1.0, 0.0]), ["gait, 1", "gait, 2", "look, <1>"])
    boxes = list(coordinates(svg, "rect", "y", "height"))
    assert boxes[0][0] + boxes[0][1] == pytest.approx(boxes[1][0], abs=0.1)  # the zero line
    assert boxes[0][1] == pytest.approx(2 * boxes[1][1], abs=0.2) and boxes[2][1] == 0
    texts = [item.text for item in ElementTree.fromstring(svg).iter("text")]
    assert texts == ["gait", "look"]
    assert "look, &lt;1&gt;" in svg
    assert ElementTree.fromstring(charts.bar_chart(np.zeros(2), ["a", "b"])) is not None


def test_points_are_inside_and_named():
    points = np.random.default_rng(0).standard_normal((30, 2)) * [1, 50]
    names = [f"{NASTY} {i}" for i in range(30)]
    svg = charts.scatter_chart(points, [0.0] * 30, [i % 2 == 0 for i in range(30)], names)
    parsed = ElementTree.fromstring(svg)
    assert [t.text for t in parsed.iter("title")] == names
    placed = list(coordinates(svg, "circle", "cx", "cy"))
    assert len(placed) == 15 and all(0 < v < charts.WIDTH for xy in placed for v in xy)


def test_histograms_of_one_value():
    edges = np.linspace(0, 1, 4)
    svg = charts.histogram_chart("d", edges, {"a": np.array([0, 1.0, 0]), "b": np.zeros(3)})
    assert "nan" not in svg and ElementTree.fromstring(svg) is not None
