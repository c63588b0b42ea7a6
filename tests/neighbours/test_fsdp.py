"""A loss inside of a module that FSDP2 shards: reading, starting, training and saving sigmas."""

import inspect
import math

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp

from uncertainty_mtl import GaussianHead, LaplaceHead, SigmaHistory, UncertaintyWeightedLoss

if not hasattr(fsdp, "fully_shard"):
    pytest.skip("FSDP2 is public since torch 2.6", allow_module_level=True)

can_ignore = pytest.mark.skipif(
    "ignored_params" not in inspect.signature(fsdp.fully_shard).parameters,
    reason="`fully_shard` takes `ignored_params` since torch 2.7",
)

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
Y = {"depth": 1000 + 50 * X[:, 0], "normals": 0.01 * X[:, 1]}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """A process group of this process by itself."""
    store = tmp_path_factory.mktemp("store") / "file"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield dist.device_mesh.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


class ModelWithLoss(nn.Module):
    """A linear layer and the loss of its two outputs."""

    def __init__(self, init_sigma=None, **options):
        super().__init__()
        self.model = nn.Linear(4, 2)
        heads = {
            "depth": LaplaceHead(init_sigma=init_sigma),
            "normals": GaussianHead(init_sigma=init_sigma),
        }
        self.loss_fn = UncertaintyWeightedLoss(heads, **options)

    def forward(self, x, targets=None):
        """Return the predictions, or their losses if there are targets."""
        # Copies, as FSDP warns of every view that a module returns.
        columns = torch.unbind_copy(self.model(x), 1)
        predictions = dict(zip(("depth", "normals"), columns, strict=True))
        return predictions if targets is None else self.loss_fn(predictions, targets)


def train(module, steps=5, lr=1e-2):
    """Train the sigmas, and the network hardly at all; return the last losses."""
    groups = [{"params": module.model.parameters()}, *module.loss_fn.param_groups(lr=lr)]
    optimizer = torch.optim.Adam(groups, lr=1e-9)
    module.loss_fn.check_optimizer(optimizer)
    for _ in range(steps):
        losses = module(X, Y)
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


def optimal_sigmas(module):
    """Return the optimum for the predictions that the module makes now."""
    with torch.no_grad():
        predictions = module(X)
    return {
        "depth": math.sqrt(2) * (predictions["depth"] - Y["depth"]).abs().mean().item(),
        "normals": (predictions["normals"] - Y["normals"]).square().mean().sqrt().item(),
    }


def items(tensors):
    return {name: tensor.item() for name, tensor in tensors.items()}


def test_sigmas_weights_and_history_of_a_sharded_module(mesh):
    module = ModelWithLoss(init_sigma=3.0)
    fsdp.fully_shard(module, mesh=mesh)
    assert hasattr(module.loss_fn["depth"].log_var, "full_tensor")  # it is sharded
    assert items(module.loss_fn.sigmas()) == pytest.approx({"depth": 3.0, "normals": 3.0})
    expected = {"depth": math.sqrt(2) / 3, "normals": 1 / 18}
    assert items(module.loss_fn.weights()) == pytest.approx(expected)
    assert module.loss_fn["depth"].sigma.item() == pytest.approx(3.0)
    history = SigmaHistory(module.loss_fn)
    losses = module(X, Y)
    losses.total.backward()
    history.record(0, losses)
    assert [row.sigma for row in history.rows] == pytest.approx([3.0, 3.0])
    assert [row.weight for row in history.rows] == pytest.approx(list(expected.values()))
    assert [row.base_loss for row in history.rows] == [e.item() for e in losses.errors.values()]


def test_a_start_in_forward_is_lost_and_the_next_step_says_so(mesh):
    module = ModelWithLoss()
    fsdp.fully_shard(module, mesh=mesh)
    train(module, steps=1)
    assert module.loss_fn.sigmas()["depth"] < 2  # where a thousand times that was due
    with pytest.raises(RuntimeError, match="FSDP") as error:
        module(X, Y)
    for way_out in ("ignored_params", "initialize_from", "init_sigma"):
        assert way_out in str(error.value)


