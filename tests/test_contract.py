"""What users were promised of heads and sigmas, for every kind of head, option and optimizer."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Poisson

from tests.scene import (
    HEADS,
    KINDS,
    OPTIONS,
    PAIR,
    C,
    leaf,
    leaves,
    noisy,
    numbers,
    scene_loss,
    state_of,
    train,
)
from uncertainty_mtl import TaskHead, UncertaintyWeightedLoss
from uncertainty_mtl.forms import NAMES, BaseLoss

every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)
every_kind = pytest.mark.parametrize("kind", KINDS)
both_estimators = pytest.mark.parametrize("estimator", ["learned", "closed_form"])


class PoissonHead(TaskHead):
    """A head as a user writes it, without a scale: counts, from their log-rate."""

    def __init__(self) -> None:
        super().__init__(form=None)

    def base_loss(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the negative log-likelihood, summed."""
        nll = nn.functional.poisson_nll_loss(prediction, target, reduction="none")
        mask = torch.ones_like(nll, dtype=torch.bool) if mask is None else mask
        return BaseLoss(torch.where(mask, nll, 0.0).sum(), mask.sum().float())

    def distribution(self, prediction: Tensor) -> Poisson:
        """Return ``Poisson(exp(prediction))``."""
        return Poisson(prediction.exp())


@every_option
@every_kind
def test_building_and_using_a_loss_changes_no_head_setting_and_no_other_loss(options, kind):
    head = HEADS[kind](init_sigma=3.0)
    first = UncertaintyWeightedLoss({"a": head})
    settings = repr(head), head.form, head.sigma_bounds, head.weight.item(), state_of(head)
    total, weight = first({"a": leaf(2.0)}).total, first.weights()["a"]
    second = UncertaintyWeightedLoss({"a": head}, **options)
    assert settings[:4] == (repr(head), head.form, head.sigma_bounds, head.weight.item())
    assert torch.equal(first({"a": leaf(2.0)}).total, total)
    assert first.weights()["a"] == weight
    second.eval()({"a": leaf(2.0)})
    assert torch.equal(first({"a": leaf(2.0)}).total, total)
    assert head.form == settings[1]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301
@pytest.mark.parametrize("form", NAMES)
@every_kind
def test_a_loss_of_copied_heads_computes_what_the_original_does(copied, form, kind):
    head = HEADS[kind](init_sigma=3.0)
    expected = UncertaintyWeightedLoss({"a": head}, form=form)
    found = UncertaintyWeightedLoss({"a": copied(head)}, form=form)
    assert torch.equal(found({"a": leaf(1.0)}).total, expected({"a": leaf(1.0)}).total)
    whole = copied(expected)
    assert torch.equal(whole({"a": leaf(1.0)}).total, expected({"a": leaf(1.0)}).total)
    assert whole.weights() == expected.weights()


@every_option
def test_a_parameter_stays_the_object_that_an_optimizer_holds(options):
    heads = {"a": HEADS["gaussian"](), "b": HEADS["laplace"]()}
    held = [heads["a"].log_var, heads["b"].log_var]
    loss_fn = UncertaintyWeightedLoss(heads, **options)
    for step in range(3):
        loss_fn(leaves([4.0, 3.0])).total.backward()
        if step == 1:
            loss_fn.load_state_dict(loss_fn.state_dict())
            loss_fn.freeze(), loss_fn.unfreeze()
            loss_fn.initialize_from(leaves([4.0, 3.0]))
            loss_fn.bfloat16().reset_parameters()
    now = [heads["a"].log_var, heads["b"].log_var]
    assert [id(parameter) for parameter in now] == [id(parameter) for parameter in held]
    assert all(isinstance(parameter, nn.Parameter) for parameter in now)
    assert all(parameter.grad is not None for parameter in held)


def test_the_loop_of_the_readme_ends_near_the_optimum():
    levels = torch.tensor([1e-3, 1e3]).repeat_interleave(3)
    kinds = KINDS * 2
    loss_fn = UncertaintyWeightedLoss({f"{i}": kind for i, kind in enumerate(kinds)})
    weights = train(loss_fn, noisy(levels, 3000), record=200).mean(0)
    ratios = weights * levels / torch.tensor([C[kind] for kind in kinds])
    torch.testing.assert_close(ratios, torch.ones(6), rtol=1 / 3, atol=0)


