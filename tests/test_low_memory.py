"""The cross-entropy in chunks, against PyTorch's of the whole map in float64."""

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from benchmarks.peak_memory import peak_bytes
from tests.strategies import Batch, classification_batches
from uncertainty_mtl import chunks
from uncertainty_mtl.chunks import cross_entropy_in_chunks

IGNORED = 255


@st.composite
def settings(draw, num_classes):
    """Draw the settings of a cross-entropy, and the size of a chunk."""
    weights = st.lists(st.floats(0, 5), min_size=num_classes, max_size=num_classes)
    weight = draw(st.none() | weights)
    options = {
        "ignore_index": draw(st.sampled_from([-100, IGNORED, 0, 1])),
        "weight": None if weight is None else torch.tensor(weight, dtype=torch.float64),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
    }
    return options, draw(st.sampled_from([1, 7, 40, 2**20]))


def leaf(logits, dtype=torch.float64):
    """Return a copy in the same memory format that requires a gradient."""
    return logits.detach().clone().to(dtype).requires_grad_()


def whole(logits, target, **options):
    """Return PyTorch's cross-entropy, in float64."""
    return F.cross_entropy(logits.double(), target, reduction="sum", **options)


def unlabelled(batch: Batch, ignore_index):
    """Return the labels, with those to ignore where the mask is False."""
    return torch.where(batch.mask, batch.target, ignore_index)


def assert_equals_the_whole(logits, target, scale=1.0, **options):
    """Compare loss and gradient, of the logits' dtype, with PyTorch's in float64."""
    expected = leaf(logits)
    of_whole = whole(expected, target, **options)
    (scale * of_whole).backward()
    loss = cross_entropy_in_chunks(logits, target, **options)
    (scale * loss).backward()
    torch.testing.assert_close(loss.double(), of_whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.grad, expected.grad.to(logits.dtype))
    return loss


@given(batch=classification_batches(), data=st.data(), scale=st.floats(-100, 100))
def test_loss_and_gradient_are_those_of_the_whole_map(batch, data, scale):
    options, size = data.draw(settings(batch.prediction.shape[1]))
    with patch.object(chunks, "CHUNK", size):
        logits, target = leaf(batch.prediction), unlabelled(batch, options["ignore_index"])
        assert_equals_the_whole(logits, target, scale, **options)


@given(batch=classification_batches(), data=st.data())
def test_the_gradient_matches_finite_differences(batch, data):
    options, size = data.draw(settings(batch.prediction.shape[1]))
    logits, target = leaf(batch.prediction), unlabelled(batch, options["ignore_index"])
    places = data.draw(st.lists(st.integers(0, logits.numel() - 1), min_size=1, max_size=4))
    with patch.object(chunks, "CHUNK", size):
        cross_entropy_in_chunks(logits, target, **options).backward()
        for place in places:
            step = torch.zeros_like(logits)
            step.view(-1)[place] = 1e-4
            high = cross_entropy_in_chunks(logits.detach() + step, target, **options)
            low = cross_entropy_in_chunks(logits.detach() - step, target, **options)
            slope = ((high - low) / 2e-4).item()
            assert logits.grad.view(-1)[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-6)


@given(batch=classification_batches(), size=st.sampled_from([1, 7, 40, 2**20]))
def test_adding_a_number_to_all_logits_of_a_position_changes_nothing(batch, size):
    target = unlabelled(batch, IGNORED)
    losses, gradients = [], []
    with patch.object(chunks, "CHUNK", size):
        for shift in (0.0, 800.0):  # exp(800) overflows even in float64
            logits = leaf(batch.prediction + shift)
            losses.append(cross_entropy_in_chunks(logits, target, ignore_index=IGNORED))
            losses[-1].backward()
            gradients.append(logits.grad)
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients[0].sum(1), torch.zeros_like(gradients[0].sum(1)))


def labels_for(logits, share_ignored=0.3):
    """Draw labels, some of which are to be ignored."""
    shape = (logits.shape[0], *logits.shape[2:])
    labels = torch.randint(logits.shape[1], shape)
    labels[torch.rand(shape) < share_ignored] = IGNORED
    return labels


