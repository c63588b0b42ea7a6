"""Each form against the formula that its authors publish, and its optimum in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.strategies import losses, seeds
from uncertainty_mtl import LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss, forms

KINDS = ["gaussian", "laplace", "softmax"]

# Term, weight, optimal s and, at that optimum, the loss, as their authors publish them or as they
# follow by setting the slope to zero; p^2 = e^s.
FORMS = {
    "gaussian": (
        forms.GAUSSIAN,
        lambda loss, s: loss / (2 * math.exp(s)) + s / 2,
        lambda s: 1 / (2 * math.exp(s)),
        lambda loss: math.log(loss),
    ),
    "laplace": (
        forms.LAPLACE,
        lambda loss, s: math.sqrt(2) * loss / math.exp(s / 2) + s / 2,
        lambda s: math.sqrt(2) / math.exp(s / 2),
        lambda loss: 2 * math.log(math.sqrt(2) * loss),
    ),
    "softmax": (
        forms.SOFTMAX,
        lambda loss, s: loss / math.exp(s) + s / 2,
        lambda s: 1 / math.exp(s),
        lambda loss: math.log(2 * loss),
    ),
    "symmetric": (
        forms.SYMMETRIC,
        lambda loss, s: loss / math.exp(s) + s,
        lambda s: 1 / math.exp(s),
        lambda loss: math.log(loss),
    ),
    "liebel_koerner": (
        forms.LIEBEL_KOERNER,
        lambda loss, s: loss / (2 * math.exp(s)) + math.log(1 + math.exp(s)),
        lambda s: 1 / (2 * math.exp(s)),
        lambda loss: math.log((loss + math.sqrt(loss**2 + 8 * loss)) / 4),
    ),
}
every_form = pytest.mark.parametrize(
    ("form", "term", "weight", "optimum"), FORMS.values(), ids=FORMS
)
scales = st.floats(-8, 8)

PUBLISHED = {
    "symmetric": lambda loss, s, _: torch.exp(-s) * loss + s,
    "libmtl": lambda loss, s, _: loss / (2 * s.exp()) + s / 2,
    "paper": lambda loss, s, kind: torch.exp(-s) * loss * (0.5, 1)[kind == "softmax"] + s / 2,
    "liebel_koerner": lambda loss, s, _: 0.5 / (s / 2).exp() ** 2 * loss + torch.log(1 + s.exp()),
}


def column(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@every_form
@given(loss=losses, s=scales, constant=st.floats(-2, 2))
def test_a_form_weighs_a_loss_as_published(form, term, weight, optimum, loss, s, constant):
    found = forms.weigh(form, column(loss), column(s), constant)
    assert found.item() == pytest.approx(term(loss, s) + constant, rel=1e-12, abs=1e-12)
    assert form.weight(column(s)).item() == pytest.approx(weight(s), rel=1e-12)


@every_form
@given(loss=losses)
def test_the_optimum_is_the_published_one_and_the_slope_there_is_zero(
    form, term, weight, optimum, loss
):
    s = form.optimal_log_var(column(loss))
    assert s.item() == pytest.approx(optimum(loss), rel=1e-9, abs=1e-9)
    lowest = term(loss, s.item())
    assert term(loss, s.item() - 0.01) > lowest
    assert term(loss, s.item() + 0.01) > lowest
    s.requires_grad_()
    (slope,) = torch.autograd.grad(forms.weigh(form, column(loss), s), s)
    assert abs(slope.item()) < 1e-9


@every_form
@given(loss=losses)
def test_the_loss_that_an_optimum_belongs_to_is_found_back(form, term, weight, optimum, loss):
    assert form.loss_at_optimum(column(optimum(loss))).item() == pytest.approx(loss, rel=1e-9)


@every_form
@given(loss=losses, s=scales, factor=st.floats(0.1, 10))
def test_a_form_times_a_factor_is_all_of_it_times_that(
    form, term, weight, optimum, loss, s, factor
):
    found = forms.weigh(form.times(factor), column(loss), column(s))
    assert found.item() == pytest.approx(factor * term(loss, s), rel=1e-9, abs=1e-9)
    found = form.times(factor).optimal_log_var(column(loss))
    assert found.item() == pytest.approx(optimum(loss), rel=1e-9, abs=1e-9)


def test_one_vector_holds_several_forms():
    form = forms.PowerForm(*(torch.tensor(x) for x in ([0.5, 2**0.5], [1.0, 0.5], [0.5, 0.5])))
    values, s = torch.tensor([3.0, 0.2]), torch.tensor([0.4, -1.0])
    expected = [FORMS["gaussian"][1](3.0, 0.4), FORMS["laplace"][1](0.2, -1.0)]
    assert forms.weigh(form, values, s).tolist() == pytest.approx(expected, rel=1e-5)


def with_log_vars(tasks: dict[str, str], s: Tensor, **options) -> UncertaintyWeightedLoss:
    """Return a loss whose sigmas are given, and count as set."""
    loss_fn = UncertaintyWeightedLoss(tasks, **options)
    state = {f"heads.{task}.log_var": value.view(1) for task, value in zip(tasks, s, strict=True)}
    loss_fn.load_state_dict(state, strict=False)
    return loss_fn


@pytest.mark.parametrize("form", PUBLISHED)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), seed=seeds)
def test_a_loss_with_a_form_equals_the_published_formula(form, kinds, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(len(kinds), generator=generator).mul(10).requires_grad_()
    s = torch.randn(len(kinds), generator=generator)
    loss_fn = with_log_vars({f"{i}": kind for i, kind in enumerate(kinds)}, s, form=form)
    s = s.requires_grad_()
    terms = [PUBLISHED[form](*each) for each in zip(values, s, kinds, strict=True)]
    expected = sum(terms)
    (weights, slopes) = torch.autograd.grad(expected, (values, s))

    found = loss_fn(values)
    found.total.backward()
    torch.testing.assert_close(found.total, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(list(found.tasks.values()), terms, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(values.grad, weights, rtol=1e-6, atol=1e-6)
    gradients = torch.cat([loss_fn[task].log_var.grad for task in loss_fn])
    torch.testing.assert_close(gradients, slopes, rtol=1e-5, atol=1e-6)
    named = torch.stack(list(loss_fn.weights().values()))
    torch.testing.assert_close(named, weights, rtol=1e-6, atol=1e-6)


# The logarithm of the optimal sigma for a loss of 3, by form and likelihood.
OPTIMA = {
    ("nll", "gaussian"): 0.5 * math.log(3),
    ("nll", "laplace"): math.log(math.sqrt(2) * 3),
    ("nll", "softmax"): 0.5 * math.log(6),
    ("symmetric", "laplace"): 0.5 * math.log(3),
    ("paper", "laplace"): 0.5 * math.log(3),
    ("paper", "softmax"): 0.5 * math.log(6),
    ("libmtl", "softmax"): 0.5 * math.log(3),
    ("liebel_koerner", "laplace"): 0.5 * math.log((3 + math.sqrt(33)) / 4),
}


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
@pytest.mark.parametrize(("form", "kind"), OPTIMA, ids=lambda name: name)
def test_sigma_starts_at_the_optimum_of_its_form(form, kind, estimator):
    loss_fn = UncertaintyWeightedLoss({"a": kind}, form=form, estimator=estimator)
    loss_fn({"a": torch.tensor(3.0, requires_grad=True)})
    found = loss_fn.sigmas()["a"].log().item()
    assert found == pytest.approx(OPTIMA[form, kind], abs=1e-5)


def test_liebel_koerner_is_never_negative_but_depends_on_units():
    shares = []
    for value in (1e-4, 1.0, 1e4):
        loss_fn = UncertaintyWeightedLoss({"a": "gaussian"}, form="liebel_koerner")
        total = loss_fn({"a": torch.tensor(value, requires_grad=True)}).total
        assert total > 0
        # By hand: the weight 1 / (2 p^2) at the optimum, times the loss.
        shares.append(loss_fn.weights()["a"].item() * value)
        expected = 2 * value / (value + math.sqrt(value**2 + 8 * value))
        assert shares[-1] == pytest.approx(expected, rel=1e-4)
    assert shares[0] < 0.1 < 0.9 < shares[-1]


def test_the_form_belongs_to_the_loss_and_leaves_its_heads_alone():
    head = LaplaceHead(init_sigma=2.0)
    plain = UncertaintyWeightedLoss({"a": head})
    symmetric = UncertaintyWeightedLoss({"a": head}, form="symmetric")
    assert head.weight.item() == pytest.approx(math.sqrt(2) / 2)
    assert plain.weights()["a"].item() == pytest.approx(math.sqrt(2) / 2)
    assert symmetric.weights()["a"].item() == pytest.approx(1 / 4)


def test_unknown_forms_and_unfit_heads_are_refused():
    with pytest.raises(ValueError, match=r"`form` should be one of \['nll', .*Found 'kendall'"):
        UncertaintyWeightedLoss({"a": "laplace"}, form="kendall")
    with pytest.raises(ValueError, match="Task 'a': ScaledSoftmaxHead should have `form='nll'`"):
        UncertaintyWeightedLoss({"a": ScaledSoftmaxHead(exact=True)}, form="paper")
