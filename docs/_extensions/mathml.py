"""Formulas as MathML, made when the site is built: no script, no font, no request."""

import re
from html import escape
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number

# The converter sets a function's name tight against its neighbours: "2logx".
FUNCTION = re.compile(r"<mi>(log|exp|max|min)</mi>(<mo stretchy)?")
NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'
WORD_JOINER = "&#8288;"
BAR = "\N{HORIZONTAL BAR}"


def to_mathml(latex: str, display: str) -> str:
    """Return a formula as MathML, with its source as the accessible name."""
    mathml = FUNCTION.sub(_spaced, convert(latex, display=display))
    mathml = _with_bars(mathml.replace(NAMESPACE, ""))
    return mathml.replace("<math ", f'<math aria-label="{escape(latex)}"{NAMESPACE} ', 1)


def _spaced(match: re.Match[str]) -> str:
    name, bracket = match.groups()
    space = "0" if bracket else "0.17em"
    return f'<mo lspace="0.17em" rspace="{space}">{name}</mo>{bracket or ""}'


def _with_bars(mathml: str) -> str:
    """Return the formula with its overlines as rows of the class ``overline``.

    The converter places a dash above an overlined expression. Browsers stretch a dash only with a
    font made for mathematics, which many computers lack; a border has the right width everywhere.
    """
    root = ElementTree.fromstring(mathml)  # noqa: S314 - written by the converter
    for over in list(root.iter("mover")):
        if len(over) == 2 and over[1].text == BAR:
            over.tag = "mrow"
            over.set("class", "overline")
            over.remove(over[1])
    return ElementTree.tostring(root, encoding="unicode")


def visit_math(self, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(to_mathml(node.astext(), "inline"))
    following = node.next_node(nodes.Text, descend=False, siblings=True)
    if following is not None and following.astext()[:1] in tuple(
        ",.;:)\N{RIGHT DOUBLE QUOTATION MARK}"
    ):
        self.body.append(WORD_JOINER)  # no line begins with a comma
    raise nodes.SkipNode


def visit_math_block(self, node: nodes.math_block) -> None:
    """Write a formula on a line of its own, which scrolls where the screen is narrow."""
    self.body.append(self.starttag(node, "div", CLASS="math-block", TABINDEX="0"))
    self.body.append(to_mathml(node.astext(), "block"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})</span>')
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the writer of formulas."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
