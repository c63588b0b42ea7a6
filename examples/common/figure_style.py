"""How figures look on the site: readable at the width of a page, on white and on black."""

from typing import Any

WIDTH = 7.4
"""Width in inches, about that of a page's text, so that letters keep the size given here."""

GREY = "#808080"  # readable on white and on black, as the background is transparent

STYLE: dict[str, Any] = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.titlesize": 10.5,
    "font.size": 10,
    "legend.fontsize": 10,
    "legend.framealpha": 0,
    "savefig.dpi": 200,
    "savefig.transparent": True,
    "text.color": GREY,
    "xtick.color": GREY,
    "xtick.labelsize": 9,
    "ytick.color": GREY,
    "ytick.labelsize": 9,
}
"""Settings for ``matplotlib.rc_context``, which has to enclose both drawing and saving.

``images/two_tasks.png`` is what the code of that tutorial saves in such a context.
"""
