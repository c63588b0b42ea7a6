"""Formulas are laid out as mathematics, and the bar of a mean spans what it is the mean of."""

import re

import pytest

from tests.site.browser import needs_chromium

# The browser's own boxes: a bar is the upper border of its row, the rest are the letters below it.
BARS = """
    [...document.querySelectorAll('math .overline')].map(row => {
        const bar = row.getBoundingClientRect();
        const style = getComputedStyle(row);
        const letters = [...row.querySelectorAll('mi, mn, mo, mtext')]
            .map(e => e.getBoundingClientRect());
        return {
            formula: row.closest('math').getAttribute('aria-label'),
            line: style.borderTopStyle === 'solid' && style.borderTopColor === style.color
                ? parseFloat(style.borderTopWidth) : 0,
            left: bar.left, right: bar.right, top: bar.top,
            first: Math.min(...letters.map(r => r.left)),
            last: Math.max(...letters.map(r => r.right)),
            highest: Math.min(...letters.map(r => r.top)),
            before: row.previousElementSibling?.getBoundingClientRect().right ?? -1e9,
            after: row.nextElementSibling?.getBoundingClientRect().left ?? 1e9,
        };
    })
"""
PAGES = [
    "explanation/derivation.html",
    "reference/heads.html",
    "reference/model_uncertainty.html",
]


@needs_chromium
def test_formulas_are_typeset(page, address):
    page.open(f"{address}/explanation/derivation.html")
    sizes = page.evaluate(
        "[...document.querySelectorAll('math')].map(m => m.getBoundingClientRect())"
        ".map(r => [r.width, r.height])"
    )
    assert len(sizes) > 20
    assert all(width > 3 and height > 5 for width, height in sizes)
    # A fraction is much higher than its numerator: it is laid out, not printed as its source.
    ratios = page.evaluate(
        "[...document.querySelectorAll('mfrac')].map(f => [f, f.firstElementChild]"
        ".map(e => e.getBoundingClientRect().height)).map(([all, top]) => all / top)"
    )
    assert ratios
    assert min(ratios) > 1.5
    text = page.evaluate("document.querySelector('article').innerText")
    assert not re.search(r"\\(frac|tfrac|sigma|overline|log|mathrm)|\$", text)


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
def test_the_bar_of_a_mean_spans_all_of_its_expression_and_nothing_else(page, address, name):
    page.open(f"{address}/{name}")
    bars = page.evaluate(BARS)
    sources = page.evaluate("[...document.querySelectorAll('math')].map(m => m.ariaLabel)")
    assert len(bars) == sum(source.count(r"\overline") for source in sources)
    assert bars
    for bar in bars:
        assert bar["line"] > 0, bar
        assert bar["left"] <= bar["first"] + 0.5, bar
        assert bar["right"] >= bar["last"] - 0.5, bar
        assert bar["right"] - bar["left"] < bar["last"] - bar["first"] + 4, (
            bar
        )  # space of an exponent
        assert bar["top"] + bar["line"] <= bar["highest"] + 0.5, bar
        assert bar["before"] <= bar["left"] + 0.5, bar
        assert bar["right"] <= bar["after"] + 0.5, bar
