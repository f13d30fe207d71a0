"""Follow every link of a built site that stays in it: python docs/site/links.py build/site

Each has to lead to a file of the site and, behind a #, to a place in it. Nothing may be loaded from
elsewhere: the site has to be whole without a network. Links to other sites are counted, not opened.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {  # what a browser fetches by itself
    ("img", "src"),
    ("script", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("link", "href"),
}


class Page(HTMLParser):
    """The links of a page, and its places.

    Attributes:
        links: (tag, address) of each.
        places: what may stand behind a #.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str, str]] = []
        self.places = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            if name in ("href", "src") and value:
                self.links.append((tag, name, value))


def problems(site: Path) -> Iterator[str]:
    pages = {p.resolve(): Page(p.read_text(encoding="utf-8")) for p in site.rglob("*.html")}
    if not pages:
        yield f"{site} has no pages"
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        for tag, attribute, address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if (tag, attribute) in LOADED and parts.scheme != "data":
                    yield f"{where} loads {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{where}: {address} leads to no file"
            elif target in pages and unquote(parts.fragment) not in pages[target].places:
                yield f"{where}: {address} leads to no place in its page"


def main() -> int:
    site = Path(sys.argv[1])
    found = sorted(set(problems(site)))
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{site}: {len(found)} links that lead nowhere")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
