"""A gallery of the notebooks, each with the first figure that it made: `{gallery}` in a page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)


class Shelf(nodes.General, nodes.Element):
    """Where the cards go, once the figures are known."""


class Gallery(SphinxDirective):
    """Cards in the order of the names given, one a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        return [Shelf(names=[line.strip() for line in self.content if line.strip()])]


def _card(app: Sphinx, page: str, name: str) -> str:
    tree = app.env.get_doctree(name)
    title = next(tree.findall(nodes.title)).astext()
    says = next((p.astext() for p in tree.findall(nodes.paragraph)), "")
    figures = [image["uri"] for image in tree.findall(nodes.image)]
    if not figures:
        log.warning("notebook %s made no figure", name)
        return ""
    image = f"_images/{Path(app.env.images[figures[0]][1]).name}"
    up = "../" * page.count("/")
    return (
        f'<a class="shelf-card" href="{up}{name}.html"><img alt="" src="{up}{image}">'
        f"<strong>{html.escape(title)}</strong><span>{html.escape(says)}</span></a>"
    )


def _fill(app: Sphinx, tree: nodes.document, page: str) -> None:
    for shelf in list(tree.findall(Shelf)):
        cards = "".join(_card(app, page, name) for name in shelf["names"])
        shelf.replace_self(nodes.raw("", f'<div class="shelf">{cards}</div>', format="html"))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(Shelf)
    app.add_directive("gallery", Gallery)
    app.connect("doctree-resolved", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
