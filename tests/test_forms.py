"""Each form against the public implementation it stands for, and its optimum."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchjd.scalarization import UW

from tests.strategies import losses, seeds
from uncertainty_mtl import ScaledSoftmaxHead, UncertaintyWeightedLoss, forms
from uncertainty_mtl.forms import BaseLoss

ALL = {
    "gaussian": forms.GAUSSIAN,
    "laplace": forms.LAPLACE,
    "softmax": forms.SOFTMAX,
    "symmetric": forms.SYMMETRIC,
    "liebel_koerner": forms.LIEBEL_KOERNER,
}
every_form = pytest.mark.parametrize("form", ALL.values(), ids=ALL)

# As their authors publish them, for losses and log-variances s (p^2 = e^s).
PUBLISHED = {
    "symmetric": lambda loss, s, _: torch.exp(-s) * loss + s,
    "libmtl": lambda loss, s, _: loss / (2 * s.exp()) + s / 2,
    "paper": lambda loss, s, kind: torch.exp(-s) * loss * (0.5, 1)[kind == "softmax"] + s / 2,
    "liebel_koerner": lambda loss, s, _: 0.5 / (s / 2).exp() ** 2 * loss + torch.log(1 + s.exp()),
}


def with_log_vars(tasks: dict[str, str], s: torch.Tensor, **options) -> UncertaintyWeightedLoss:
    loss_fn = UncertaintyWeightedLoss(tasks, **options)
    with torch.no_grad():
        for task, value in zip(tasks, s, strict=True):
            loss_fn[task].log_var.fill_(value)
    return loss_fn


@pytest.mark.parametrize("form", PUBLISHED)
@given(
    kinds=st.lists(st.sampled_from(["gaussian", "laplace", "softmax"]), min_size=1, max_size=8),
    seed=seeds,
)
def test_a_form_equals_the_published_formula(form, kinds, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(len(kinds), generator=generator).mul(10).requires_grad_()
    s = torch.randn(len(kinds), generator=generator)
    loss_fn = with_log_vars({f"{i}": kind for i, kind in enumerate(kinds)}, s, form=form)
    s = s.requires_grad_()
    expected = sum(PUBLISHED[form](*each) for each in zip(values, s, kinds, strict=True))
    (weights, slopes) = torch.autograd.grad(expected, (values, s))

    total = loss_fn(values).total
    total.backward()
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(values.grad, weights, rtol=1e-6, atol=1e-6)
    found = torch.cat([parameter.grad for parameter in loss_fn.parameters()])
    torch.testing.assert_close(found, slopes, rtol=1e-5, atol=1e-6)


@given(values=st.lists(losses, min_size=1, max_size=20), seed=seeds)
def test_libmtl_form_equals_torchjd(values, seed):
    values = torch.tensor(values).requires_grad_()
    s = torch.randn(len(values), generator=torch.Generator().manual_seed(seed))
    peer = UW(len(values))
    peer.load_state_dict({"log_var": s})
    tasks = {f"{i}": ("gaussian", "laplace", "softmax")[i % 3] for i in range(len(values))}
    loss_fn = with_log_vars(tasks, s, form="libmtl")
    torch.testing.assert_close(loss_fn(values).total, peer(values), rtol=1e-6, atol=1e-6)


@every_form
@given(loss=losses)
def test_the_optimum_is_where_the_slope_is_zero(form, loss):
    loss = torch.tensor([loss], dtype=torch.float64)
    s = form.optimal_log_var(loss).requires_grad_()
    term = form.term(BaseLoss(loss, torch.ones_like(loss)), s)
    (slope,) = torch.autograd.grad(term, s)
    assert abs(slope.item()) < 1e-9
    for shift in (-0.1, 0.1):
        assert form.term(BaseLoss(loss, torch.ones_like(loss)), s.detach() + shift) > term


@every_form
@given(loss=losses)
def test_the_optimum_can_be_inverted(form, loss):
    loss = torch.tensor([loss], dtype=torch.float64)
    torch.testing.assert_close(form.loss_at_optimum(form.optimal_log_var(loss)), loss)


@given(loss=losses)
def test_named_optima_are_those_of_the_literature(loss):
    expected = {
        forms.GAUSSIAN: math.log(loss),
        forms.LAPLACE: 2 * math.log(math.sqrt(2) * loss),
        forms.SOFTMAX: math.log(2 * loss),
        forms.SYMMETRIC: math.log(loss),
        forms.LIEBEL_KOERNER: math.log((loss + math.sqrt(loss**2 + 8 * loss)) / 4),
    }
    for form, s in expected.items():
        assert form.optimal_log_var(
            torch.tensor(loss, dtype=torch.float64)
        ).item() == pytest.approx(s)


@pytest.mark.parametrize("form", [forms.GAUSSIAN, forms.LAPLACE, forms.SOFTMAX, forms.SYMMETRIC])
@given(s=st.floats(-10, 10))
def test_a_log_weight_can_be_inverted(form, s):
    s = torch.tensor([s], dtype=torch.float64)
    torch.testing.assert_close(form.log_weight(s), form.weight(s).log())
    torch.testing.assert_close(form.log_var_of(form.log_weight(s)), s)


def test_liebel_koerner_is_never_negative_but_depends_on_units():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"}, form="liebel_koerner")
    for value in (1e-6, 1.0, 1e6):
        loss = torch.tensor(value, requires_grad=True)
        loss_fn.initialize_from({"a": loss})
        assert loss_fn({"a": loss}).total > 0
    shares = []
    for unit in (1.0, 100.0):
        loss_fn.initialize_from({"a": torch.tensor(unit)})
        shares.append(loss_fn.weights()["a"].item() * unit)
    assert shares[0] != pytest.approx(shares[1], rel=0.1)


def test_heads_follow_the_form_they_were_given():
    loss_fn = UncertaintyWeightedLoss({"a": "laplace"}, form="symmetric")
    assert loss_fn["a"].weight.item() == 1
    assert loss_fn.weights()["a"].item() == 1


def test_unknown_forms_and_unfit_heads_are_refused():
    with pytest.raises(ValueError, match=r"`form` should be one of \['nll', .*Found 'kendall'"):
        UncertaintyWeightedLoss({"a": "laplace"}, form="kendall")
    with pytest.raises(ValueError, match="Task 'a': ScaledSoftmaxHead should have `form='nll'`"):
        UncertaintyWeightedLoss({"a": ScaledSoftmaxHead(exact=True)}, form="paper")
