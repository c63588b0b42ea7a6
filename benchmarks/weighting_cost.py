"""Cost of weighing K reduced losses, against TorchJD's `UW`, a loop, and our own plain call."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.result_file import Goal, Report, Table
from benchmarks.run_settings import Settings
from benchmarks.timing import Timings, duration, forward_backward, take_turns
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss

THREADS = 1  # scalars: there is nothing to share


class WrittenOut(nn.Module):
    """The formula of TorchJD's `UW`, for a machine on which TorchJD is not installed."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.log_var = nn.Parameter(torch.zeros(num_tasks))

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum."""
        return (0.5 * (torch.exp(-self.log_var) * losses + self.log_var)).sum()


class Loop(nn.Module):
    """What is written without a library: a parameter per task, and a loop."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.log_vars = nn.ParameterList(torch.zeros(()) for _ in range(num_tasks))

    def forward(self, losses: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum."""
        pairs = zip(losses, self.log_vars, strict=True)
        return sum(0.5 * torch.exp(-log_var) * loss + 0.5 * log_var for loss, log_var in pairs)


try:
    from torchjd.scalarization import UW
except ImportError:
    UW = WrittenOut

HAS_TORCHJD = UW is not WrittenOut

COUNTS = (3, 10, 100)
LIKELIHOODS = ("gaussian", "laplace", "softmax")
OURS, CHANNELS = "one head per task", "one head, K channels"
ABSENT, PRIORITIES, DOUBLE = "one loss is None", "priorities", "float64"
CLOSED_FORM, UNIT_SUM = "closed form", "unit sum"
ZERO, FIXED = "an exact 0 is missing", "fixed"
PEER = "TorchJD UW" if HAS_TORCHJD else "UW written out"
LOOP, FLOOR = "loop", "stack and sum"
LIMITS = (
    (3, OURS, PEER, 1.7),
    (10, OURS, PEER, 2.1),
    (100, OURS, PEER, 3.0),
    (10, CHANNELS, PEER, 2.0),
    (100, CHANNELS, PEER, 1.0),
    *((10, name, OURS, 1.3) for name in (ABSENT, PRIORITIES, DOUBLE)),
    (10, ZERO, OURS, 1.5),
    *((10, name, OURS, 2.0) for name in (CLOSED_FORM, UNIT_SUM)),
)
"""K, candidate, what its time is divided by, and the most that this should be."""


def run(settings: Settings) -> Report:
    """Measure every K."""
    rounds, seconds = settings.rounds(60, 15), settings.choose(5e-2, 2e-3, 0.0)
    results, tables = {}, []
    for k in COUNTS:
        calls = candidates(k, settings.device)
        results[k] = take_turns(
            calls,
            rounds=rounds,
            seed=settings.seed,
            min_seconds=seconds,
            synchronize=settings.synchronize,
        )
        on_gpu = settings.device.type == "cuda"
        kernels = {name: kernels_of(call) for name, call in calls.items()} if on_gpu else {}
        tables.append(table(k, results[k], kernels))
    about = (
        "Forward and backward of the total of K losses that are computed elsewhere: 0-dim leaf "
        "tensors, whose gradients and those of the weights are dropped in every call, as "
        "`zero_grad` does. One head per task is given the losses by name, with Gaussian, Laplace "
        f"and softmax likelihoods in turn; {PEER} and the head with K channels are given "
        "`torch.stack(losses)`, and stacking is part of their time. Everything below the loop is "
        "one head per task with another option. Ours have taken two steps with all losses before, "
        "so that every sigma has started from data. A ratio is the median of "
        f"{rounds} paired rounds, with the range of the middle 80%; in a round each candidate is "
        f"called for {1e3 * seconds:g} ms, and at least once."
    )
    notes = (
        [] if HAS_TORCHJD else ["TorchJD is not installed: its formula, written out, stands in."]
    )
    goals = [
        Goal(f"K = {k}: {name}, over {peer}", limit, results[k].ratio(name, peer).median)
        for k, name, peer, limit in LIMITS
    ]
    return Report("Weighting reduced losses", about, tables, goals, notes)


def candidates(k: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """Return a step, forward and backward, for each way to weigh K losses."""
    losses = [(torch.rand((), device=device) + 0.5).requires_grad_() for _ in range(k)]
    by_name = {f"task{i}": loss for i, loss in enumerate(losses)}
    peer, loop = UW(k).to(device), Loop(k).to(device)
    channels = UncertaintyWeightedLoss({"all": GaussianHead(num_channels=k)}).to(device)
    start(channels, {"all": torch.stack(losses)})
    check_they_agree(losses, channels, peer, loop)

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
        FLOOR: forward_backward(lambda: torch.stack(losses).sum(), losses),
        LOOP: forward_backward(lambda: loop(losses), [*losses, *loop.parameters()]),
        ABSENT: ours(by_name | {"task0": None}),
        PRIORITIES: ours(priorities={name: 1.0 + i % 3 for i, name in enumerate(by_name)}),
        DOUBLE: ours({n: loss.detach().double().requires_grad_() for n, loss in by_name.items()}),
        CLOSED_FORM: ours(estimator="closed_form"),
        UNIT_SUM: ours(constraint="unit_sum"),
        ZERO: ours(zero_is_missing=True),
        FIXED: ours(estimator="fixed"),
    }


def start(loss_fn: UncertaintyWeightedLoss, losses: Mapping[str, Tensor]) -> None:
    """Take two steps: the first sets every sigma, the second finds that all are set."""
    for _ in range(2):
        loss_fn(losses).total.backward()


@torch.no_grad()
def check_they_agree(
    losses: list[Tensor], channels: UncertaintyWeightedLoss, peer: nn.Module, loop: Loop
) -> None:
    """Raise unless the candidates with one formula have one value.

    A Gaussian head averages over its K channels what the others sum.
    """
    peer.log_var.copy_(channels["all"].log_var)
    for log_var, value in zip(loop.log_vars, peer.log_var, strict=True):
        log_var.copy_(value)
    expected = peer(torch.stack(losses))
    for total in (loop(losses), channels({"all": torch.stack(losses)}).total * len(losses)):
        torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)


def table(k: int, timings: Timings, kernels: Mapping[str, int]) -> Table:
    """Return the ratios and the time of each candidate."""
    rows = [
        [name, timings.ratio(name, PEER), timings.ratio(name, OURS), duration(timings.median(name))]
        for name in timings.seconds
    ]
    columns = ["candidate", f"over {PEER}", f"over {OURS}", "per call"]
    if kernels:
        columns.append("kernels")
        rows = [[*row, kernels[str(row[0])]] for row in rows]
    return Table(f"K = {k}", columns, rows)


def kernels_of(call: Callable[[], object]) -> int:
    """Return how many kernels a call starts on the GPU."""
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities) as recorded:
        call()
        torch.cuda.synchronize()
    averages = recorded.key_averages()
    return sum(event.count for event in averages if event.device_type == DeviceType.CUDA)