@can_ignore
def test_sigmas_that_fsdp_ignores_start_from_data_and_train(mesh):
    module = ModelWithLoss()
    fsdp.fully_shard(module, mesh=mesh, ignored_params=set(module.loss_fn.parameters()))
    expected = optimal_sigmas(module)
    # At the optimum, rounding decides where Adam's steps of a hundredth go.
    losses = train(module)
    assert items(module.loss_fn.sigmas()) == pytest.approx(expected, rel=0.03)
    weights = items(module.loss_fn.weights())
    assert weights["depth"] * losses.errors["depth"].item() == pytest.approx(1, rel=0.05)
    assert weights["normals"] * losses.errors["normals"].item() == pytest.approx(0.5, rel=0.05)


def initialize_before_sharding(module, mesh):
    module.loss_fn.initialize_from(module(X), Y)
    fsdp.fully_shard(module, mesh=mesh)


def initialize_after_sharding(module, mesh):
    fsdp.fully_shard(module, mesh=mesh)
    predictions = module(X)
    module.reshard()  # FSDP leaves the parameters of the outermost module gathered
    module.loss_fn.initialize_from(predictions, Y)


def initialize_while_gathered(module, mesh):
    fsdp.fully_shard(module, mesh=mesh)
    module.loss_fn.initialize_from(module(X), Y)


@pytest.mark.parametrize(
    ("estimator", "initialize"),
    [
        ("learned", initialize_before_sharding),
        ("learned", initialize_after_sharding),
        ("closed_form", initialize_before_sharding),
        ("closed_form", initialize_after_sharding),
        ("closed_form", initialize_while_gathered),
    ],
)
def test_sigmas_that_are_initialized_persist_and_train(estimator, initialize, mesh):
    module = ModelWithLoss(estimator=estimator)
    initialize(module, mesh)
    module.reshard()
    expected = optimal_sigmas(module)
    module.reshard()
    assert items(module.loss_fn.sigmas()) == pytest.approx(expected, rel=1e-3)
    # At the optimum, rounding decides where Adam's steps of a hundredth go.
    train(module, steps=3)
    assert items(module.loss_fn.sigmas()) == pytest.approx(expected, rel=0.03)


def test_sigmas_that_are_initialized_while_gathered_are_lost_and_a_step_says_so(mesh):
    module = ModelWithLoss()
    initialize_while_gathered(module, mesh)
    with pytest.raises(RuntimeError, match=r"reshard\(\)"):
        train(module, steps=2)


def test_sigmas_with_a_start_of_their_own_train(mesh):
    module = ModelWithLoss(init_sigma=2.0)
    fsdp.fully_shard(module, mesh=mesh)
    train(module, steps=3)
    # Adam's first steps are as long as its learning rate: depth up, normals down.
    expected = {"depth": 2 * math.exp(0.5 * 0.03), "normals": 2 * math.exp(-0.5 * 0.03)}
    assert items(module.loss_fn.sigmas()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_a_state_dict_brings_sharded_sigmas_back(estimator, mesh):
    module, other = (ModelWithLoss(2.0, estimator=estimator) for _ in range(2))
    for each in (module, other):
        fsdp.fully_shard(each, mesh=mesh)
    train(module, steps=3)
    assert items(module.loss_fn.sigmas()) != items(other.loss_fn.sigmas())
    other.load_state_dict(module.state_dict())
    assert items(other.loss_fn.sigmas()) == items(module.loss_fn.sigmas())
    train(other, steps=1)
    assert other.loss_fn["depth"].num_batches_tracked == (1 if estimator == "learned" else 4)


def test_what_a_sharded_module_returns_is_no_view(mesh):
    # FSDP warns of views: its hook is lost when one is changed in place.
    module = ModelWithLoss(init_sigma=2.0)
    fsdp.fully_shard(module, mesh=mesh)
    losses = module(X, Y)
    losses.tasks["depth"] *= 2
    (losses.tasks["depth"] + losses.tasks["normals"]).backward()
    gradient = module.loss_fn["depth"].log_var.grad.full_tensor()
    # Twice the slope of sqrt(2) exp(-s/2) L + s/2.
    error = losses.errors["depth"].item()
    assert gradient.item() == pytest.approx(1 - math.sqrt(2) / 2 * error, rel=1e-4)
