"""Half precision, default dtypes, empty devices and copies: a loss in a real training."""

import copy
import pickle

import pytest
import torch
from torch import nn

from tests.scene import (
    PAIR,
    assert_same_state,
    leaf,
    leaves,
    numbers,
    scene_batch,
    scene_loss,
    state_of,
)
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss

OPTIONS = [
    {},
    {"estimator": "closed_form"},
    {"constraint": "unit_sum"},
    {"estimator": "closed_form", "constraint": "unit_sum"},
    {"estimator": "closed_form", "constraint": "softmax", "temperature": 1.0},
    {"estimator": "fixed"},
    {"extra": "add", "zero_is_missing": True},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def weighted_loss(class_weight=(1.0, 2.0, 3.0), **options) -> UncertaintyWeightedLoss:
    """Return a loss with every kind of state."""
    return UncertaintyWeightedLoss(
        {"s": ScaledSoftmaxHead(class_weight=class_weight), "d": "laplace"}, **options
    )


def weighted_step(loss_fn: UncertaintyWeightedLoss) -> torch.Tensor:
    logits = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], requires_grad=True)
    return loss_fn({"s": logits, "d": leaf(3.0)}, {"s": torch.tensor([0, 2])}).total


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_with_a_gradient_scaler(dtype):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    loss_fn = UncertaintyWeightedLoss({"y": "gaussian"})
    groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
    optimizer = torch.optim.Adam(groups, lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    x = torch.randn(256, 4)
    y = x[:, :2] + 0.1 * torch.randn(256, 2)
    for _ in range(700):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            losses = loss_fn({"y": model(x)}, {"y": y})
        assert losses.total.dtype == torch.float32
        scaler.scale(losses.total).backward()
        scaler.step(optimizer)
        scaler.update()
    assert loss_fn["y"].sigma.item() == pytest.approx(0.1, rel=0.15)


CASTS = {
    "to bfloat16": lambda m: m.to(torch.bfloat16),
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "double": lambda m: m.double(),
    "of a parent": lambda m: nn.ModuleList([m]).half()[0],
    "there and back": lambda m: m.half().float(),
}


@every_option
@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS.keys())
def test_a_cast_changes_neither_dtype_nor_value_of_any_state(options, cast):
    loss_fn = weighted_loss(class_weight=[1.001, 2.001, 3.001], **options)
    weighted_step(loss_fn)
    state, buffers = state_of(loss_fn), {n: b.clone() for n, b in loss_fn.named_buffers()}
    cast(loss_fn)
    assert_same_state(state_of(loss_fn), state)
    assert_same_state(dict(loss_fn.named_buffers()), buffers)
    expected = {"num_batches_tracked": torch.long, "_owned": torch.long}
    for name, value in [*loss_fn.named_parameters(), *loss_fn.named_buffers()]:
        assert value.dtype == expected.get(name.split(".")[-1], torch.float32)
    assert weighted_step(loss_fn).dtype == torch.float32


@every_option
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_default_dtype_of_the_process_changes_nothing(options, dtype):
    expected = weighted_loss(**options)
    totals = [weighted_step(expected).item() for _ in range(3)]
    logits = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], requires_grad=True)
    three = leaf(3.0)
    torch.set_default_dtype(dtype)
    try:
        found = weighted_loss(**options)
        results = [found({"s": logits, "d": three}, {"s": torch.tensor([0, 2])}) for _ in range(3)]
        absent = found({"s": None, "d": None})
        found.sigmas(), found.weights()
        again = copy.deepcopy(found)
        again.reset_parameters()
    finally:
        torch.set_default_dtype(torch.float32)
    assert [result.total.item() for result in results] == pytest.approx(totals, rel=1e-6)
    assert all(result.total.dtype == torch.float32 for result in [*results, absent])
    state = state_of(expected)
    for name, value in state_of(found).items():
        assert value.dtype == state[name].dtype
        torch.testing.assert_close(value, state[name], equal_nan=True)
    assert_same_state(state_of(again), state_of(weighted_loss(**options)))


