"""The trainer on a GPU: it learns what it does on a CPU, and resumes as far as cuDNN allows."""

import pytest
import torch

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.training import train as training
from examples.cityscapes.training.log import read_log
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from tests.examples.tiny_run import TINY
from tests.examples.tiny_tree import write_tree

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


def run(tree, out, *, resume=False, **settings):
    config = TrainConfig(data=tree, out=out, **{**TINY, "device": "cuda", **settings})
    training.train(config, resume=resume)
    return read_checkpoint(out / "last.pt"), read_log(out / "metrics.jsonl")


def losses_of(lines):
    return torch.tensor([[line["loss"][task] for task in line["loss"]] for line in lines])


def test_a_resumed_run_ends_as_a_whole_one_as_far_as_cudnn_allows(tree, tmp_path, monkeypatch):
    whole, lines = run(tree, tmp_path / "whole", iterations=8)
    step = training.train_one_step

    def stop_before_iteration_4(state, parts, config, iteration, log):
        if iteration == 4:
            raise InputError("stopped")
        step(state, parts, config, iteration, log)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_one_step", stop_before_iteration_4)
        with pytest.raises(InputError, match="stopped"):
            run(tree, tmp_path / "parts", iterations=8)
    parts, resumed_lines = run(tree, tmp_path / "parts", iterations=8, resume=True)
    assert parts["iteration"] == whole["iteration"] == 8
    # cuDNN adds up in an order of its own, and differently each time.
    torch.testing.assert_close(losses_of(resumed_lines), losses_of(lines), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_first_losses_are_those_of_a_cpu(tree, tmp_path, precision):
    _, expected = run(tree, tmp_path / "cpu", iterations=2, device="cpu")
    _, found = run(tree, tmp_path / "cuda", iterations=2, precision=precision)
    rtol = 1e-2 if precision == "float32" else 1e-1
    torch.testing.assert_close(losses_of(found), losses_of(expected), rtol=rtol, atol=rtol)
