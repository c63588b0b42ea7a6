"""The search lists first the page that answers the question."""

import pytest

from tests.site.browser import needs_chromium

FIRST = {
    "LaplaceHead": "reference/heads.html#uncertainty_mtl.LaplaceHead",
    "negative loss": "explanation/negative_loss.html",
    "install": "how_to/install.html",
    "BCE": "how_to/weigh_binary_tasks.html",
    "GradNorm": "explanation/which_weighting.html",
    "to device": "faq.html",
    "learning rate": "how_to/sigma_learning_rate.html",
    "my loss gets negative": "explanation/negative_loss.html",
    "which learning rate for sigma": "how_to/sigma_learning_rate.html",
    "why are my weights not changing": "faq.html",
    "nan targets": "how_to/leave_labels_out.html",
    "BCEWithLogits": "how_to/weigh_binary_tasks.html",
    "multi gpu": "how_to/train_on_several_processes.html",
    "fp16": "how_to/use_mixed_precision_and_compile.html",
    "load checkpoint": "how_to/resume.html",
    "pinn": "how_to/losses_that_reach_zero.html",
    "freeze a task": "how_to/freeze_warm_up_and_prioritise.html",
    "custom loss": "how_to/weigh_reduced_losses.html",
    "tensorboard": "how_to/what_to_monitor.html",
}


@needs_chromium
@pytest.mark.parametrize(("query", "expected"), FIRST.items(), ids=list(FIRST))
def test_the_search_lists_the_right_page_first(page, address, query, expected):
    page.open(f"{address}/search.html?q={query.replace(' ', '+')}")
    page.wait("document.querySelectorAll('#search-results li a').length > 0")
    links = page.evaluate("[...document.querySelectorAll('#search-results li a')].map(a => a.href)")
    found = links[0].removeprefix(f"{address}/").split("?")[0]
    assert found.startswith(expected), links[:5]
    assert not page.errors
