"""Every recorded row becomes scalars of TensorBoard."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from uncertainty_mtl import SigmaHistory, UncertaintyWeightedLoss
from uncertainty_mtl.integrations.tensorboard import log_to_tensorboard


def test_tensorboard_gets_every_row(tmp_path):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    history = SigmaHistory(loss_fn, flush_every=2)
    with SummaryWriter(tmp_path) as writer:
        log_to_tensorboard(history, writer)
        for step in range(4):
            history.record(step, loss_fn(torch.tensor([2.0 + step, 1.0]).requires_grad_()))
        history.flush()
    events = EventAccumulator(str(tmp_path)).Reload()
    scalars = events.Scalars("uncertainty/base_loss/a")
    assert [event.value for event in scalars] == [2, 3, 4, 5]
    sigmas = [event.value for event in events.Scalars("uncertainty/sigma/a")]
    assert sigmas == pytest.approx([row.sigma for row in history.rows if row.task == "a"])
    assert "uncertainty/nll/b" in events.Tags()["scalars"]
