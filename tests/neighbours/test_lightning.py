"""Lightning's trainer: its callback records every step and checks the optimizers."""

import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
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

    def __init__(self, decay: float = 0.0) -> None:
        super().__init__()
        self.model, self.loss_fn, self.decay = (
            nn.Linear(2, 1),
            UncertaintyWeightedLoss({"y": "gaussian"}),
            decay,
        )

    def training_step(self, batch, batch_idx):
        """Return the loss and its parts."""
        x, y = batch
        losses = self.loss_fn({"y": self.model(x)}, {"y": y})
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

    def run_trainer(module, callback):
        trainer = Trainer(
            default_root_dir=tmp_path,
            max_epochs=2,
            accelerator="cpu",
            callbacks=[callback],
            logger=False,
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


def test_the_callback_tells_of_weight_decay(fit):
    with pytest.raises(ValueError, match=r"weight decay on that of \['y'\]"):
        fit(Module(decay=0.1), SigmaCallback())
