"""Cross-entropy over large maps, a part at a time, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from uncertainty_mtl import ScaledSoftmaxHead, _chunks
from uncertainty_mtl.functional import cross_entropy, scaled_softmax_nll

# PyTorch's own: at the first use of forward mode, and of `count_nonzero` under an older vmap.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script`", "ignore:There is a performance drop"
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(_chunks, "CPU_CHUNK", 12)
    monkeypatch.setattr(_chunks, "SCALED_FROM", 0)
    monkeypatch.setattr(_chunks, "PLAIN_FROM", 0)


def exact_loss(logits, target, log_var, **options):
    return F.cross_entropy(logits / log_var.exp(), target, ignore_index=255, **options)


@settings(deadline=None)
@given(
    shape=st.sampled_from([(5, 4), (7, 3, 1), (2, 4, 6), (2, 3, 5, 7), (1, 3, 2, 3, 4)]),
    smoothing=st.sampled_from([0.0, 0.1]),
    is_weighted=st.booleans(),
    upstream=st.sampled_from([1, 3]),  # the mean itself, for which the gradient is made, or not
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_are_those_of_the_whole_map(
    shape, smoothing, is_weighted, upstream, seed
):
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
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(upstream * loss, [logits, head.log_var])
    theirs = torch.autograd.grad(upstream * expected, [logits, log_var])
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


@pytest.mark.parametrize("exact", [False, True], ids=["paper", "exact"])
@pytest.mark.parametrize("transform", ["vmap", "per_sample", "jacfwd", "jacrev", "hessian", "jvp"])
def test_every_transform_gives_what_the_plain_loss_gives(transform, exact):
    torch.manual_seed(0)
    logits, target = torch.randn(4, 2, 3, 5, 3), torch.randint(3, (4, 2, 5, 3))
    log_var = torch.tensor([0.3]) if exact else None

    def ours(x, y):
        return cross_entropy(x, y, log_var=log_var).mean()

    def plain(x, y):
        return F.cross_entropy(x / log_var.exp() if exact else x, y)

    run = {
        "vmap": lambda loss: torch.func.vmap(loss)(logits, target),
        "per_sample": lambda loss: torch.func.vmap(torch.func.grad(loss))(logits, target),
        "jacfwd": lambda loss: torch.func.jacfwd(loss)(logits[0], target[0]),
        "jacrev": lambda loss: torch.func.jacrev(loss)(logits[0], target[0]),
        "hessian": lambda loss: torch.func.hessian(loss)(logits[0], target[0]),
        "jvp": lambda loss: torch.func.jvp(
            lambda x: loss(x, target[0]), (logits[0],), (logits[1],)
        ),
    }[transform]
    torch.testing.assert_close(run(ours), run(plain))


@pytest.mark.parametrize("exact", [False, True], ids=["paper", "exact"])
def test_forward_mode_sees_the_scale_too(exact):
    torch.manual_seed(0)
    logits, change = torch.randn(2, 2, 3, 5, 7)
    target, s = torch.randint(3, (2, 5, 7)), torch.tensor([0.3])
    found = torch.func.jvp(
        lambda x, s: scaled_softmax_nll(x, target, s, exact=exact), (logits, s), (change, s)
    )

    def plain(x, s):
        loss = exact_loss(x, target, s) if exact else F.cross_entropy(x, target) / s.exp() + s / 2
        return loss.squeeze()

    torch.testing.assert_close(found, torch.func.jvp(plain, (logits, s), (change, s)))


@pytest.mark.parametrize("exact", [False, True], ids=["paper", "exact"])
@pytest.mark.parametrize("num_axes", [1, 2, 3])
@pytest.mark.parametrize("most", [0, 10**6])
def test_the_order_of_the_axes_in_memory_changes_nothing(most, num_axes, exact, monkeypatch):
    monkeypatch.setattr(_chunks, "SCALED_FROM", most)
    monkeypatch.setattr(_chunks, "PLAIN_FROM", most)
    torch.manual_seed(0)
    spatial = (3, 5, 2)[:num_axes]
    by_class = torch.randn(2, 4, *spatial)
    target = torch.randint(4, (2, *spatial)).index_fill(0, torch.tensor([1]), 255)
    target[1, 0] = 2
    # As a network in `channels_last` returns them: the classes of a pixel side by side.
    by_pixel = by_class.movedim(1, -1).contiguous().movedim(-1, 1)
    assert by_pixel.stride() != by_class.stride()
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0])
    results = []
    for logits in (by_class.clone().requires_grad_(), by_pixel.clone().requires_grad_()):
        head = ScaledSoftmaxHead(
            exact=exact, ignore_index=255, class_weight=weight, label_smoothing=0.1
        )
        loss = head(logits, target)
        loss.backward()
        assert logits.grad.stride() == logits.stride()
        results.append((loss, logits.grad, head.log_var.grad))
    torch.testing.assert_close(*results)


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


def test_a_scaled_loss_keeps_gradients_that_float16_could_not_hold_without(monkeypatch):
    monkeypatch.undo()
    torch.manual_seed(0)
    logits, target = torch.randn(1, 2, 1024, 1024), torch.randint(2, (1, 1024, 1024))
    half = logits.half().requires_grad_()
    head, logits = ScaledSoftmaxHead(exact=True), half.detach().float().requires_grad_()
    (2**16 * head(half, target)).backward()
    (2**16 * exact_loss(logits, target, head.log_var.detach())).backward()
    torch.testing.assert_close(half.grad.float(), logits.grad, rtol=1e-2, atol=1e-6)


def test_the_gradient_of_a_mean_is_not_scaled_once_more(monkeypatch):
    factors = []

    def scale_(gradient, factor):
        factors.append(factor.item())
        return gradient * factor

    monkeypatch.setattr(_chunks, "scale_", scale_)
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5, 7, requires_grad=True), torch.randint(3, (2, 5, 7))
    head = ScaledSoftmaxHead(exact=True, init_sigma=1.7, ignore_index=0)
    head(logits, target).backward()
    (2 * head(logits, target)).backward()
    assert factors == [1.0, 2.0]


@pytest.mark.parametrize("log_var", [-40.0, 40.0, 200.0])
def test_temperatures_beyond_those_of_a_head_have_the_gradients_of_the_whole_map(log_var):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5, 7, requires_grad=True), torch.randint(3, (2, 5, 7))
    log_var = torch.tensor([log_var], requires_grad=True)
    inputs = [logits, log_var]
    ours = torch.autograd.grad(scaled_softmax_nll(logits, target, log_var, exact=True), inputs)
    theirs = torch.autograd.grad(exact_loss(logits, target, log_var), inputs)
    torch.testing.assert_close(ours, tuple(g.nan_to_num() for g in theirs))


def test_a_label_out_of_range_is_named():
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        ScaledSoftmaxHead(exact=True)(torch.zeros(2, 3, 5, 7), torch.full((2, 5, 7), 9))
