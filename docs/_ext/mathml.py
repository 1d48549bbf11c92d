"""Equations as MathML, written when the site is built: no script, no font and no network in the browser."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

# What the converter does not know, in the words that it knows.
WORDS = {
    r"\begin{aligned}": r"\begin{align*}",
    r"\end{aligned}": r"\end{align*}",
}
WORD = re.compile(r"_\{([a-z]{3,})\b")  # a subscript that is a word stands upright
# Brackets that grow need a font that not every reader has: a matrix gets borders instead (celltwin.css).
MATRIX = re.compile(r"<mo[^>]*>&#x0005B;</mo><mtable>(.*?)</mtable><mo[^>]*>&#x0005D;</mo>", re.DOTALL)
# A function's name stands off from its argument, unless that is in brackets.
NAME = re.compile(r"(?<!<msub>)(?<!<msup>)(?<!<munder>)<mi>(\w{3,})</mi>(?!<mo[^>]*>&#x00028;)")


def mathml(latex: str, display: str = "inline") -> str:
    """LaTeX as MathML."""
    for unknown, known in WORDS.items():
        latex = latex.replace(unknown, known)
    latex = WORD.sub(r"_{\\text{\1}", latex.replace(r"\mathrm", r"\text"))
    made = MATRIX.sub(r'<mtable class="bracketed">\1</mtable>', convert(latex, display=display))
    return NAME.sub(r'<mi>\1</mi><mspace width="0.17em"/>', made)


def _inline(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _display(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="equation"))
    self.body.append(mathml(node.astext().strip(), "block"))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