@pytest.mark.parametrize("optimizer_cls", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
@pytest.mark.parametrize("level", [1e-4, 5000.0])
@every_kind
def test_a_constant_loss_has_its_weight_from_the_first_step_on(optimizer_cls, level, kind):
    loss_fn = UncertaintyWeightedLoss({"a": kind})
    optimizer = optimizer_cls(loss_fn.param_groups(lr=1e-2))
    for _ in range(20):
        loss = leaf(level)
        optimizer.zero_grad()
        loss_fn({"a": loss}).total.backward()
        optimizer.step()
        # Adam and its like make whole steps, of 1%, of a gradient that is 0 but for rounding.
        assert loss.grad.item() * level / C[kind] == pytest.approx(1, rel=0.12)


@both_estimators
@pytest.mark.parametrize(("value", "sigma"), [(2.5e-17, 5e-9), (1e18, 1e9)])
def test_an_optimum_that_the_bounds_forbid_is_told(estimator, value, sigma):
    loss_fn = UncertaintyWeightedLoss({"depth": "laplace", "nm": "gaussian"}, estimator=estimator)
    with pytest.warns(UserWarning, match=r"task 'nm'.*\(1e-06, 1000000.0\)") as record:
        loss_fn.initialize_from({"depth": leaf(1.0), "nm": leaf(value)})
    found = str(record[0].message).split("sigma = ")[1].split(" for this loss")[0]
    assert float(found.strip("[]")) == pytest.approx(sigma, rel=1e-3)
    assert len(record) == 1


@both_estimators
@pytest.mark.parametrize("constraint", [None, "unit_sum"])
@pytest.mark.parametrize("optimizer_cls", [torch.optim.SGD, torch.optim.AdamW])
def test_freezing_holds_although_other_code_asks_for_gradients(
    estimator, constraint, optimizer_cls
):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator, constraint=constraint)
    loss_fn(leaves([4.0, 3.0])), loss_fn(leaves([4.0, 3.0]))
    loss_fn.freeze()
    for parameter in loss_fn.parameters():
        parameter.requires_grad_(True)
    before = numbers(loss_fn.sigmas())
    optimizer = optimizer_cls(loss_fn.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss_fn(leaves([9.0, 9.0])).total.backward()
        optimizer.step()
    assert loss_fn["a"].frozen
    assert numbers(loss_fn.sigmas()) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("tasks", [["semantic"], ["semantic", "depth"]])
def test_sigmas_that_should_learn_and_do_not_are_told(tasks):
    loss_fn = scene_loss()
    optimizer = torch.optim.SGD(loss_fn.param_groups(), lr=0.1)
    for task in tasks:
        loss_fn[task].requires_grad_(False)
    with pytest.raises(ValueError, match=r"of \['semantic'.*without `requires_grad`"):
        loss_fn.check_optimizer(optimizer)
    loss_fn.freeze(*tasks)
    loss_fn.check_optimizer(optimizer)


@both_estimators
def test_a_head_whose_likelihood_has_no_scale_has_no_parameter(estimator):
    head = PoissonHead()
    assert list(head.parameters()) == []
    assert head.state_dict() == {}
    assert head.sigma.isnan()
    assert head.weight == 1
    loss_fn = UncertaintyWeightedLoss({"count": head, "b": "laplace"}, estimator=estimator)
    log_rate, counts = torch.zeros(5, requires_grad=True), torch.arange(5.0)
    for targets in ({"count": counts}, {"count": None}):
        losses = loss_fn({"count": log_rate, "b": leaf(3.0)}, targets)
        loss_fn.zero_grad()
        losses.total.backward()
        # DistributedDataParallel waits for a gradient of every parameter.
        assert all(parameter.grad is not None for parameter in loss_fn.parameters())
        if targets["count"] is not None:
            expected = -head.distribution(log_rate).log_prob(counts) - torch.lgamma(counts + 1)
            torch.testing.assert_close(losses.tasks["count"], expected.mean())
    loss_fn.initialize_from({"count": log_rate, "b": leaf(3.0)}, {"count": counts})
    assert loss_fn.sigmas()["count"].isnan()
    assert numbers(loss_fn.weights()) == pytest.approx({"count": 1, "b": 1 / 3})
    assert [task for task, _ in loss_fn.learned_heads()] == ["b"] * (estimator == "learned")
    loss_fn.check_optimizer(torch.optim.SGD([torch.zeros(1), *loss_fn.parameters()], lr=0.1))
