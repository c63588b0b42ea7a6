"""The record of a training, and the layers on it."""

import csv
import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from uncertainty_mtl import GaussianHead, SigmaHistory, UncertaintyWeightedLoss
from uncertainty_mtl.integrations.lightning import SigmaCallback
from uncertainty_mtl.integrations.tensorboard import log_to_tensorboard


def run(history: SigmaHistory, steps: int, lr: float = 0.1) -> None:
    loss_fn = history.loss_fn
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True), *loss_fn.parameters()], lr=lr)
    for step in range(steps):
        losses = loss_fn({"a": torch.tensor(4.0, requires_grad=True), "b": None})
        optimizer.zero_grad()
        losses.total.backward()
        history.record(step, losses)
        optimizer.step()


def loss() -> UncertaintyWeightedLoss:
    return UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})


def test_rows_hold_what_the_loss_said():
    history = SigmaHistory(loss(), flush_every=3)
    run(history, 5)
    rows = [row for row in history.rows if row.task == "a"]
    assert [row.step for row in rows] == list(range(5))
    assert rows[0][2:] == (1, 0.5, 4, 2)
    for row in rows:
        assert row.weight == pytest.approx(0.5 / row.sigma**2)
        assert row.base_loss == 4
        nll = row.weight * 4 + torch.log(torch.tensor(row.sigma)).item()
        assert row.nll == pytest.approx(nll, rel=1e-5)
    absent = [row for row in history.rows if row.task == "b"]
    assert absent[0].base_loss != absent[0].base_loss, "nan"
    assert absent[0].nll == 0


def test_tasks_of_a_group_are_recorded_too():
    loss_fn = UncertaintyWeightedLoss({"g": loss(), "c": "laplace"})
    history = SigmaHistory(loss_fn)
    one = torch.ones((), requires_grad=True)
    history.record(0, loss_fn({"g": {"a": 4 * one, "b": one}, "c": one}))
    rows = {row.task: row for row in history.rows}
    assert list(rows) == ["g.a", "g.b", "c"]
    assert rows["g.a"].base_loss == 4
    assert rows["g.a"].nll != rows["g.a"].nll, "nan"
    assert rows["c"].nll == pytest.approx(2**0.5)


def test_nothing_is_read_before_a_chunk_is_full(monkeypatch):
    history = SigmaHistory(loss(), flush_every=4)
    chunks = []
    history.listeners.append(lambda rows: chunks.append(len(rows)))
    run(history, 10)
    assert chunks == [8, 8]
    history.flush()
    assert chunks == [8, 8, 4]


def test_csv_is_written_whole(tmp_path):
    history = SigmaHistory(loss())
    run(history, 3)
    history.to_csv(tmp_path / "sigma.csv")
    with (tmp_path / "sigma.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert list(rows[0]) == ["step", "task", "sigma", "weight", "base_loss", "nll"]
    assert float(rows[0]["base_loss"]) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["sigma.csv"]


def test_figure_has_a_curve_for_each_task():
    history = SigmaHistory(loss())
    run(history, 3)
    axes = history.plot().axes
    assert [axis.get_title() for axis in axes] == ["sigma", "weight", "base loss"]
    assert [line.get_label() for line in axes[0].lines] == ["a", "b"]


def test_one_warning_tells_of_a_sigma_that_does_not_move():
    history = SigmaHistory(
        UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}), stuck_after=5
    )
    run(history, 6, lr=0.0)
    with pytest.warns(UserWarning, match=r"sigma of \['a', 'b'\] has not moved in 6 steps"):
        history.flush()
    run(history, 6, lr=0.0)
    history.flush()


def test_no_warning_for_sigmas_that_move_or_are_meant_to_stay():
    frozen = loss()
    frozen.freeze()
    closed = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, estimator="closed_form")
    for loss_fn in (
        frozen,
        closed,
        UncertaintyWeightedLoss({"a": "gaussian", "b": GaussianHead()}),
    ):
        if loss_fn is not frozen and loss_fn is not closed:
            loss_fn.freeze("b")
        history = SigmaHistory(loss_fn, stuck_after=5)
        if loss_fn is closed or loss_fn is frozen:
            for step in range(6):
                history.record(step, loss_fn({"a": torch.ones((), requires_grad=True), "b": None}))
        else:
            run(history, 6)
        history.flush()


def test_tensorboard_gets_every_row(tmp_path):
    history = SigmaHistory(loss(), flush_every=2)
    with SummaryWriter(tmp_path) as writer:
        log_to_tensorboard(history, writer)
        run(history, 4)
        history.flush()
    events = EventAccumulator(str(tmp_path)).Reload()
    scalars = events.Scalars("uncertainty/sigma/a")
    expected = [row.sigma for row in history.rows if row.task == "a"]
    assert [event.value for event in scalars] == pytest.approx(expected)
    assert "uncertainty/nll/b" in events.Tags()["scalars"]


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


lightning_noise = pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.`",
)


@lightning_noise
def test_lightning_records_every_step(fit, tmp_path):
    module, callback = Module(), SigmaCallback(csv_path=tmp_path / "sigma.csv", flush_every=3)
    fit(module, callback)
    rows = callback.history.rows
    assert [row.step for row in rows] == list(range(1, 17))
    assert rows[-1].sigma == pytest.approx(module.loss_fn.sigmas()["y"].item())
    assert (tmp_path / "sigma.csv").read_text().count("\n") == 17
    assert json.dumps(rows[0]._asdict())


@lightning_noise
def test_lightning_is_told_of_weight_decay(fit):
    with pytest.raises(ValueError, match=r"weight decay on that of \['y'\]"):
        fit(Module(decay=0.1), SigmaCallback())
