"""The exact softmax over large maps, a part at a time, against PyTorch's own cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from uncertainty_mtl import ScaledSoftmaxHead, _chunks


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(_chunks, "CPU_CHUNK", 12)


def exact_loss(logits, target, log_var, **options):
    return F.cross_entropy(logits / log_var.exp(), target, ignore_index=255, **options)


@settings(deadline=None)
@given(
    shape=st.sampled_from([(5, 4), (7, 3, 1), (2, 4, 6), (2, 3, 5, 7), (1, 3, 2, 3, 4)]),
    smoothing=st.sampled_from([0.0, 0.1]),
    is_weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_are_those_of_the_whole_map(shape, smoothing, is_weighted, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    target[0] = 255
    class_weight = torch.rand(shape[1], generator=generator).double() + 0.1 if is_weighted else None
    head = ScaledSoftmaxHead(
        exact=True,
        init_sigma=1.7,
        ignore_index=255,
        class_weight=class_weight,
        label_smoothing=smoothing,
    )
    log_var = head.log_var.detach().double().requires_grad_()
    expected = exact_loss(
        logits, target, log_var, weight=class_weight, label_smoothing=smoothing
    ).nan_to_num()  # a sample alone that is all ignored
    loss = head(logits, target)
    assert logits.numel() > _chunks.CPU_CHUNK
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(3 * loss, [logits, head.log_var])
    theirs = torch.autograd.grad(3 * expected, [logits, log_var])
    torch.testing.assert_close(ours[0], theirs[0].nan_to_num())
    torch.testing.assert_close(ours[1].double(), theirs[1].nan_to_num())


def test_second_derivatives_are_those_of_the_whole_map():
    torch.manual_seed(0)
    target = torch.randint(3, (2, 5, 7))
    head = ScaledSoftmaxHead(exact=True, init_sigma=1.7)

    def second(loss_of):
        logits = torch.linspace(-2, 2, 210).sin().reshape(2, 3, 5, 7).requires_grad_()
        gradients = torch.autograd.grad(loss_of(logits), [logits, head.log_var], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in gradients), [logits, head.log_var])

    torch.testing.assert_close(
        second(lambda logits: head(logits, target)),
        second(lambda logits: exact_loss(logits, target, head.log_var)),
    )


def test_a_gradient_may_be_taken_twice_and_of_either_input_alone():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5, 7, requires_grad=True), torch.randint(3, (2, 5, 7))
    head = ScaledSoftmaxHead(exact=True)
    loss = head(logits, target)
    first, again = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)
    frozen_logits = head(logits.detach(), target)
    frozen_logits.backward()
    frozen_scale = ScaledSoftmaxHead(exact=True)
    frozen_scale.freeze()
    torch.testing.assert_close(torch.autograd.grad(frozen_scale(logits, target), logits)[0], first)
    torch.testing.assert_close(head.log_var.grad, torch.autograd.grad(loss, head.log_var)[0])


def test_gradients_come_in_batches_too():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5, 7, requires_grad=True), torch.randint(3, (2, 5, 7))
    head = ScaledSoftmaxHead(exact=True)
    inputs = [logits, head.log_var]
    batch = torch.tensor([1.0, -2.0])
    together = torch.autograd.grad(head(logits, target), inputs, batch, is_grads_batched=True)
    for k, upstream in enumerate(batch):
        alone = torch.autograd.grad(head(logits, target), inputs, upstream)
        torch.testing.assert_close([g[k] for g in together], list(alone))


def test_transforms_of_functions_see_the_same_loss():
    torch.manual_seed(0)
    target, scale = torch.randint(3, (2, 5, 7)), torch.zeros(1)
    logits = torch.randn(2, 3, 5, 7)

    def loss(logits, scale):
        base = ScaledSoftmaxHead(exact=True)._cross_entropy(logits, target, None, scale)
        return base.mean()

    of_logits, of_scale = torch.func.grad(loss, (0, 1))(logits, scale)
    expected = torch.func.grad(exact_loss_of(target), (0, 1))(logits, scale)
    torch.testing.assert_close((of_logits, of_scale), expected)


def exact_loss_of(target):
    return lambda logits, scale: exact_loss(logits, target, scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5, 7).to(dtype).requires_grad_(), torch.randint(3, (2, 5, 7))
    head = ScaledSoftmaxHead(exact=True)
    loss = head(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact_loss(logits.float(), target, head.log_var))
    loss.backward()
    assert logits.grad.dtype == dtype


def test_a_label_out_of_range_is_named():
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        ScaledSoftmaxHead(exact=True)(torch.zeros(2, 3, 5, 7), torch.full((2, 5, 7), 9))
