"""HTML and SVG as text: elements, which escape the text in them, and the page around them."""

import html

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --text: #1c1e21; --soft: #62676e;
  --line: #dcdfe3; --first: #1f6fb8; --second: #c9541d; --third: #1f8a4c; --fourth: #8a3fa8;
  --fifth: #c2347a; --sixth: #00808a; --seventh: #7a5b17; --eighth: #5b636d;
  --good: #1f8a4c; --bad: #c62f3b; --hue: 42%; }
@media (prefers-color-scheme: dark) {
  :root { --page: #141618; --card: #1d2023; --text: #e7e9eb; --soft: #a0a7af; --line: #363b41;
    --first: #6cb2f2; --second: #f39a63; --third: #4cc47f; --fourth: #c78be0;
    --fifth: #f07aa8; --sixth: #45c4cc; --seventh: #d1ab57; --eighth: #a9b2bd;
    --good: #4cc47f; --bad: #f2727b; --hue: 66%; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0; line-height: 1.25; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
.soft, figcaption, .note { color: var(--soft); font-size: .875rem; }
.tiles { display: grid; gap: .5rem; margin: .75rem 0; max-width: 34rem;
  grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .5rem .75rem; display: grid; grid-template-columns: 1fr 1fr; }
.tile p { grid-column: 1 / -1; margin: 0; font-size: .875rem; color: var(--soft); }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; }
.tile span { font-size: .8rem; color: var(--soft); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .75rem;
  margin: .75rem 0; font-size: .875rem; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; }
details { font-size: .875rem; } summary { cursor: pointer; } ul { margin: .5rem 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child { text-align: left; }
th { font-weight: 600; }
td small { display: block; color: var(--soft); }
td.gain { color: var(--good); font-weight: 600; } td.loss { color: var(--bad); font-weight: 600; }
.words td, .words th { text-align: left; white-space: normal; min-width: 6.5rem; }
.matrix td, .matrix th { text-align: center; padding: .3rem .45rem; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
figure, .block { margin: 0; min-width: 0; }
svg { display: block; width: 100%; height: auto; max-width: 40rem; }
svg text { fill: var(--text); font: 11px system-ui, sans-serif; }
svg .soft { fill: var(--soft); font-size: 11px; }
.axis { stroke: var(--soft); stroke-width: 1; fill: none; }
.grid { stroke: var(--line); stroke-width: 1; }
.curve { fill: none; stroke-width: 2; }
.first { stroke: var(--first); } .second { stroke: var(--second); stroke-dasharray: 6 3; }
.third { stroke: var(--third); stroke-dasharray: 2 2; }
.fourth { stroke: var(--fourth); stroke-dasharray: 9 3 2 3; }
.fifth { stroke: var(--fifth); } .sixth { stroke: var(--sixth); stroke-dasharray: 6 3; }
.seventh { stroke: var(--seventh); stroke-dasharray: 2 2; }
.eighth { stroke: var(--eighth); stroke-dasharray: 9 3 2 3; }
.keys { display: flex; flex-wrap: wrap; gap: .25rem 1rem; font-size: .8rem; }
.swatch { display: inline-block; width: 1.7rem; margin-right: .35rem; vertical-align: middle; }
.area { stroke-width: 1.5; fill-opacity: .25; stroke-dasharray: none; }
.area.first, .key.first { fill: var(--first); } .area.second, .key.second { fill: var(--second); }
.key { stroke: none; }
.bar.good { fill: var(--good); } .bar.bad { fill: var(--bad); }
.point { stroke: var(--card); stroke-width: .7; fill-opacity: .9; }
.list { display: flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0; padding: 0; }
.entry { font-size: .75rem; line-height: 1.3; max-width: calc(4.5rem + 6px); }
.entry.query { max-width: calc(13.5rem + 6px); }
.entry .frame { border: 3px solid var(--line); border-radius: .3rem; overflow: hidden;
  display: flex; background: var(--line); }
.entry img, .noframe { display: block; width: 4.5rem; height: 9rem; object-fit: contain; }
.entry.good .frame { border-color: var(--good); } .entry.bad .frame { border-color: var(--bad); }
.entry.good b { color: var(--good); } .entry.bad b { color: var(--bad); }
.noframe { padding: .4rem; color: var(--soft); }
.detail { display: grid; gap: 1rem; align-items: start; margin-bottom: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
.seen { display: flex; flex-wrap: wrap; gap: .75rem; }
.seen figure { flex: 1 1 16rem; max-width: 24rem; }
.labelled { display: grid; grid-template: auto 1fr / auto 1fr; gap: .1rem .35rem;
  font-size: .65rem; line-height: 1.1; color: var(--soft); }
.labelled .columns { grid-area: 1 / 2; display: grid; grid-auto-flow: column;
  grid-auto-columns: minmax(0, 1fr); text-align: center; }
.labelled .rows { grid-area: 2 / 1; display: grid; grid-auto-rows: minmax(0, 1fr);
  align-items: center; max-width: 4.2rem; }
.labelled img { grid-area: 2 / 2; display: block; width: 100%; border-radius: .3rem;
  image-rendering: pixelated; }
hr { border: 0; border-top: 1px solid var(--line); margin: 1rem 0; }
@media (max-width: 480px) { body { padding: .5rem; } section { padding: .75rem; }
  th, td { padding: .3rem .4rem; } th:first-child { white-space: normal; min-width: 5.5rem; } }
"""
# the browser loads and runs nothing, whatever file names contain
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
VOID = ("img", "meta", "hr")


class Html(str):
    """Markup. Other text is escaped when an element takes it in."""


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """An element; `class_` becomes class, `stroke_width` stroke-width; None leaves one out."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in VOID else f"{join(*children)}</{name}>"
    return Html(f"<{name}{pairs}>{end}")


def join(*pieces: object) -> Html:
    """The pieces one after the other; text is escaped, markup is not."""
    return Html("".join(p if isinstance(p, Html) else html.escape(str(p)) for p in pieces))


def table(heads: list[object], rows: list[list[object]], class_: str | None = None) -> Html:
    """A table, which scrolls if it is too wide; a cell may be a `td` element."""

    def cell(content: object) -> Html:
        ready = isinstance(content, Html) and content.startswith("<td")
        return content if ready else element("td", content)

    lines = [element("tr", element("th", row[0], scope="row"), *map(cell, row[1:])) for row in rows]
    head = element("tr", *(element("th", h, scope="col") for h in heads))
    body = join(element("thead", head), element("tbody", *lines))
    return element("div", element("table", body, class_=class_), class_="scroll")


def section(title: str, *children: object) -> Html:
    return element("section", element("h2", title), *children)


def figure(chart: Html, caption: str) -> Html:
    return element("figure", chart, element("figcaption", caption))


def page(title: str, *children: object) -> str:
    """The complete HTML document."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        Html(f"<style>{STYLE}</style>"),
    )
    body = element("body", element("h1", title), *children)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"