@every_option
@pytest.mark.parametrize("build", [list, torch.tensor], ids=["list", "tensor"])
@pytest.mark.parametrize("where", ["built on meta", "moved to meta"])
def test_an_emptied_loss_is_whole_again_after_a_reset(options, build, where):
    class_weight = build([1.0, 2.0, 3.0])
    if where == "built on meta":
        with torch.device("meta"):
            loss_fn = weighted_loss(class_weight, **options)
    else:
        loss_fn = weighted_loss(class_weight, **options)
        weighted_step(loss_fn)
        loss_fn.to("meta")
    everything = [*loss_fn.parameters(), *loss_fn.buffers()]
    assert {value.device.type for value in everything} == {"meta"}
    loss_fn.to_empty(device="cpu")
    with torch.no_grad():
        for value in [*loss_fn.parameters(), *loss_fn.buffers()]:
            value.fill_(77)
    loss_fn.reset_parameters()
    fresh = weighted_loss([1.0, 2.0, 3.0], **options)
    assert_same_state(state_of(loss_fn), state_of(fresh))
    torch.testing.assert_close(weighted_step(loss_fn), weighted_step(fresh))
    assert_same_state(state_of(loss_fn), state_of(fresh))


def test_a_reset_restores_given_starts_and_channels():
    with torch.device("meta"):
        loss_fn = UncertaintyWeightedLoss(
            {"a": GaussianHead(init_sigma=3.0), "b": LaplaceHead(num_channels=2)}
        )
    loss_fn.to_empty(device="cpu").reset_parameters()
    assert loss_fn.sigmas()["a"].item() == pytest.approx(3)
    assert loss_fn.sigmas()["b"].tolist() == [1, 1]
    loss_fn({"a": leaf(100.0), "b": torch.tensor([2.0, 5.0], requires_grad=True)})
    assert loss_fn.sigmas()["a"].item() == pytest.approx(3)
    assert loss_fn.weights()["b"].tolist() == pytest.approx([0.5, 0.2])


@every_option
def test_a_loss_moves_between_devices_with_its_whole_state(options):
    loss_fn = weighted_loss(**options)
    weighted_step(loss_fn)
    loss_fn.to("meta")
    found = {name: (v.device.type, v.dtype) for name, v in loss_fn.state_dict().items()}
    for name, pair in found.items():
        dtype = torch.long if name.endswith("num_batches_tracked") else torch.float32
        assert pair == ("meta", dtype)
    assert loss_fn["s"].class_weight.device.type == "meta"


# torch 2.4 says so of what its own tensors do when they are unpickled.
@pytest.mark.filterwarnings("ignore:You are using `torch.load` with `weights_only=False`")
@every_option
@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_copies_and_pickles_behave_like_the_original(options, num_steps):
    # Processes are started, and some loaders and trainers work, by pickling modules.
    loss_fn = UncertaintyWeightedLoss(PAIR, **options)
    for _ in range(num_steps):
        loss_fn(leaves([4.0, 3.0]))
    state = state_of(loss_fn)
    clones = [copy.deepcopy(loss_fn), pickle.loads(pickle.dumps(loss_fn))]  # noqa: S301
    totals = []
    for clone in clones:
        totals.append([clone(leaves([5.0, 2.0])).total.item() for _ in range(3)])
        clone["a"].log_var.data.add_(1)
    assert_same_state(state_of(loss_fn), state)
    expected = [loss_fn(leaves([5.0, 2.0])).total.item() for _ in range(3)]
    assert totals == [expected, expected]


def test_a_copy_of_a_scene_with_settings_computes_the_same():
    loss_fn, batch = scene_loss(), scene_batch()
    expected = loss_fn(*batch).total
    assert torch.equal(copy.deepcopy(loss_fn)(*batch).total, expected)
    assert numbers(copy.deepcopy(loss_fn).sigmas()) == numbers(loss_fn.sigmas())


@pytest.mark.parametrize(
    "head",
    [
        GaussianHead(init_sigma=2.0),
        LaplaceHead(init_sigma=2.0),
        ScaledSoftmaxHead(init_sigma=2.0),
    ],
    ids=repr,
)
def test_a_head_can_be_exported(head):
    if isinstance(head, ScaledSoftmaxHead):
        inputs = torch.randn(2, 3, 4), torch.randint(3, (2, 4))
    else:
        inputs = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    exported = torch.export.export(head.eval(), inputs).module()
    torch.testing.assert_close(exported(*inputs), head(*inputs))