LAYOUTS = {
    "channels_last": lambda: torch.randn(3, 5, 4, 6).to(memory_format=torch.channels_last),
    "channels_last_3d": lambda: torch.randn(2, 3, 4, 2, 3).to(memory_format=torch.channels_last_3d),
    "classes in the last place": lambda: torch.randn(3, 7, 5).transpose(1, 2),
    "a part of a larger map": lambda: torch.randn(3, 9, 8, 8)[:, 2:7, 1:5, ::2],
    "rows and columns exchanged": lambda: torch.randn(3, 5, 4, 6).transpose(2, 3),
    "one image, repeated": lambda: torch.randn(1, 5, 4, 6).expand(3, -1, -1, -1),
    "a table": lambda: torch.randn(30, 5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 50, 2**20])
def test_logits_may_have_any_layout(layout, size, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", size)
    logits = LAYOUTS[layout]().requires_grad_()
    target = labels_for(logits)
    expected = leaf(logits)
    whole(expected, target, ignore_index=IGNORED).backward()
    loss = cross_entropy_in_chunks(logits, target, ignore_index=IGNORED)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, expected.grad.float())


def test_the_gradient_of_channels_last_logits_has_their_layout():
    logits = LAYOUTS["channels_last"]().requires_grad_()
    loss = cross_entropy_in_chunks(logits, labels_for(logits), ignore_index=IGNORED)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_a_map_of_more_than_one_chunk_of_the_true_size():
    logits = leaf(torch.randn(2, 3, 500, 800), torch.float32)
    assert logits.numel() > 2 * chunks.CHUNK
    assert_equals_the_whole(logits, labels_for(logits), 1e-3, ignore_index=IGNORED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = leaf(3 * torch.randn(2, 5, 40, 60), dtype)
    loss = assert_equals_the_whole(logits, labels_for(logits), 1e-3, ignore_index=IGNORED)
    assert loss.dtype == torch.float32
    assert logits.grad.dtype == dtype


def test_a_scale_that_half_precision_cannot_hold_is_not_rounded():
    # 7e4 is infinite in float16, and 1e-7 has one digit; both products are ordinary numbers.
    for scale, weight in ((7e4, 1e-2), (1e-7, 1e4)):
        logits = leaf(torch.randn(2, 3, 4), torch.float16)
        options = {"weight": torch.full((3,), weight, dtype=torch.float64)}
        assert_equals_the_whole(logits, torch.randint(3, (2, 4)), scale, **options)


def test_autocast_changes_nothing():
    logits = leaf(torch.randn(2, 5, 4, 6), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = assert_equals_the_whole(logits, labels_for(logits), ignore_index=IGNORED)
    assert loss.dtype == torch.float32


def test_a_learned_weight_on_the_loss_has_a_gradient_too():
    logits, target = leaf(torch.randn(2, 3, 4)), torch.randint(3, (2, 4))
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (weight * cross_entropy_in_chunks(logits, target)).backward()
    torch.testing.assert_close(weight.grad, whole(logits.detach(), target))


def test_classes_may_be_excluded_by_an_infinite_logit():
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    logits[:, 0] = -torch.inf
    target = torch.randint(1, 4, (2, 3, 5))
    target[0, 0] = IGNORED
    assert_equals_the_whole(leaf(logits), target, ignore_index=IGNORED)


def test_an_infinite_logit_of_an_ignored_position_changes_nothing():
    logits, target = torch.randn(2, 4, 3, 5, dtype=torch.float64), torch.randint(4, (2, 3, 5))
    logits[0, 1, 2, 3] = -torch.inf
    target[0, 2, 3] = IGNORED
    assert_equals_the_whole(leaf(logits), target, ignore_index=IGNORED, label_smoothing=0.1)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_without_labels_loss_and_gradient_are_zero(shape, label_smoothing):
    logits = leaf(torch.randn(shape))
    target = torch.full((shape[0], *shape[2:]), IGNORED)
    options = {"ignore_index": IGNORED, "label_smoothing": label_smoothing}
    loss = cross_entropy_in_chunks(logits, target, **options)
    loss.backward()
    assert loss == 0
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_a_graph_only_the_loss_is_computed(context):
    logits = leaf(torch.randn(4, 8, 256, 256), torch.float32)
    target = labels_for(logits)
    expected = whole(logits, target, ignore_index=IGNORED)
    for each in (logits, logits.detach()):
        with context():
            loss = cross_entropy_in_chunks(each, target, ignore_index=IGNORED)
        assert not loss.requires_grad
        torch.testing.assert_close(loss.double(), expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
def test_without_a_graph_no_gradient_is_kept(context, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 2**14)
    logits = leaf(torch.randn(1, 8, 256, 256), torch.float32)
    logits_given = logits if context is torch.no_grad else logits.detach()
    target = labels_for(logits)

    def call():
        with context():
            return cross_entropy_in_chunks(logits_given, target, ignore_index=IGNORED)

    assert peak_bytes(call) < logits.numel() * 4 / 2


@pytest.mark.parametrize("label", [-1, 3, 1000])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_wrong_label_is_an_index_error_as_in_pytorch(label, requires_grad):
    logits = torch.randn(2, 3, 4, requires_grad=requires_grad)
    target = torch.full((2, 4), label)
    with pytest.raises(IndexError):
        whole(logits, target)
    with pytest.raises(IndexError):
        cross_entropy_in_chunks(logits, target)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5\).*\(2, 3, 5\)"):
        cross_entropy_in_chunks(torch.randn(2, 3, 4, 5), torch.zeros(2, 3, 5).long())


def keep(tensor):
    """Save a tensor for the backward pass as it is."""
    return tensor


@pytest.mark.parametrize("hooks", [(), (keep, keep)], ids=["saved by autograd", "saved by hooks"])
def test_a_second_backward_pass_raises_and_leaves_the_gradient_alone(hooks):
    logits, target = leaf(torch.randn(2, 3, 4)), torch.randint(3, (2, 4))
    if hooks:
        with saved_tensors_hooks(*hooks):
            loss = 0.5 * cross_entropy_in_chunks(logits, target)
    else:
        loss = 0.5 * cross_entropy_in_chunks(logits, target)
    loss.backward(retain_graph=True)
    before = logits.grad.clone()
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()
    assert torch.equal(logits.grad, before)


@pytest.mark.parametrize("scale_requires_grad", [False, True])
def test_a_second_derivative_raises(scale_requires_grad):
    logits, scale = leaf(torch.randn(2, 3, 4)), torch.tensor(2.0, requires_grad=scale_requires_grad)
    loss = scale * cross_entropy_in_chunks(logits, torch.randint(3, (2, 4)))
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


# torch 2.4 itself calls what it deprecates.
@pytest.mark.filterwarnings("ignore:`torch.cpu.amp.autocast")
def test_it_can_be_part_of_a_checkpoint():
    inputs, target = leaf(torch.randn(2, 3, 4)), torch.randint(3, (2, 4))
    expected = leaf(inputs)
    whole(2 * expected, target).backward()
    loss = checkpoint(lambda x: cross_entropy_in_chunks(2 * x, target), inputs, use_reentrant=False)
    loss.backward()
    torch.testing.assert_close(inputs.grad, expected.grad)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_it_compiles_to_one_graph_which_may_be_differentiated_twice(label_smoothing):
    torch.compiler.reset()
    logits = leaf(torch.randn(2, 3, 4, 5), torch.bfloat16)
    options = {"label_smoothing": label_smoothing, "weight": torch.tensor([1.0, 2.0, 0.5]).double()}
    target, expected = torch.randint(3, (2, 4, 5)), leaf(logits)
    whole(expected, target, **options).backward()
    compiled = torch.compile(cross_entropy_in_chunks, backend="eager", fullgraph=True)
    loss = 0.5 * compiled(logits, target, **options)
    assert loss.dtype == torch.float32
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(logits.grad, expected.grad.bfloat16())


@pytest.mark.cuda
@pytest.mark.filterwarnings("default")  # The mode below warns of itself.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_gpu_computes_the_same_without_waiting(dtype, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 1000)
    on_cpu = leaf(torch.randn(3, 5, 20, 30), dtype)
    target, weight = labels_for(on_cpu), 0.5 * torch.rand(5)
    logits, labels, on_gpu = leaf(on_cpu.cuda(), dtype), target.cuda(), weight.cuda()
    options = {"ignore_index": IGNORED, "label_smoothing": 0.1}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = cross_entropy_in_chunks(logits, labels, weight=on_gpu, **options)
        (7e4 * loss).backward()  # a scale that is infinite in float16
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = leaf(on_cpu)
    of_whole = whole(expected, target, weight=weight.double(), **options)
    (7e4 * of_whole).backward()
    torch.testing.assert_close(loss.double().cpu(), of_whole, rtol=1e-4, atol=1e-5)
    # The gradient is rounded before it is scaled, too: the steps near 0 are of 6e-8 in float16.
    rtol = max(1e-4, 4 * torch.finfo(dtype).eps)
    torch.testing.assert_close(
        logits.grad.double().cpu(), expected.grad, rtol=rtol, atol=7e4 * 6e-8
    )
