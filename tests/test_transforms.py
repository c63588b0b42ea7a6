"""Transforms of `torch.func` against plain autograd, and second derivatives."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, hessian, jacrev, jvp, vmap

from tests.scene import PAIR, assert_same_state, leaf, leaves, scene_batch, scene_loss, state_of
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss

# Under `vmap` no loss seems to carry a gradient; forward mode scripts functions of its own.
pytestmark = pytest.mark.filterwarnings(
    "ignore:No reduced loss carries a gradient", "ignore:`torch.jit"
)

TASKS = {"depth": "laplace", "normals": "gaussian"}


def started(loss_fn: UncertaintyWeightedLoss, step) -> UncertaintyWeightedLoss:
    """Take the ordinary steps after which a loss is in its steady state."""
    for _ in range(2):
        step(loss_fn)
    return loss_fn


def pair_loss(**options) -> UncertaintyWeightedLoss:
    return started(
        UncertaintyWeightedLoss(TASKS, **options), lambda loss_fn: loss_fn(leaves([2.0, 3.0]))
    )


def squares(loss_fn):
    return lambda v: loss_fn({"depth": v[0] ** 2, "normals": v[1] ** 2}).total


def test_a_gradient_for_the_predictions_is_that_of_autograd():
    loss_fn, (predictions, targets, masks) = scene_loss(), scene_batch()
    started(loss_fn, lambda loss_fn: loss_fn(predictions, targets, masks))
    found, value = grad_and_value(lambda p: loss_fn(p, targets, masks).total)(
        {task: prediction.detach() for task, prediction in predictions.items()}
    )
    expected = loss_fn(predictions, targets, masks).total
    expected.backward()
    torch.testing.assert_close(value, expected)
    for task, prediction in predictions.items():
        torch.testing.assert_close(found[task], prediction.grad)


def test_a_gradient_for_the_sigmas_is_that_of_autograd():
    loss_fn, batch = scene_loss(), scene_batch()
    started(loss_fn, lambda loss_fn: loss_fn(*batch))
    parameters = {name: p.detach().clone() for name, p in loss_fn.named_parameters()}
    before = state_of(loss_fn)
    found = grad(lambda p: functional_call(loss_fn, p, batch).total)(parameters)
    assert_same_state(state_of(loss_fn), before)
    loss_fn(*batch).total.backward()
    for name, parameter in loss_fn.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_a_functional_call_without_a_transform_computes_the_same():
    loss_fn, batch = scene_loss(), scene_batch()
    parameters = {name: value.detach() for name, value in loss_fn.named_parameters()}
    expected = loss_fn(*batch).total
    torch.testing.assert_close(functional_call(loss_fn, parameters, batch).total, expected)


def test_sigmas_of_several_models_can_be_stacked():
    batch = scene_batch()
    losses = [started(scene_loss(), lambda loss_fn: loss_fn(*batch)) for _ in range(3)]
    for i, loss_fn in enumerate(losses):
        with torch.no_grad():
            for parameter in loss_fn.parameters():
                parameter.add_(0.3 * i)
    parameters, buffers = torch.func.stack_module_state(losses)

    def total(parameters, buffers):
        return functional_call(losses[0], (parameters, buffers), batch).total

    found = vmap(total)(parameters, buffers)
    gradients = vmap(grad(total))(parameters, buffers)
    expected = [loss_fn(*batch).total for loss_fn in losses]
    torch.testing.assert_close(found, torch.stack(expected))
    for i, loss_fn in enumerate(losses):
        expected[i].backward()
        for name, parameter in loss_fn.named_parameters():
            torch.testing.assert_close(gradients[name][i], parameter.grad)


def test_a_vmap_projects_each_sigma_onto_its_bounds():
    loss_fn = started(
        UncertaintyWeightedLoss({"a": GaussianHead(sigma_bounds=(0.1, 10.0))}),
        lambda loss_fn: loss_fn({"a": leaf(4.0)}),
    )

    def total(log_var: Tensor) -> Tensor:
        loss = torch.tensor(4.0, requires_grad=True)
        return functional_call(loss_fn, {"heads.a.log_var": log_var}, ({"a": loss},)).total

    found = vmap(total)(torch.tensor([[-99.0], [0.0], [99.0]]))
    sigma = torch.tensor([0.1, 1.0, 10.0])
    torch.testing.assert_close(found, 2 / sigma**2 + sigma.log())


def test_a_batch_of_losses_is_mapped_with_targets_and_masks():
    loss_fn = pair_loss()
    predictions = torch.randn(3, 5, requires_grad=True)
    targets, mask = torch.randn(3, 5), torch.rand(3, 5) < 0.7
    mask[:, 0] = True

    def total(prediction, target, mask):
        return loss_fn(*[dict.fromkeys(TASKS, x) for x in (prediction, target, mask)]).total

    found = vmap(total)(predictions, targets, mask)
    expected = torch.stack(list(map(total, predictions, targets, mask)))
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(expected.sum(), predictions)
    torch.testing.assert_close(
        vmap(grad(total))(predictions.detach(), targets, mask), gradient.detach()
    )


def test_losses_with_a_graph_are_not_warned_of_within_a_map():
    loss_fn = pair_loss()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vmap(squares(loss_fn))(torch.rand(3, 2, requires_grad=True))


def test_forward_mode_agrees_with_reverse_mode():
    loss_fn, x, v = pair_loss(), torch.tensor([0.5, 0.25]), torch.tensor([1.0, -2.0])
    value, tangent = jvp(squares(loss_fn), (x,), (v,))
    gradient = grad(squares(loss_fn))(x)
    torch.testing.assert_close(tangent, gradient @ v)
    torch.testing.assert_close(value, squares(loss_fn)(x.requires_grad_()))
    torch.testing.assert_close(jacrev(squares(loss_fn))(x.detach()), gradient)


def test_the_hessian_is_that_of_the_weighted_losses():
    loss_fn = pair_loss()
    found = hessian(squares(loss_fn))(torch.tensor([0.5, 0.25]))
    weights = torch.stack(list(loss_fn.weights().values()))
    torch.testing.assert_close(found, torch.diag(2 * weights))


def test_transforms_work_in_evaluation_whether_or_not_a_sigma_has_started():
    for options in ({}, {"estimator": "closed_form"}, {"constraint": "unit_sum"}):
        loss_fn = UncertaintyWeightedLoss(TASKS, **options).eval()
        x = torch.tensor([0.5, 0.25])
        found = grad(squares(loss_fn))(x)
        squares(loss_fn)(x.requires_grad_()).backward()
        torch.testing.assert_close(found, x.grad)


UNFIT = {
    "a pending start": lambda: UncertaintyWeightedLoss(TASKS),
    "closed form": lambda: pair_loss(estimator="closed_form"),
    "closed form, pending": lambda: UncertaintyWeightedLoss(TASKS, estimator="closed_form"),
    "constraint": lambda: pair_loss(constraint="unit_sum"),
    "constraint, pending": lambda: UncertaintyWeightedLoss(TASKS, constraint="unit_sum"),
    "both": lambda: pair_loss(estimator="closed_form", constraint="unit_sum"),
}
unfit = pytest.mark.parametrize("build", UNFIT.values(), ids=UNFIT.keys())


def of_the_losses(loss_fn, transform):
    return transform(squares(loss_fn))(torch.tensor([0.5, 0.25]))


def of_the_sigmas(loss_fn, transform):
    parameters = {name: p.detach().clone() for name, p in loss_fn.named_parameters()}

    def total(parameters):
        losses = leaf(2.0), leaf(3.0)
        return functional_call(loss_fn, parameters, (losses,)).total

    return transform(total)(parameters)


@unfit
@pytest.mark.parametrize("inputs", [of_the_losses, of_the_sigmas])
@pytest.mark.parametrize("transform", [grad, jacrev, hessian], ids=lambda f: f.__name__)
def test_setting_sigmas_within_a_transform_is_one_error_before_anything_is_written(
    build, inputs, transform
):
    loss_fn = build()
    before = state_of(loss_fn)
    with pytest.raises(RuntimeError, match=r"outside of the transforms of `torch.func`.*initial"):
        inputs(loss_fn, transform)
    assert_same_state(state_of(loss_fn), before)
    loss_fn(leaves([2.0, 3.0])).total.backward()  # and an ordinary step still works
    assert all(sigma.isfinite() for sigma in loss_fn.sigmas().values())


@unfit
@pytest.mark.parametrize("what", ["losses", "sigmas"])
def test_setting_sigmas_within_a_map_is_one_error_or_works(build, what):
    loss_fn = build()
    before, x = state_of(loss_fn), torch.rand(3, 2, requires_grad=True)
    stacked = {name: torch.stack([p.detach()] * 3) for name, p in loss_fn.named_parameters()}

    def of_sigmas(parameters):
        return functional_call(loss_fn, parameters, (leaves([2.0, 3.0]),)).total

    function, inputs = (squares(loss_fn), x) if what == "losses" else (of_sigmas, stacked)
    try:
        found = vmap(function)(inputs)
    except RuntimeError as error:
        assert "outside of the transforms of `torch.func`" in str(error)  # noqa: PT017
        assert_same_state(state_of(loss_fn), before)
        found = None
    now = state_of(loss_fn)
    assert {name: v.shape for name, v in now.items()} == {
        name: v.shape for name, v in before.items()
    }
    if found is not None:
        one_by_one = build()
        rows = x if what == "losses" else [leaf(2.0**0.5) * torch.tensor([1.0, 1.5**0.5])] * 3
        expected = torch.stack([squares(one_by_one)(row) for row in rows])
        torch.testing.assert_close(found, expected)


def double_loss(**options) -> UncertaintyWeightedLoss:
    heads = {
        "semantic": ScaledSoftmaxHead(),
        "instance": LaplaceHead(num_channels=None if options else 2),
        "depth": GaussianHead(),
    }
    loss_fn = UncertaintyWeightedLoss(heads, **options)
    predictions, targets, masks = scene_batch()
    return started(loss_fn, lambda loss_fn: loss_fn(predictions, targets, masks))


@pytest.mark.parametrize(
    "options", [{}, {"form": "symmetric"}, {"form": "liebel_koerner"}], ids=str
)
def test_second_derivatives_match_finite_differences_of_the_first(options):
    loss_fn = double_loss(**options)
    predictions, targets, masks = scene_batch()
    inputs = [p.detach().double().requires_grad_() for p in predictions.values()]
    targets = {k: v.double() if v.is_floating_point() else v for k, v in targets.items()}

    def total(*tensors: Tensor) -> Tensor:
        return loss_fn(dict(zip(predictions, tensors, strict=True)), targets, masks).total

    assert torch.autograd.gradcheck(total, inputs)
    assert torch.autograd.gradgradcheck(total, inputs)


def test_second_derivatives_of_a_gradient_penalty_reach_the_sigmas():
    # d/ds of (w(s) * dL/dx)^2 with w = e^-s / 2: twice minus the squared gradient.
    loss_fn = started(UncertaintyWeightedLoss(PAIR), lambda loss_fn: loss_fn(leaves([4.0, 3.0])))
    x = leaf(3.0)
    total = loss_fn({"a": x**2, "b": leaf(1.0)}).total
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    weight = loss_fn.weights()["a"].item()
    assert gradient.item() == pytest.approx(weight * 6)
    (of_sigma,) = torch.autograd.grad(gradient.square(), loss_fn["a"].log_var)
    assert of_sigma.item() == pytest.approx(-2 * (weight * 6) ** 2)


def test_only_a_transform_is_blamed_for_what_a_transform_forbids():
    with torch.inference_mode():
        loss_fn = UncertaintyWeightedLoss(PAIR)
    with pytest.raises(RuntimeError, match="outside InferenceMode"):
        loss_fn(leaves([4.0, 3.0]))
