"""What happens around a loss, and once went wrong: evaluation first, late tasks, other heads."""

import math

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from uncertainty_mtl import (
    GaussianHead,
    HeteroscedasticGaussianHead,
    LaplaceHead,
    ScaledSoftmaxHead,
    TaskHead,
    UncertaintyWeightedLoss,
)
from uncertainty_mtl.forms import LAPLACE, BaseLoss

PAIR = {"a": "gaussian", "b": "laplace"}


def leaf(value: float) -> Tensor:
    return torch.tensor(float(value), requires_grad=True)


def weights(loss_fn: UncertaintyWeightedLoss) -> list[float]:
    return [weight.item() for weight in loss_fn.weights().values()]


@pytest.mark.parametrize("constraint", [None, "unit_sum"])
def test_an_evaluation_in_inference_mode_may_come_first(constraint):
    loss_fn = UncertaintyWeightedLoss(PAIR, constraint=constraint).eval()
    with torch.inference_mode():
        loss_fn({"a": torch.tensor(4.0), "b": torch.tensor(3.0)})
        loss_fn({"a": None, "b": torch.tensor(3.0)})
        loss_fn.weights()
    loss_fn.train()
    for a in (leaf(4), None):
        loss_fn({"a": a, "b": leaf(3)}).total.backward()
    assert all(parameter.grad.isfinite() for parameter in loss_fn.parameters())


def test_what_was_frozen_within_a_group_starts_once_it_is_unfrozen():
    group = UncertaintyWeightedLoss({"x": "gaussian"})
    loss_fn = UncertaintyWeightedLoss({"g": group, "b": "laplace"})
    loss_fn.freeze()
    for _ in range(3):
        loss_fn({"g": {"x": leaf(9)}, "b": leaf(3)})
    loss_fn.unfreeze()
    loss_fn({"g": {"x": leaf(9)}, "b": leaf(3)})
    assert loss_fn.sigmas()["g.x"].item() == pytest.approx(3)


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_a_task_that_comes_late_takes_its_share_of_the_unit_sum(estimator):
    loss_fn = UncertaintyWeightedLoss(
        PAIR, constraint="unit_sum", estimator=estimator, momentum=1.0
    )
    loss_fn({"a": leaf(4), "b": None})
    loss_fn({"a": leaf(4), "b": leaf(7)})
    # w = c / (L + m) with c = 1/2 and 1: the one m for which both sum to 1, by bisection.
    low, high = -4 + 1e-9, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        is_low = 0.5 / (4 + middle) + 1 / (7 + middle) > 1
        low, high = (middle, high) if is_low else (low, middle)
    assert weights(loss_fn) == pytest.approx([0.5 / (4 + low), 1 / (7 + low)], rel=1e-4)


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
@pytest.mark.parametrize("size", [1e16, 1e18])
def test_enormous_losses_share_a_unit_sum_without_nan(estimator, size):
    loss_fn = UncertaintyWeightedLoss(
        dict.fromkeys("ab", "gaussian"), constraint="unit_sum", estimator=estimator
    )
    loss_fn({"a": leaf(size), "b": leaf(size)})
    assert weights(loss_fn) == pytest.approx([0.5, 0.5])


def test_a_head_frozen_before_its_first_batch_keeps_its_weight_in_a_unit_sum():
    heads = {"a": GaussianHead(init_sigma=3.0), "b": LaplaceHead(), "c": GaussianHead()}
    loss_fn = UncertaintyWeightedLoss(heads, constraint="unit_sum")
    loss_fn.freeze("a")
    optimizer = torch.optim.Adam(loss_fn.param_groups(lr=0.1))
    for _ in range(20):
        optimizer.zero_grad()
        loss_fn({"a": leaf(4), "b": leaf(2), "c": leaf(1)}).total.backward()
        optimizer.step()
        assert loss_fn.sigmas()["a"].item() == pytest.approx(3)
        assert sum(weights(loss_fn)) == pytest.approx(1)


def test_masks_of_changing_size_compile_once():
    torch._dynamo.reset()
    counter = CompileCounter()
    loss_fn = UncertaintyWeightedLoss({"a": LaplaceHead(init_sigma=1.0)})
    compiled = torch.compile(loss_fn, backend=counter, fullgraph=True, dynamic=True)
    for size in (3, 5, 7, 9, 11):
        compiled(
            {"a": torch.zeros(size, 2)},
            {"a": torch.ones(size, 2)},
            {"a": torch.ones(size, 2, dtype=torch.bool)},
        )
    assert counter.frame_count <= 2


