"""Lightning's manual optimization, with one optimizer for the network and one for the sigmas."""

import math

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from uncertainty_mtl import UncertaintyWeightedLoss
from uncertainty_mtl.integrations.lightning import SigmaCallback

# What Lightning says of its own code, and of every small run.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.`",
)

NUM_BATCHES = 200


def network_and_sigmas(module):
    # Plain SGD for the network: sigma needs something like Adam.
    return [
        torch.optim.SGD(module.model.parameters(), lr=1e-3),
        torch.optim.Adam(module.loss_fn.param_groups()),
    ]


def network_only(module):
    return network_and_sigmas(module)[:1]


def sigmas_twice(module):
    first, second = network_and_sigmas(module)
    first.add_param_group({"params": [module.loss_fn["depth"].log_var]})
    return [first, second]


def sigmas_decayed(module):
    return [network_only(module)[0], torch.optim.AdamW(module.loss_fn.parameters())]


class Scenes(LightningModule):
    """A linear layer, the loss of its two outputs, and as many optimizers as there are."""

    def __init__(self, optimizers):
        super().__init__()
        self.automatic_optimization = False
        self.model = nn.Linear(4, 2)
        self.loss_fn = UncertaintyWeightedLoss({"depth": "laplace", "normals": "gaussian"})
        self.optimizers_of = optimizers

    def training_step(self, batch, batch_idx):
        """Step every optimizer."""
        x, depth, normals = batch
        predictions = dict(zip(("depth", "normals"), self.model(x).unbind(1), strict=True))
        losses = self.loss_fn(predictions, {"depth": depth, "normals": normals})
        optimizers = self.optimizers(use_pl_optimizer=True)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(losses.total)
        for optimizer in optimizers:
            optimizer.step()
        return {"loss": losses.total, "losses": losses}

    def configure_optimizers(self):
        """Return the optimizers that the test asks for."""
        return self.optimizers_of(self)


def fit(module, folder):
    x = torch.randn(16 * NUM_BATCHES, 4)
    noise = torch.randn(len(x))
    data = TensorDataset(x, x[:, 0] + 30 * noise, x[:, 1] + 0.1 * noise)
    callback = SigmaCallback(flush_every=50)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[callback],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=16))
    return callback, data.tensors


def test_both_optimizers_train_what_is_theirs(tmp_path):
    torch.manual_seed(0)
    module = Scenes(network_and_sigmas)
    before = module.model.weight.detach().clone()
    callback, (x, depth, normals) = fit(module, tmp_path)
    assert not torch.equal(module.model.weight, before)
    with torch.no_grad():
        prediction = module.model(x)
    mae = (prediction[:, 0] - depth).abs().mean().item()
    mse = (prediction[:, 1] - normals).square().mean().item()
    weights = module.loss_fn.weights()
    assert weights["depth"].item() == pytest.approx(1 / mae, rel=1 / 3)
    assert weights["normals"].item() == pytest.approx(0.5 / mse, rel=1 / 3)
    rows = callback.history.rows
    assert len(rows) == 2 * NUM_BATCHES
    # Each row has the sigma after its step; so the last is what the module has now.
    last = {row.task: row.sigma for row in rows[-2:]}
    assert last == {task: sigma.item() for task, sigma in module.loss_fn.sigmas().items()}
    assert all(math.isfinite(row.nll) for row in rows)


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [(network_only, "depth.*normals"), (sigmas_twice, "depth"), (sigmas_decayed, "decay")],
)
def test_the_callback_looks_into_all_optimizers(optimizers, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit(Scenes(optimizers), tmp_path)
