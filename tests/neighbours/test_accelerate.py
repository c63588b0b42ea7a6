"""Accelerate: a loss that is built without memory, loaded, and trained by a prepared loop."""

import pytest
import torch
from accelerate import init_empty_weights, load_checkpoint_and_dispatch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from uncertainty_mtl import ScaledSoftmaxHead, UncertaintyWeightedLoss

CLASS_WEIGHT = [1.0, 2.0, 4.0]

every_kind = pytest.mark.parametrize(
    "options",
    [{}, {"estimator": "closed_form"}, {"constraint": "unit_sum"}],
    ids=["learned", "closed_form", "unit_sum"],
)
with_and_without_buffers = pytest.mark.parametrize("include_buffers", [False, True])


@pytest.fixture(autouse=True)
def _memory_is_filled():
    # Memory that nobody has initialised holds nan: a test cannot pass by luck.
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


class ModelWithLoss(nn.Module):
    """A linear layer, and the loss of a regression and a classification."""

    def __init__(self, **options):
        super().__init__()
        self.model = nn.Linear(4, 1 + len(CLASS_WEIGHT))
        heads = {"depth": "laplace", "semantic": ScaledSoftmaxHead(class_weight=CLASS_WEIGHT)}
        self.loss_fn = UncertaintyWeightedLoss(heads, **options)

    def forward(self, x, targets):
        """Return the losses."""
        outputs = self.model(x)
        return self.loss_fn({"depth": outputs[:, 0], "semantic": outputs[:, 1:]}, targets)


def batch(scale=100.0):
    targets = {"depth": scale * torch.randn(16), "semantic": torch.randint(3, (16,))}
    return torch.randn(16, 4), targets


def items(tensors):
    return {name: tensor.item() for name, tensor in tensors.items()}


@every_kind
@with_and_without_buffers
def test_a_loss_without_memory_is_whole_after_to_empty_and_reset(options, include_buffers):
    with init_empty_weights(include_buffers=include_buffers):
        module = ModelWithLoss(**options)
    assert module.loss_fn["depth"].log_var.is_meta
    module.to_empty(device="cpu")
    module.model.reset_parameters()
    module.loss_fn.reset_parameters()
    assert module.loss_fn["semantic"].class_weight.tolist() == CLASS_WEIGHT
    usual = ModelWithLoss(**options)
    usual.model.load_state_dict(module.model.state_dict())
    x, targets = batch()
    losses, expected = module(x, targets), usual(x, targets)
    assert losses.total.isfinite()
    torch.testing.assert_close(losses.total, expected.total, rtol=0, atol=0)
    torch.testing.assert_close(module.state_dict(), usual.state_dict(), equal_nan=True)
    weighed = items({k: w * losses.errors[k] for k, w in module.loss_fn.weights().items()})
    if options.get("constraint") is None:  # every sigma has started from data
        assert weighed == pytest.approx({"depth": 1.0, "semantic": 0.5}, rel=1e-4)


def loaded_by_dispatch(module, state, folder):
    path = folder / "model.safetensors"
    save_file(state, path, metadata={"format": "pt"})
    return load_checkpoint_and_dispatch(module, str(path), device_map={"": "cpu"})


def loaded_by_assignment(module, state, _):
    module.load_state_dict(state, assign=True)
    return module


def loaded_after_reset(module, state, _):
    module.to_empty(device="cpu")
    module.loss_fn.reset_parameters()
    module.load_state_dict(state)
    return module


@every_kind
@pytest.mark.parametrize(
    ("load", "include_buffers"),
    [
        (loaded_by_dispatch, False),
        (loaded_by_assignment, False),
        (loaded_after_reset, False),
        # Class weights are in no checkpoint: without memory, they have to come from `reset`.
        (loaded_after_reset, True),
    ],
)
def test_a_loss_without_memory_takes_a_checkpoint(options, load, include_buffers, tmp_path):
    trained = ModelWithLoss(**options)
    trained(*batch())
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    with init_empty_weights(include_buffers=include_buffers):
        module = ModelWithLoss(**options)
    module = load(module, state, tmp_path)
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0, equal_nan=True)
    assert items(module.loss_fn.sigmas()) == items(trained.loss_fn.sigmas())
    assert module.loss_fn["semantic"].class_weight.tolist() == CLASS_WEIGHT
    # It goes on like the one that was saved.
    x, targets = batch(scale=1e4)
    losses, expected = module.train()(x, targets), trained(x, targets)
    torch.testing.assert_close(losses.total, expected.total, rtol=0, atol=0)
    assert items(module.loss_fn.sigmas()) == items(trained.loss_fn.sigmas())
    losses.total.backward()
    assert module.loss_fn["depth"].log_var.grad is not None


@pytest.mark.parametrize("lr", [1e-2, 1e-3], ids=["of the page", "default"])
def test_a_prepared_loop_weighs_tasks_by_their_losses(lr, accelerator_of):
    accelerator = accelerator_of(gradient_accumulation_steps=2)
    x, noise = torch.randn(512, 4), torch.randn(512)
    data = TensorDataset(x, x[:, 0] + 3 * noise, x[:, 1] + 0.5 * noise)
    model = nn.Linear(4, 2)
    loss_fn = UncertaintyWeightedLoss({"depth": "laplace", "normals": "gaussian"})
    groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    loss_fn.check_optimizer(optimizer)
    loader = DataLoader(data, batch_size=32, shuffle=True)
    model, loss_fn, optimizer, loader = accelerator.prepare(model, loss_fn, optimizer, loader)
    for _ in range(40):
        for x, depth, normals in loader:
            with accelerator.accumulate(model, loss_fn):
                predictions = dict(zip(("depth", "normals"), model(x).unbind(1), strict=True))
                losses = loss_fn(predictions, {"depth": depth, "normals": normals})
                accelerator.backward(losses.total)
                optimizer.step()
                optimizer.zero_grad()
    with torch.no_grad():
        depth, normals = (model(data.tensors[0]) - torch.stack(data.tensors[1:], dim=1)).unbind(1)
    weights = items(accelerator.unwrap_model(loss_fn).weights())
    assert weights["depth"] == pytest.approx(1 / depth.abs().mean().item(), rel=1 / 3)
    assert weights["normals"] == pytest.approx(0.5 / normals.square().mean().item(), rel=1 / 3)