@pytest.mark.parametrize("count", [float, int])
def test_a_head_of_a_users_own_may_count_in_python(count):
    class Counting(TaskHead):
        """Absolute errors, counted without a tensor."""

        def __init__(self) -> None:
            super().__init__(form=LAPLACE)

        def base_loss(self, prediction, target, mask=None):
            """Return the sum and a number."""
            return BaseLoss((prediction - target).abs().sum(), count(prediction.numel()))

        def distribution(self, prediction):
            """Refuse: this test asks for no distribution."""
            raise TypeError("no distribution is asked for")

    losses = UncertaintyWeightedLoss({"a": Counting()})(
        {"a": torch.zeros(5, requires_grad=True)}, {"a": torch.full((5,), 2.0)}
    )
    assert losses.errors["a"].item() == 2
    assert losses.counts["a"].item() == 5
    alone = Counting()(torch.zeros(5), torch.full((5,), 2.0))
    assert alone.item() == pytest.approx(2 * math.sqrt(2))


def test_a_mask_of_a_reduced_loss_is_refused():
    loss_fn = UncertaintyWeightedLoss(PAIR)
    with pytest.raises(ValueError, match=r"`masks`.*\['b'\].*reduced already"):
        loss_fn(
            {"a": torch.zeros(2), "b": leaf(1)},
            {"a": torch.ones(2)},
            {"b": torch.zeros(2, dtype=torch.bool)},
        )


@pytest.mark.parametrize("head", [LaplaceHead(), ScaledSoftmaxHead(exact=True)], ids=repr)
def test_a_frozen_head_has_no_gradient_in_evaluation_either(head):
    head.freeze()
    head.requires_grad_(True)
    is_regression = isinstance(head, LaplaceHead)
    target = torch.ones(2, 3) if is_regression else torch.zeros(2, dtype=torch.long)
    head.eval()(torch.randn(2, 3, requires_grad=True), target).backward()
    assert head.log_var.grad is None


def test_a_loss_trains_on_the_meta_device():
    loss_fn = UncertaintyWeightedLoss(PAIR).to("meta")
    losses = {task: torch.zeros((), device="meta", requires_grad=True) for task in PAIR}
    loss_fn(losses).total.backward()
    assert loss_fn(losses).total.shape == ()


def test_losses_for_a_loss_without_memory_are_told_to_give_it_some():
    loss_fn = UncertaintyWeightedLoss(PAIR).to("meta")
    with pytest.raises(ValueError, match=r"to_empty\(device='cpu'\)"):
        loss_fn({"a": leaf(1), "b": leaf(1)})


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_tasks_that_share_a_head_start_at_the_average_by_priority(estimator):
    head = LaplaceHead()
    loss_fn = UncertaintyWeightedLoss(
        {"a": head, "b": head}, share_heads=True, priorities={"a": 3.0}, estimator=estimator
    )
    loss_fn({"a": leaf(1), "b": leaf(3)}).total.backward()
    assert loss_fn.sigmas()["a"].item() == pytest.approx(math.sqrt(2) * (3 * 1 + 3) / 4)
    if estimator == "learned":
        assert head.log_var.grad.item() == pytest.approx(0, abs=1e-6)


def test_patterns_of_absent_tasks_do_not_pile_up():
    tasks = [f"task {i}" for i in range(12)]
    loss_fn = UncertaintyWeightedLoss(dict.fromkeys(tasks, "gaussian"))
    for number in range(600):
        loss_fn({t: leaf(1) if number >> i & 1 else None for i, t in enumerate(tasks)})
    (entries,) = loss_fn._entries_of.values()
    assert len(entries._patterns) <= 256


def test_a_label_beyond_the_class_weights_says_so():
    head = ScaledSoftmaxHead(class_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"labels from 0 to 1.*Found labels from 0 to 2"):
        head(torch.zeros(2, 2), torch.tensor([0, 2]))


def test_a_prediction_without_its_noise_says_so():
    with pytest.raises(TypeError, match=r"`prediction\[1\]` should be a tensor. Found NoneType"):
        HeteroscedasticGaussianHead()((torch.zeros(2), None), torch.zeros(2))


def test_a_task_may_be_called_like_an_attribute_of_the_library():
    loss_fn = UncertaintyWeightedLoss({"_module_names": "gaussian"})
    assert loss_fn({"_module_names": leaf(4)}).errors["_module_names"].item() == 4
