"""The quick way of weighing reduced losses against the written-out one, task by task."""

import copy
import math
from types import MappingProxyType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad

from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss

HEADS = {
    "gaussian": GaussianHead,
    "laplace": LaplaceHead,
    "softmax": ScaledSoftmaxHead,
    "full": lambda **options: LaplaceHead(full=True, **options),
}
FORMS = ["nll", "symmetric", "paper", "libmtl"]


def written_out(losses):
    # Any mapping is taken, but only a dict goes the quick way.
    return MappingProxyType(losses)


def is_quick(total):
    return type(total.grad_fn).__name__ == "_WeighedSumBackward"


def leaves(values):
    return {f"task {i}": torch.tensor(v, requires_grad=True) for i, v in enumerate(values)}


@st.composite
def cases(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(HEADS)), min_size=1, max_size=5))
    sigmas = [draw(st.floats(0.1, 10)) for _ in kinds]
    values = [draw(st.floats(0, 100, width=32)) for _ in kinds]
    heads = {
        f"task {i}": HEADS[kind](init_sigma=sigma)
        for i, (kind, sigma) in enumerate(zip(kinds, sigmas, strict=True))
    }
    return UncertaintyWeightedLoss(heads, form=draw(st.sampled_from(FORMS))), values


@given(case=cases(), upstream=st.floats(-3, 3), of_a_task=st.floats(-3, 3))
def test_values_and_gradients_are_those_of_the_tasks_one_by_one(case, upstream, of_a_task):
    quick, values = case
    slow = copy.deepcopy(quick)
    results = []
    for loss_fn, wrap in [(quick, dict), (slow, written_out)]:
        losses = leaves(values)
        total, tasks = loss_fn(wrap(losses))
        assert is_quick(total) == (wrap is dict)
        (upstream * total + of_a_task * tasks["task 0"]).backward()
        gradients = [x.grad for x in (*losses.values(), *loss_fn.parameters())]
        results.append((total, tasks, gradients, loss_fn.base_losses()))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("as_input", [list, tuple, torch.stack])
def test_losses_in_order_are_the_same_losses(as_input):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    a, b = torch.tensor([0.5, 3.0], requires_grad=True)
    by_name, in_order = loss_fn({"b": b, "a": a}), loss_fn(as_input([a, b]))
    assert is_quick(by_name.total)
    assert is_quick(in_order.total)
    torch.testing.assert_close(by_name, in_order)
    assert list(loss_fn.base_losses().values()) == [0.5, 3.0]


