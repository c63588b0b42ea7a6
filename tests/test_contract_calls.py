"""What users were promised of a call: of what goes in, what comes out, and what captures it."""

import copy
import itertools
from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.scene import (
    HEADS,
    OPTIONS,
    PAIR,
    assert_same_state,
    leaf,
    leaves,
    scene_batch,
    scene_loss,
    state_of,
)
from uncertainty_mtl import ScaledSoftmaxHead, UncertaintyWeightedLoss

every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


@given(prefix=st.text("abc_", min_size=1).map(lambda name: f"{name}."))
def test_a_checkpoint_under_a_prefix_is_told_as_such(prefix):
    state = {prefix + name: value for name, value in scene_loss().state_dict().items()}
    with pytest.raises(RuntimeError, match=f"prefix '{prefix}'") as error:
        scene_loss().load_state_dict(state)
    assert "strict=False" not in str(error.value)


@pytest.mark.parametrize("order", [*itertools.permutations(["semantic", "instance", "depth"])])
def test_namedtuples_are_read_by_their_fields(order):
    fields = namedtuple("Fields", order)
    predictions, targets, masks = scene_batch()
    batch = predictions, targets, {**masks, "semantic": None}
    by_field, by_name = scene_loss(), scene_loss()
    found, expected = by_field(*(fields(**part) for part in batch)), by_name(*batch)
    assert torch.equal(found.total, expected.total)
    for task, value in expected.tasks.items():
        assert torch.equal(found.tasks[task], value)
    by_field.initialize_from(*(fields(**part) for part in batch))
    by_name.initialize_from(*batch)
    assert by_field.sigmas() == by_name.sigmas()
    reduced = UncertaintyWeightedLoss(dict.fromkeys(["semantic", "instance", "depth"], "laplace"))
    values = {"semantic": leaf(100.0), "instance": leaf(1.0), "depth": None}
    errors = reduced(fields(**values)).errors
    assert errors["semantic"] == 100
    assert errors["instance"] == 1


@pytest.mark.parametrize("value", [0, 0.0, 1.5, True, torch.ones(1).numpy()])
def test_a_number_in_place_of_a_loss_points_to_none(value):
    loss_fn = UncertaintyWeightedLoss(PAIR)
    with pytest.raises(TypeError, match=r"Task 'a': `loss` should be a tensor.*passed as None"):
        loss_fn({"a": value, "b": leaf(1.0)})


@pytest.mark.parametrize("collection", [list, tuple])
@pytest.mark.parametrize("length", [0, 1, 2])
def test_several_losses_in_place_of_one_point_to_a_sum_or_a_mean(collection, length):
    loss_fn, values = UncertaintyWeightedLoss(PAIR), collection(leaves([1.0] * length))
    with pytest.raises(TypeError, match=r"Task 'a': .*their sum or mean") as error:
        loss_fn({"a": values, "b": leaf(1.0)})
    assert ".item()" not in str(error.value)


@pytest.mark.parametrize("cut", [lambda x: torch.tensor(0.0), torch.detach, lambda x: x.data])
@pytest.mark.parametrize("kind", ["reduced", "beside predictions"])
def test_a_loss_without_a_graph_is_told_once(cut, kind):
    loss_fn = UncertaintyWeightedLoss(PAIR)
    other = leaf(1.0) if kind == "reduced" else torch.ones(3, requires_grad=True)
    targets = None if kind == "reduced" else {"b": torch.zeros(3)}
    with pytest.warns(UserWarning, match=r"loss of \['a'\] carries no gradient while"):
        loss_fn({"a": cut(leaf(1.0)), "b": other}, targets)
    for _ in range(500):  # Warnings are errors: no other comes.
        loss_fn({"a": cut(leaf(1.0)), "b": other}, targets)


