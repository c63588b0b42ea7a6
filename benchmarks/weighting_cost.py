"""Cost of weighing K reduced losses, against TorchJD's `UW`, a loop and our own plain call."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.timing import forward_backward, take_turns
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss


class WrittenOut(nn.Module):
    """The formula of TorchJD's `UW`, for a machine on which TorchJD is not installed."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.log_var = nn.Parameter(torch.zeros(num_tasks))

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum."""
        return (0.5 * torch.exp(-self.log_var) * losses + 0.5 * self.log_var).sum()


class Loop(nn.Module):
    """What one writes without a library: a parameter for each task, and a loop."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.log_vars = nn.ParameterList(torch.zeros(()) for _ in range(num_tasks))

    def forward(self, losses: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum."""
        pairs = zip(losses, self.log_vars, strict=True)
        return sum(0.5 * torch.exp(-log_var) * loss + 0.5 * log_var for loss, log_var in pairs)


try:
    from torchjd.scalarization import UW

    PEER = "TorchJD UW"
except ImportError:
    UW, PEER = WrittenOut, "UW written out"

LIKELIHOODS = ("gaussian", "laplace", "softmax")
OURS, CHANNELS, LOOP = "one head per task", "one head, K channels", "loop"
ABSENT, PRIORITIES, DOUBLE = "one loss is None", "priorities", "float64"
CLOSED_FORM, UNIT_SUM, ZERO = "closed form", "unit sum", "an exact 0 is missing"


def run(settings: Settings) -> Report:
    """Measure every K."""
    rounds = settings.repeats or settings.choose(60, 15, 2)
    seconds = settings.choose(5e-2, 2e-3, 0.0)
    tables = []
    for k in (3, 10, 100):
        calls = candidates(k, settings.device)
        timings = take_turns(calls, settings, rounds=rounds, seconds=seconds)
        rows = [
            [name, timings.ratio(name, PEER), timings.ratio(name, OURS), timings.per_call(name)]
            for name in timings.seconds
        ]
        columns = ["candidate", f"over {PEER}", f"over {OURS}", "per call"]
        if settings.device.type == "cuda":
            columns.append("kernels")
            rows = [[*row, kernels_of(calls[str(row[0])])] for row in rows]
        tables.append(Table(f"K = {k}", columns, rows))
    about = (
        "Forward and backward of the total of K losses, which are 0-dim leaf tensors; gradients "
        "are dropped after every call. One head per task is given the losses by name, with "
        f"Gaussian, Laplace and softmax likelihoods in turn. {PEER} and the head with K channels "
        "are given `torch.stack(losses)`; stacking is part of their time. The candidates below "
        "the loop are one head per task with another option or input. Two steps were taken before, "
        f"so that every sigma has started from data. Medians of {rounds} paired rounds with the "
        f"range of the middle 80%; each candidate is called for {1e3 * seconds:g} ms a round."
    )
    return Report("Weighting reduced losses", about, tables)


def candidates(k: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """Return a step, forward and backward, for each way to weigh K losses."""
    losses = [(torch.rand((), device=device) + 0.5).requires_grad_() for _ in range(k)]
    by_name = {f"task{i}": loss for i, loss in enumerate(losses)}
    peer, loop = UW(k).to(device), Loop(k).to(device)
    channels = UncertaintyWeightedLoss({"all": GaussianHead(num_channels=k)}).to(device)
    start(channels, {"all": torch.stack(losses)})
    check_they_agree(channels, peer, torch.stack(losses).detach())

    def ours(given: Mapping[str, Tensor | None] = by_name, **options: object) -> Callable[[], None]:
        heads = {name: LIKELIHOODS[i % 3] for i, name in enumerate(by_name)}
        loss_fn = UncertaintyWeightedLoss(heads, **options).to(device)
        start(loss_fn, by_name)
        tensors = [loss for loss in given.values() if loss is not None]
        return forward_backward(lambda: loss_fn(given).total, [*tensors, *loss_fn.parameters()])

    return {
        OURS: ours(),
        CHANNELS: forward_backward(
            lambda: channels({"all": torch.stack(losses)}).total, [*losses, *channels.parameters()]
        ),
        PEER: forward_backward(lambda: peer(torch.stack(losses)), [*losses, *peer.parameters()]),
        LOOP: forward_backward(lambda: loop(losses), [*losses, *loop.parameters()]),
        ABSENT: ours(by_name | {"task0": None}),
        PRIORITIES: ours(priorities={name: 1.0 + i % 3 for i, name in enumerate(by_name)}),
        DOUBLE: ours({n: loss.detach().double().requires_grad_() for n, loss in by_name.items()}),
        CLOSED_FORM: ours(estimator="closed_form"),
        UNIT_SUM: ours(constraint="unit_sum"),
        ZERO: ours(zero_is_missing=True),
    }


def start(loss_fn: UncertaintyWeightedLoss, losses: Mapping[str, Tensor]) -> None:
    """Take two steps: the first sets every sigma, the second finds that all are set."""
    for _ in range(2):
        loss_fn(losses).total.backward()


@torch.no_grad()
def check_they_agree(channels: UncertaintyWeightedLoss, peer: nn.Module, losses: Tensor) -> None:
    """Raise unless the head with K channels computes what the peer computes."""
    peer.log_var.copy_(channels["all"].log_var)
    # A head averages over its channels what the peer sums.
    total = channels({"all": losses}).total * len(losses)
    torch.testing.assert_close(total, peer(losses), rtol=1e-4, atol=1e-4)


def kernels_of(call: Callable[[], object]) -> int:
    """Return how many kernels a call starts on the GPU."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    events = recorded.key_averages()
    return sum(event.count for event in events if event.device_type == DeviceType.CUDA)