def test_a_head_with_a_scale_per_channel_takes_their_mean():
    losses = torch.tensor([0.5, 3.0, 7.0], requires_grad=True)
    loss_fn = UncertaintyWeightedLoss({"a": GaussianHead(num_channels=3, full=True)})
    nn.init.normal_(loss_fn["a"].log_var)
    quick, slow = loss_fn({"a": losses}), loss_fn(written_out({"a": losses}))
    assert is_quick(quick.total)
    torch.testing.assert_close(quick, slow)
    for ours, expected in zip(
        torch.autograd.grad(quick.total, [losses, *loss_fn.parameters()]),
        torch.autograd.grad(slow.total, [losses, *loss_fn.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(loss_fn.base_losses()["a"], losses.detach())


def test_second_derivatives_are_those_of_the_tasks_one_by_one():
    loss_fn = UncertaintyWeightedLoss({"a": LaplaceHead(init_sigma=2.0), "b": "softmax"})
    hessians = []
    for wrap in (dict, written_out):
        x = torch.tensor([0.5, 3.0], requires_grad=True)
        total = loss_fn(wrap({"a": x[0] ** 2, "b": x[1] * x[0]})).total
        inputs = [x, *loss_fn.parameters()]
        gradients = torch.autograd.grad(total, inputs, create_graph=True)
        summed = sum((g**2).sum() for g in gradients)
        hessians.append(torch.autograd.grad(summed, inputs))
    torch.testing.assert_close(*hessians)


# torch itself uses what it deprecates, when the first dual number is made.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_derivatives_are_those_of_the_tasks_one_by_one():
    loss_fn = UncertaintyWeightedLoss({"a": "laplace", "b": "softmax"})
    a, b = torch.tensor([0.5, 3.0], requires_grad=True)
    tangents = []
    with forward_ad.dual_level():
        for wrap in (dict, written_out):
            losses = {"a": forward_ad.make_dual(a, torch.tensor(2.0)), "b": b}
            total = loss_fn(wrap(losses)).total
            tangents.append(forward_ad.unpack_dual(total).tangent)
    torch.testing.assert_close(*tangents)


def test_transforms_of_functions_take_the_scales_as_arguments():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})

    def total(log_var, x):
        scales = {"heads.a.log_var": log_var, "heads.b.log_var": torch.zeros(1)}
        return torch.func.functional_call(loss_fn, scales, ({"a": x[0] ** 2, "b": x[1]},)).total

    of_scale, of_x = torch.func.grad(total, (0, 1))(torch.zeros(1), torch.tensor([3.0, 5.0]))
    torch.testing.assert_close(of_scale, torch.tensor([0.5 - 9 / 2]))
    torch.testing.assert_close(of_x, torch.tensor([3.0, 2**0.5]))


def test_a_scale_thrown_out_of_its_bounds_is_put_back_and_keeps_its_gradient():
    for wrap in (dict, written_out):
        loss_fn = UncertaintyWeightedLoss(
            {"a": GaussianHead(sigma_bounds=(0.5, 2.0)), "b": "gaussian"}
        )
        with torch.no_grad():
            loss_fn["a"].log_var.fill_(50.0)
        loss_fn(wrap(leaves_of("a", "b"))).total.backward()
        assert loss_fn["a"].sigma.item() == pytest.approx(2.0)
        assert loss_fn["a"].log_var.item() == pytest.approx(2 * torch.tensor(2.0).log().item())
        assert loss_fn["a"].log_var.grad.item() == pytest.approx(0.5 - 0.5 / 4)


@pytest.mark.parametrize("tasks", [("a",), ("a", "b")])
def test_a_second_forward_leaves_the_gradient_of_the_first_alone(tasks):
    gradients = []
    for wrap in (dict, written_out):
        heads = {task: GaussianHead(sigma_bounds=(0.5, 2.0)) for task in tasks}
        loss_fn, first = UncertaintyWeightedLoss(heads), leaves_of(*tasks)
        total = loss_fn(wrap(first)).total
        with torch.no_grad():
            loss_fn["a"].log_var.fill_(50.0)  # which the next forward puts back
        loss_fn(wrap(leaves_of(*tasks)))
        total.backward()
        gradients.append([x.grad for x in (*first.values(), *loss_fn.parameters())])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("as_input", [dict, torch.stack])
def test_a_single_task_has_the_shapes_of_any_other(as_input):
    loss_fn = UncertaintyWeightedLoss({"a": "laplace"})
    loss = torch.tensor(3.0, requires_grad=True)
    total, tasks = loss_fn({"a": loss} if as_input is dict else torch.stack([loss]))
    assert is_quick(total)
    assert total.shape == tasks["a"].shape == loss_fn.base_losses()["a"].shape == ()
    (total + tasks["a"]).backward()
    assert loss.grad == pytest.approx(2 * 2**0.5)
    assert loss_fn["a"].log_var.grad == pytest.approx(2 * (0.5 - 3 * 2**0.5 / 2))


def leaves_of(*names):
    return {name: torch.tensor(1.0, requires_grad=True) for name in names}


@pytest.mark.parametrize(
    "change",
    [
        lambda loss_fn: loss_fn["a"].use_form("symmetric"),
        lambda loss_fn: setattr(loss_fn["a"], "sigma_bounds", (3.0, 4.0)),
        lambda loss_fn: loss_fn.load_state_dict(
            {"heads.a.log_var": torch.ones(1), "heads.b.log_var": torch.ones(1)}, assign=True
        ),
        lambda loss_fn: loss_fn.heads.add_module("a", LaplaceHead(init_sigma=3.0)),
        lambda loss_fn: loss_fn.freeze("a"),
        lambda loss_fn: loss_fn.eval(),
        lambda loss_fn: loss_fn.priorities.update(a=3.0),
    ],
    ids=["form", "bounds", "assigned parameters", "another head", "frozen", "eval", "priorities"],
)
def test_what_changes_after_the_first_step_is_seen(change):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    loss_fn(leaves_of("a", "b"))
    change(loss_fn)
    losses = leaves_of("a", "b")
    quick, slow = loss_fn(losses), copy.deepcopy(loss_fn)(written_out(losses))
    torch.testing.assert_close(quick, slow)


@pytest.mark.parametrize(
    "losses",
    [
        {"a": torch.ones((), requires_grad=True), "b": None},
        {"a": torch.ones((), requires_grad=True, dtype=torch.float64), "b": torch.ones(())},
        {"a": torch.ones((), requires_grad=True, dtype=torch.bfloat16), "b": torch.ones(())},
    ],
    ids=["a task without labels", "float64", "bfloat16"],
)
def test_unusual_losses_are_weighed_one_by_one(losses):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    total = loss_fn(losses).total
    assert not is_quick(total)
    torch.testing.assert_close(total, loss_fn(written_out(losses)).total)


def test_the_last_losses_are_those_of_the_last_step_whichever_way_it_went():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"})
    loss_fn(leaves_of("a"))
    loss_fn({"a": torch.zeros(2)}, {"a": torch.full((2,), 3.0)})
    assert loss_fn.base_losses()["a"] == 9
    loss_fn(leaves_of("a"))
    assert loss_fn.base_losses()["a"] == 1


@pytest.mark.parametrize("num_channels", [None, 1, 2])
def test_a_copy_knows_the_last_losses_and_sees_what_changes_in_its_own_heads(num_channels):
    heads = {"a": GaussianHead(num_channels=num_channels)}
    original = UncertaintyWeightedLoss(heads if num_channels else {**heads, "b": "laplace"})
    shapes = {task: original[task].sigma.shape for task in original}
    losses = {t: torch.full(shape, 3.0, requires_grad=True) for t, shape in shapes.items()}
    original(losses)
    clone = copy.deepcopy(original)
    torch.testing.assert_close(clone.base_losses(), original.base_losses())
    assert is_quick(clone(losses).total)
    clone["a"].sigma_bounds = (2.0, 4.0)
    torch.testing.assert_close(clone(losses), clone(written_out(losses)))
    assert (clone["a"].sigma == 2).all()
    assert (original["a"].sigma == 1).all()
    assert is_quick(original(losses).total)


def test_parameters_that_a_conversion_swaps_go_on_learning():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    loss_fn(leaves_of("a", "b")).total.backward()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        loss_fn.zero_grad()
        loss_fn.to(torch.bfloat16)
        loss_fn.load_state_dict(copy.deepcopy(loss_fn.state_dict()))
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    total = loss_fn(leaves_of("a", "b")).total
    assert is_quick(total)
    total.backward()
    assert loss_fn["a"].log_var.grad == 0.5 - 0.5
    assert loss_fn["b"].log_var.grad == pytest.approx(0.5 - 2**-0.5)


def test_a_head_that_computes_its_own_likelihood_is_asked():
    class Doubled(GaussianHead):
        def nll(self, base, log_var=None):
            return 2 * super().nll(base, log_var)

    plain, doubled = (UncertaintyWeightedLoss({"a": head}) for head in (GaussianHead(), Doubled()))
    losses = leaves_of("a")
    assert doubled(losses).total == 2 * plain(losses).total


@pytest.mark.parametrize("quick_shape", [(), (1,), (2,)], ids=str)
def test_losses_of_wrong_shapes_meet_the_error_that_names_the_task(quick_shape):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    losses = {"a": torch.ones((), requires_grad=True), "b": torch.ones(quick_shape)}
    if quick_shape == ():
        assert is_quick(loss_fn(losses).total)
    else:
        with pytest.raises(ValueError, match="'b'"):
            loss_fn(losses)
    alike = {"a": torch.ones(1, requires_grad=True), "b": torch.ones(1)}
    with pytest.raises(ValueError, match="'a'"):
        loss_fn(alike)


@pytest.mark.parametrize("num_tasks", [2, 40])
@pytest.mark.parametrize("start", [-1.0, 2.0])
def test_a_scale_outside_of_its_bounds_is_put_back_however_many_there_are(start, num_tasks):
    tasks = [f"task {i}" for i in range(num_tasks)]
    heads = {task: GaussianHead(sigma_bounds=(1.0, 2.0)) for task in tasks}
    loss_fn = UncertaintyWeightedLoss(heads)
    with torch.no_grad():
        loss_fn["task 1"].log_var.fill_(start)
    losses = leaves_of(*tasks)
    expected = copy.deepcopy(loss_fn)(written_out(losses)).total
    total = loss_fn(losses).total
    assert is_quick(total)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(
        loss_fn["task 1"].log_var.detach(), torch.tensor([min(max(start, 0.0), 2 * math.log(2))])
    )


def test_a_second_derivative_of_losses_that_were_changed_since_is_refused():
    loss_fn = UncertaintyWeightedLoss({"a": GaussianHead(num_channels=2)})
    losses = torch.ones(2, requires_grad=True)
    total = loss_fn({"a": losses}).total
    with torch.no_grad():
        losses += 1
    (first,) = torch.autograd.grad(total, losses, retain_graph=True)
    assert first.tolist() == [0.25, 0.25]
    with pytest.raises(RuntimeError, match="changed in place"):
        torch.autograd.grad(total, losses, create_graph=True)


@pytest.mark.parametrize("as_input", [dict, list])
def test_without_gradients_the_values_are_the_same_and_no_graph_is_kept(as_input):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    losses = leaves_of("a", "b")
    given = losses if as_input is dict else torch.stack(list(losses.values()))
    with torch.no_grad():
        found = loss_fn(given)
    assert found.total.grad_fn is None
    torch.testing.assert_close(found, loss_fn(written_out(losses)))


@pytest.mark.parametrize("names", [("a",), ("a", "b")], ids=["one task", "two"])
def test_a_second_derivative_is_taken_where_the_forward_was(names):
    loss_fn = UncertaintyWeightedLoss(dict.fromkeys(names, "gaussian"))
    losses = leaves_of(*names)
    total = loss_fn(losses).total
    with torch.no_grad():
        loss_fn["a"].log_var += 3  # as an optimizer does, before somebody asks
    parameters = [loss_fn[name].log_var for name in names]
    first = torch.autograd.grad(total, parameters, create_graph=True)
    second = torch.autograd.grad(sum(first), parameters)
    for gradient, curvature in zip(first, second, strict=True):
        # Of 0.5 exp(-s) L + 0.5 s at s = 0, for L = 1.
        torch.testing.assert_close(gradient, torch.zeros(1))
        torch.testing.assert_close(curvature, torch.full((1,), 0.5))
