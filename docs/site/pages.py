"""How pages are written: Sphinx's own page of search results gives way to docs/search.md."""

from sphinx.builders.html import StandaloneHTMLBuilder

RESULTS = "find"


class Site(StandaloneHTMLBuilder):
    name = "html"

    def handle_page(self, pagename, addctx, templatename="page.html", **others) -> None:
        """Write a page; the one of results, `search` to Sphinx too, is find.html."""
        pagename = RESULTS if templatename == "search.html" else pagename
        super().handle_page(pagename, addctx, templatename, **others)


def setup(app) -> dict:
    app.add_builder(Site, override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
