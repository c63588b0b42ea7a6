"""A directive that shows every figure of a folder, with a link to the page of the same name."""

from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from measurement_pages import PAGES
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class MeasuredFigures(SphinxDirective):
    """Show the PNG files of a folder, by name; nothing where there are none."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the figures, each below a heading made of its name."""
        self.env.note_reread()  # Sphinx cannot see that a file has joined the folder.
        page = Path(self.env.doc2path(self.env.docname))
        folder = page.parent / self.arguments[0]
        lines: list[str] = []
        for figure in sorted(folder.glob("*.png")):
            title = figure.stem.replace("_", " ")
            lines += [f"**{title}**", "", f"![{title}]({self.arguments[0]}/{figure.name})", ""]
            recipe = figure.with_suffix(".md")
            if recipe.exists():
                up = "../" * self.env.docname.count("/")
                lines += [f"[Figures and recipe]({up}{PAGES}/{recipe.name})", ""]
        if not lines:
            return []
        parent = nodes.container()
        self.state.nested_parse(
            StringList(["## Measured", "", *lines], str(page)), 0, parent, match_titles=True
        )
        return parent.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("measured-figures", MeasuredFigures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