@every_option
@pytest.mark.parametrize("kind", ["reduced", "predictions", "channels", "in a group"])
def test_what_is_returned_may_be_changed_in_place(options, kind):
    heads = {"a": HEADS["gaussian"](), "b": HEADS["laplace"]()}
    if kind == "channels" and "constraint" not in options:
        heads["a"] = HEADS["gaussian"](num_channels=2)
    loss_fn = UncertaintyWeightedLoss(heads, **options)
    if kind == "in a group":
        loss_fn = UncertaintyWeightedLoss({"a": loss_fn, "b": "laplace"})

    def call():
        x = torch.full((4, 2), 3.0, requires_grad=True)
        pair, y = {"a": x, "b": x}, {"a": torch.zeros(4, 2), "b": torch.ones(4, 2)}
        reduced = {"a": x.square().mean(), "b": x.mean()}
        inputs = {
            "reduced": (reduced,),
            "predictions": (pair, y),
            "channels": (pair, y),
            "in a group": ({"a": reduced, "b": x.mean()},),
        }[kind]
        return x, loss_fn(*inputs)

    call()
    x, expected = call()
    (expected.tasks["a"] * 2 + expected.tasks["b"]).backward()
    before = state_of(loss_fn)
    y, found = call()
    for value in [*found.errors.values(), *found.counts.values()]:
        value *= 7
    found.tasks["a"] *= 2
    sum(found.tasks.values()).backward(retain_graph=True)
    torch.testing.assert_close(y.grad, x.grad)
    total = found.total
    total += 1
    total.backward()
    if options == {}:
        assert_same_state(state_of(loss_fn), before)
    _, again = call()
    assert [v.tolist() for v in again.counts.values()] == [
        v.tolist() for v in expected.counts.values()
    ]


@pytest.mark.parametrize("kind", ["reduced", "predictions", "masked"])
@pytest.mark.parametrize("first", ["forward", "initialize_from"])
def test_transforms_work_after_one_ordinary_step(kind, first):
    loss_fn = UncertaintyWeightedLoss({"depth": "laplace", "normals": "gaussian"})
    targets = {"depth": torch.zeros(2), "normals": torch.ones(2)}
    masks = {"depth": torch.tensor([True, False])} if kind == "masked" else None

    def inputs(v: Tensor) -> tuple:
        if kind == "reduced":
            return ({"depth": v[0] ** 2, "normals": v[1] ** 2},)
        return {"depth": v, "normals": v**2}, targets, masks

    (loss_fn if first == "forward" else loss_fn.initialize_from)(*inputs(leaf(2.0).expand(2)))
    x = torch.tensor([[0.5, 0.25], [2.0, 3.0]], requires_grad=True)
    plain = copy.deepcopy(loss_fn)
    expected = torch.stack([plain(*inputs(row)).total for row in x])
    (gradient,) = torch.autograd.grad(expected.sum(), x)

    def total(v: Tensor) -> Tensor:
        return loss_fn(*inputs(v)).total

    torch.testing.assert_close(torch.func.grad(total)(x[0].detach()), gradient[0])
    torch.testing.assert_close(torch.func.vmap(total)(x), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(x.detach()), gradient)


class HoldsLoss(nn.Module):
    """A model that holds the loss but does not call it."""

    def __init__(self, loss_fn: nn.Module) -> None:
        super().__init__()
        self.linear, self.loss_fn = nn.Linear(2, 2), loss_fn

    def forward(self, x: Tensor) -> Tensor:
        """Return the prediction."""
        return self.linear(x)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@every_option
def test_a_model_that_holds_the_loss_can_be_scripted(options):
    heads = {"a": "gaussian", "b": "laplace", "s": ScaledSoftmaxHead(class_weight=[1.0, 2.0])}
    loss_fn = UncertaintyWeightedLoss(heads, **options)
    if "constraint" not in options:
        loss_fn = UncertaintyWeightedLoss({"g": loss_fn, "c": "laplace"})
    loss_fn(dict.fromkeys(loss_fn))  # also after the calls above
    model, x = HoldsLoss(loss_fn), torch.ones(3, 2)
    torch.testing.assert_close(torch.jit.script(model)(x), model(x))
