"""Lightning's trainer: its callback records every step and checks the optimizers."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from uncertainty_mtl import UncertaintyWeightedLoss
from uncertainty_mtl.integrations.lightning import SigmaCallback

pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.`",
)


class Module(LightningModule):
    """The smallest module with the loss as an attribute."""

    def __init__(self, decay: float = 0.0, tasks: tuple[str, ...] = ("y",)) -> None:
        super().__init__()
        self.model, self.decay = nn.Linear(2, 1), decay
        self.loss_fn = UncertaintyWeightedLoss(dict.fromkeys(tasks, "gaussian"))

    def training_step(self, batch, batch_idx):
        """Return the loss and its parts."""
        x, y = batch
        predicted = self.model(x)
        losses = self.loss_fn(
            dict.fromkeys(self.loss_fn, predicted), dict.fromkeys(self.loss_fn, y)
        )
        return {"loss": losses.total, "losses": losses}

    def configure_optimizers(self):
        """Return one optimizer for both."""
        if self.decay:
            return torch.optim.SGD(self.parameters(), lr=0.01, weight_decay=self.decay)
        groups = [{"params": self.model.parameters()}, *self.loss_fn.param_groups()]
        return torch.optim.SGD(groups, lr=0.01, weight_decay=0.1)


@pytest.fixture
def fit(tmp_path):
    data = DataLoader(TensorDataset(torch.randn(32, 2), torch.randn(32, 1)), batch_size=4)

    def run_trainer(module, callback, logger=False):
        trainer = Trainer(
            default_root_dir=tmp_path,
            max_epochs=2,
            accelerator="cpu",
            callbacks=[callback],
            logger=logger,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)

    return run_trainer


def test_the_callback_records_every_step(fit, tmp_path):
    module, callback = Module(), SigmaCallback(csv_path=tmp_path / "sigma.csv", flush_every=3)
    fit(module, callback)
    rows = callback.history.rows
    assert [row.step for row in rows] == list(range(1, 17))
    assert rows[-1].sigma == pytest.approx(module.loss_fn.sigmas()["y"].item())
    assert rows[0].sigma ** 2 == pytest.approx(rows[0].base_loss), "the first batch has set it"
    assert (tmp_path / "sigma.csv").read_text().count("\n") == 17
    assert json.dumps(rows[0]._asdict())


def test_the_logger_gets_one_row_for_every_step(fit, tmp_path):
    callback, logger = SigmaCallback(flush_every=3), CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    fit(Module(tasks=("a", "b")), callback, logger)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["sigma/a"]]
    assert [int(row["step"]) for row in logged] == list(range(1, 17))
    for field in ("sigma", "weight", "nll"):
        for task in ("a", "b"):
            recorded = [getattr(r, field) for r in callback.history.rows if r.task == task]
            assert [float(row[f"{field}/{task}"]) for row in logged] == pytest.approx(recorded)


def test_the_callback_tells_of_weight_decay(fit):
    with pytest.raises(ValueError, match=r"weight decay on the `log_var` of \['y'\]"):
        fit(Module(decay=0.1), SigmaCallback())


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_step_that_is_skipped_is_not_recorded(fit):
    class Skipping(Module):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 2 else super().training_step(batch, batch_idx)

    callback = SigmaCallback()
    fit(Skipping(), callback)
    assert len(callback.history.rows) == 14


def test_only_the_first_process_writes_the_record(fit, tmp_path):
    callback = SigmaCallback(csv_path=tmp_path / "sigma.csv")
    fit(Module(), callback)
    (tmp_path / "sigma.csv").unlink()
    for rank in (1, 0):
        trainer = SimpleNamespace(is_global_zero=rank == 0)
        callback.on_train_end(trainer, None)
        assert (tmp_path / "sigma.csv").exists() == (rank == 0)
