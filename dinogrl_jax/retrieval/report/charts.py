"""Charts as SVG elements; the style of the page sets their colours, for light and dark mode."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dinogrl_jax.retrieval.report.page import Html, element, join

WIDTH, HEIGHT = 344, 236  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 26, 40  # margins of the plot inside
BARS = 100  # height from the longest bar above 0 to the longest below
# of the series, in the page's style
CLASSES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
LETTER, KEY = 6.2, 24  # widths of a letter, about, and of the colour beside a series' name


class Axis(NamedTuple):
    """An axis of a chart: its label and its range."""

    label: str
    low: float
    high: float
    log: bool = False
    percent: bool = False

    def position(self, value: float | np.ndarray) -> float | np.ndarray:
        """Where values lie between the ends of the axis, 0 to 1."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = np.log10(np.maximum(value, low)), np.log10(low), np.log10(high)
        return (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values along the axis, at most seven."""
        if self.log:
            powers = np.arange(np.ceil(np.log10(self.low)), np.log10(self.high) + 1e-9)
            return [10.0**power for power in powers[:: len(powers) // 7 + 1]]
        rough = (self.high - self.low) / 6
        unit = 10.0 ** np.floor(np.log10(rough))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
        first = np.ceil(self.low / step - 1e-9) * step
        # + 0.0 turns −0 into 0
        return [float(t) + 0.0 for t in np.arange(first, self.high + step * 1e-6, step)]

    def tick_label(self, tick: float) -> str:
        return f"{100 * tick:.4g} %" if self.percent else f"{tick:.4g}"


def x_position(axis: Axis, value: float | np.ndarray) -> float | np.ndarray:
    return LEFT + axis.position(value) * (WIDTH - LEFT - RIGHT)


def y_position(axis: Axis, value: float | np.ndarray) -> float | np.ndarray:
    return HEIGHT - BOTTOM - axis.position(value) * (HEIGHT - TOP - BOTTOM)


def chart(x: Axis, y: Axis, keys: Sequence[str], *marks: Html) -> Html:
    """A chart: the grid, axes, a legend of the series, and the marks."""
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    elements = []
    for tick in x.ticks():
        at = f"{x_position(x, tick):.1f}"
        elements.append(element("line", class_="grid", x1=at, x2=at, y1=top, y2=bottom))
        elements.append(
            element("text", x.tick_label(tick), x=at, y=bottom + 15, text_anchor="middle")
        )
    for tick in y.ticks():
        at = f"{y_position(y, tick):.1f}"
        elements.append(element("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
        place = {"x": left - 5, "y": f"{float(at) + 4:.1f}"}
        elements.append(element("text", y.tick_label(tick), **place, text_anchor="end"))
    elements.append(element("path", class_="axis", d=f"M{left} {top}V{bottom}H{right}"))
    middle = (left + right) / 2
    soft = {"class_": "soft", "text_anchor": "middle"}
    elements.append(element("text", x.label, x=middle, y=HEIGHT - 6, **soft))
    return svg(HEIGHT, f"{y.label} by {x.label}", *elements, *marks, legend(keys, y.label))


def svg(height: int, title: str, *elements: Html) -> Html:
    return element("svg", *elements, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=title)


def legend(names: Sequence[str], label: str) -> Html:
    """The label of the vertical axis, and the colour of each series."""
    elements, at = [element("text", label, class_="soft", x=2, y=14)], WIDTH
    for name, class_ in reversed([*zip(names, CLASSES, strict=False)]):
        if name:
            at -= LETTER * len(name) + KEY
            elements.append(
                element("rect", class_=f"key {class_}", x=f"{at:.1f}", y=6, width=10, height=8)
            )
            elements.append(element("text", name, x=f"{at + 14:.1f}", y=14))
    return join(*elements)


def svg_path(x: Axis, y: Axis, points: Float[np.ndarray, "n 2"]) -> str:
    where = zip(x_position(x, points[:, 0]), y_position(y, points[:, 1]), strict=True)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in where)


def line_chart(x: Axis, y: Axis, series: Mapping[str, Float[np.ndarray, "n 2"]]) -> Html:
    """A chart with a curve for each series of points (x, y), of which there are eight at most.

    Names that have no room in the chart stand below it.
    """
    marks = [
        element("path", class_=f"curve {class_}", d=svg_path(x, y, points))
        for points, class_ in zip(series.values(), CLASSES[: len(series)], strict=True)
    ]
    if sum(LETTER * len(name) + KEY for name in series) + LETTER * len(y.label) <= WIDTH:
        return chart(x, y, list(series), *marks)
    return join(chart(x, y, [], *marks), key_list(list(series)))


def key_list(names: Sequence[str]) -> Html:
    """The line of each series beside its name, as text that wraps."""
    look = {"viewBox": "0 0 26 8", "class_": "swatch", "aria_hidden": "true"}
    keys = []
    for name, class_ in zip(names, CLASSES, strict=False):
        line = element("path", class_=f"curve {class_}", d="M0 4H26")
        keys.append(element("span", element("svg", line, **look), name))
    return element("div", *keys, class_="keys")


def histogram_chart(
    label: str, edges: Float[np.ndarray, " n1"], series: Mapping[str, Float[np.ndarray, " n"]]
) -> Html:
    """The shares of each series in the bins between the edges, as steps over each other."""
    top = max(float(shares.max(initial=0)) for shares in series.values()) or 1.0
    x = Axis(label, float(edges[0]), float(edges[-1]))
    y = Axis("share", 0, top, percent=True)
    marks = []
    for shares, class_ in zip(series.values(), CLASSES, strict=False):
        corners = np.stack([np.repeat(edges, 2)[1:-1], np.repeat(shares, 2)], 1)
        closed = np.concatenate([[[edges[0], 0]], corners, [[edges[-1], 0]]])
        marks.append(element("path", class_=f"area {class_}", d=svg_path(x, y, closed)))
    return chart(x, y, list(series), *marks)


def bar_chart(values: Float[np.ndarray, " n"], names: Sequence[str]) -> Html:
    """A bar for each value: green and up above 0, red and down below; hovering shows its name.

    Names like "gait, band 1" form groups by the text before the comma, which labels the group.
    """
    high, low = max(float(values.max()), 0.0), min(float(values.min()), 0.0)
    scale = BARS / max(high - low, 1e-12)
    zero, step, bars, groups, before = 6 + high * scale, WIDTH / len(values), [], [], None
    for i, (value, name) in enumerate(zip(values.tolist(), names, strict=True)):
        size = abs(value) * scale
        bars.append(
            element(
                "rect",
                element("title", f"{name}: {value:+.4f}"),
                class_=f"bar {'good' if value >= 0 else 'bad'}",
                x=f"{(i + 0.1) * step:.1f}",
                width=f"{0.8 * step:.1f}",
                y=f"{zero - size if value >= 0 else zero:.1f}",
                height=f"{size:.1f}",
            )
        )
        group, comma, _ = name.partition(",")
        if comma and group != before:  # a line where it begins, and its label below it
            look = {"class_": "soft", "x": f"{i * step + 4:.1f}", "y": BARS + 22}
            line = element("path", class_="axis", d=f"M{i * step:.1f} 6V{BARS + 24}")
            groups += [line, element("text", group, **look)]
            before = group
    axis = element("path", class_="axis", d=f"M0 {zero:.1f}H{WIDTH}")
    return svg(BARS + 30, "contribution of parts", *bars, axis, *groups)


def scatter_chart(
    points: Float[np.ndarray, "n 2"],
    hues: Sequence[float],
    round_: Sequence[bool],
    names: Sequence[str],
) -> Html:
    """Points without axes: circles (`round_`) or triangles, with hues in degrees."""
    low, high = points.min(0), points.max(0)
    span = max(float((high - low).max()), 1e-9)
    size = WIDTH - 20
    placed = 10 + (points - low + (span - (high - low)) / 2) / span * size
    elements = []
    for (x, y), hue, circle, name in zip(placed.tolist(), hues, round_, names, strict=True):
        title = element("title", name)
        look = {"class_": "point", "style": f"fill: hsl({hue:.0f} 65% var(--hue))"}
        if circle:
            elements.append(element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, **look))
        else:
            corners = f"M{x:.1f} {y - 5:.1f}l4.6 8.5h-9.2z"
            elements.append(element("path", title, d=corners, **look))
    return svg(WIDTH, "t-SNE of descriptors", *elements)
