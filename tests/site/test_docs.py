"""Every Python block of the README and the docs runs, in the order of its page."""

from inspect import signature

import pytest
import torch.distributed.fsdp
from transformers.utils import is_torch_available

from tests.pages import (
    check_output,
    code_of,
    output_shown_by,
    pages_with_code,
    run_on_two_processes,
    run_page,
)

# Warnings of other libraries in ordinary use, about themselves or a missing accelerator.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.`",  # in the code of Lightning
    "ignore:The dirpath has changed from",  # Lightning, of every resumed run
    "ignore:You are using `torch.load` with `weights_only=False`",  # Lightning, on torch < 2.6
    "ignore:'pin_memory' argument is set as true but no accelerator",
)

# Their code is a script for `torchrun`.
ON_TWO_PROCESSES = {"train_on_several_processes"}
PAGES = pages_with_code()
by_name = {"ids": lambda page: page.stem}


def test_there_are_pages_with_code():
    # An empty list of pages would pass every test below.
    assert {"README", "two_tasks", *ON_TWO_PROCESSES} <= {page.stem for page in PAGES}


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("depth: 0.50", "depth: 0.53"),
        ("3 classes", "5 classes"),
        ("depth: 103", "depth: 100"),
        ("depth: 0.50", "label: 0.50"),
        ("depth: 0.50", "depth: 0.50 label: 0.50"),
        ("depth: -0.5", "depth: 0.5"),
        ("1.0e-3", "1.2e-2"),
        ("nan", "0.5"),
    ],
)
def test_another_output_than_the_shown_one_fails(printed, shown):
    with pytest.raises(AssertionError):
        check_output(printed, shown)


def test_an_output_may_differ_in_the_last_digits():
    check_output("depth: 0.502 of 101, 1.01e-3\n", "depth:  0.50 of 100, 1.00e-3")


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem not in ON_TWO_PROCESSES], **by_name)
def test_code_of_a_page_runs(page, tmp_path, monkeypatch):
    if page.stem == "use_with_hugging_face_trainer" and not is_torch_available():
        pytest.skip("the Trainer needs a newer torch")
    monkeypatch.chdir(tmp_path)
    run_page(page)


@pytest.mark.skipif(
    not hasattr(torch.distributed.fsdp, "fully_shard")
    or "ignored_params" not in signature(torch.distributed.fsdp.fully_shard).parameters,
    reason="the page uses `ignored_params` of FSDP2, which is new in torch 2.7",
)
@pytest.mark.parametrize("page", [p for p in PAGES if p.stem in ON_TWO_PROCESSES], **by_name)
def test_code_of_a_page_runs_on_two_processes(page, tmp_path):
    check_output(run_on_two_processes(code_of(page), tmp_path), output_shown_by(page))
