"""Cost of weighing K reduced losses, against a plain sum, TorchJD, AWL and a loop."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchjd.scalarization import UW

from benchmarks.compiling import compiled, compiler_is_missing
from benchmarks.results import Goal, Report, Table
from benchmarks.settings import Settings
from benchmarks.timing import Timings, duration, take_turns
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss

THREADS = 1  # scalars: there is nothing to share

OURS, CHANNELS = "one head per task", "one head, K channels"
FLOOR, TORCHJD, AUTOMATIC, LOOP = "stack and sum", "TorchJD UW", "AutomaticWeightedLoss", "loop"
PEERS = (FLOOR, TORCHJD, AUTOMATIC, LOOP)
LIKELIHOODS = ("gaussian", "laplace", "softmax")
LARGEST_COMPILED = 100
TURN = 5e-2, 2e-3, 0.0
"""Seconds for which a candidate is called before the next has its turn.

The first calls of a turn are slower, and short turns have more of them: in turns of 5 ms the loop
took 2.96 times as long as ours at K = 10, below the goal, in turns of 20 to 200 ms 3.02 to 3.13
times. They were 5 ms until that was seen.
"""

Total = Callable[[], Tensor]


class AutomaticWeightedLoss(nn.Module):
    """The published formula, as its package computes it: one vector, indexed task by task."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.params = nn.Parameter(torch.ones(num))

    def forward(self, *losses: Tensor) -> Tensor:
        """Return the weighted sum."""
        total = 0
        for i, loss in enumerate(losses):
            total = total + 0.5 / (self.params[i] ** 2) * loss + torch.log(1 + self.params[i] ** 2)
        return total


class Loop(nn.Module):
    """What is written without a library: a parameter per task, and a loop.

    Keeping the parameters in a list of its own, which PyTorch reads faster, would save it 6%.
    """

    def __init__(self, num: int) -> None:
        super().__init__()
        self.log_vars = nn.ParameterList(torch.zeros(()) for _ in range(num))

    def forward(self, *losses: Tensor) -> Tensor:
        """Return the weighted sum."""
        total = 0
        for loss, log_var in zip(losses, self.log_vars, strict=True):
            total = total + 0.5 * torch.exp(-log_var) * loss + 0.5 * log_var
        return total


def run(settings: Settings) -> Report:
    """Measure every K, eager and compiled."""
    counts = settings.choose((1, 3, 10, 100, 1000), (1, 3, 10, 100), (1, 3))
    rounds = settings.rounds(60, 15)
    eager = {k: measure(k, settings, rounds, is_compiled=False) for k in counts}
    vectors = {k: measure_vector(k, settings, rounds) for k in counts}
    tables = [
        *(as_table(f"Eager, {name}", eager, name, PEERS) for name in (OURS, CHANNELS)),
        absolute("Eager, per call", eager),
        as_table("Eager, one head, K channels, of a vector", vectors, CHANNELS, (TORCHJD,)),
        absolute("Eager, of a vector, per call", vectors),
    ]
    notes = []
    if 1000 in eager:
        notes.append(
            "To stack 1000 losses takes some forty times as long as to weigh them: there the ratio "
            "of the head with K channels to TorchJD, which stack alike, is 1 up to noise. What the "
            "head itself costs shows where a vector is given."
        )
    if not settings.compile or (missing := compiler_is_missing(settings.device)):
        notes.append("Not compiled: " + (missing if settings.compile else "`--no-compile`."))
    else:
        chosen = settings.choose(counts, (10,), ())
        made = {
            k: measure(k, settings, rounds, is_compiled=True)
            for k in chosen
            if k <= LARGEST_COMPILED
        }
        peers = peers_to_compile(settings)
        if made:
            tables += [
                as_table(f"Compiled, {name}", made, name, peers) for name in (OURS, CHANNELS)
            ] + [absolute("Compiled, per call", made)]
    about = (
        "Forward and backward of the total of K losses that are computed elsewhere: 0-dim leaf "
        "tensors, whose gradients and those of the weights are dropped in every call, as "
        "`zero_grad` does. Ours are given by name, with Gaussian, Laplace and softmax likelihoods "
        "in turn; TorchJD and the head with K channels are given `torch.stack(losses)`, and "
        "stacking is part of their time, except where both are given a vector that is there, a "
        f"leaf. A figure is the median of {rounds} paired rounds of the time over the peer's, with "
        "the range of the middle 80%; below 1 is faster. In a round each candidate is called for "
        f"{1e3 * settings.choose(*TURN):g} ms, and at least once; it was called three times before."
    )
    return Report("Weighting reduced losses", about, tables, goals(eager, vectors), notes)


def measure(k: int, settings: Settings, rounds: int, *, is_compiled: bool) -> Timings:
    """Time all candidates for K losses."""
    steps = candidates(k, settings.device, is_compiled, settings)
    return take_turns(
        steps,
        rounds=rounds,
        seed=settings.seed,
        min_seconds=settings.choose(*TURN),
        synchronize=settings.synchronize,
    )


def measure_vector(k: int, settings: Settings, rounds: int) -> Timings:
    """Time the head with K channels and TorchJD on K losses that are a vector from the start."""
    losses = (torch.rand(k, device=settings.device) + 0.5).requires_grad_()
    channels = UncertaintyWeightedLoss({"all": GaussianHead(num_channels=k)}).to(settings.device)
    torchjd = UW(k).to(settings.device)
    return take_turns(
        {
            CHANNELS: step(
                lambda: channels({"all": losses}).total, [losses, *channels.parameters()]
            ),
            TORCHJD: step(lambda: torchjd(losses), [losses, *torchjd.parameters()]),
        },
        rounds=rounds,
        seed=settings.seed,
        min_seconds=settings.choose(*TURN),
        synchronize=settings.synchronize,
    )


def candidates(
    k: int, device: torch.device, is_compiled: bool, settings: Settings
) -> dict[str, Callable[[], None]]:
    """Return a step, forward and backward, for each way to weigh K losses."""
    losses = [(torch.rand((), device=device) + 0.5).requires_grad_() for _ in range(k)]
    by_name = {f"task{i}": loss for i, loss in enumerate(losses)}
    ours = UncertaintyWeightedLoss({name: LIKELIHOODS[i % 3] for i, name in enumerate(by_name)}).to(
        device
    )
    channels = UncertaintyWeightedLoss({"all": GaussianHead(num_channels=k)}).to(device)
    torchjd, automatic, loop = (make(k).to(device) for make in (UW, AutomaticWeightedLoss, Loop))
    check_they_agree(losses, torchjd, loop, channels)

    wrap = compiled if is_compiled else _as_it_is
    total_of_ours = wrap(lambda: ours(by_name).total)
    total_of_channels = wrap(lambda: channels({"all": torch.stack(losses)}).total)
    totals: dict[str, tuple[Total, Sequence[nn.Parameter]]] = {
        OURS: (total_of_ours, list(ours.parameters())),
        CHANNELS: (total_of_channels, list(channels.parameters())),
        FLOOR: (wrap(lambda: torch.stack(losses).sum()), []),
        TORCHJD: (wrap(lambda: torchjd(torch.stack(losses))), list(torchjd.parameters())),
        AUTOMATIC: (wrap(lambda: automatic(*losses)), list(automatic.parameters())),
        LOOP: (wrap(lambda: loop(*losses)), list(loop.parameters())),
    }
    if is_compiled:
        wanted = {OURS, CHANNELS, *peers_to_compile(settings)}
        totals = {name: total for name, total in totals.items() if name in wanted}
    return {name: step(total, [*losses, *learned]) for name, (total, learned) in totals.items()}


def step(total: Total, tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Return what is timed: forward, backward, and dropping the gradients."""

    def forward_backward() -> None:
        total().backward()
        for tensor in tensors:
            tensor.grad = None

    return forward_backward


def check_they_agree(
    losses: list[Tensor], torchjd: UW, loop: Loop, channels: UncertaintyWeightedLoss
) -> None:
    """Raise unless the candidates with one formula have one value.

    A Gaussian head per channel, averaged over channels, is TorchJD's sum over K.
    """
    expected = torchjd(torch.stack(losses))
    torch.testing.assert_close(loop(*losses), expected)
    ours = channels({"all": torch.stack(losses)}).total * len(losses)
    torch.testing.assert_close(ours, expected)


def as_table(title: str, by_k: dict[int, Timings], name: str, peers: Sequence[str]) -> Table:
    """Return one candidate's ratios against every peer."""
    rows = [[k, *(timings.ratio(name, peer) for peer in peers)] for k, timings in by_k.items()]
    return Table(title, ["K", *(f"over {peer}" for peer in peers)], rows)


def absolute(title: str, by_k: dict[int, Timings]) -> Table:
    """Return the median time of each candidate."""
    names = list(next(iter(by_k.values())).seconds)
    rows = [[k, *(duration(t.median(name)) for name in names)] for k, t in by_k.items()]
    return Table(title, ["K", *names], rows)


def goals(eager: dict[int, Timings], vectors: dict[int, Timings]) -> list[Goal]:
    """Return the goals for the counts that were measured."""
    limits = {3: 1.1, 10: 1.5, 100: 2.5}
    found = [
        Goal(f"{OURS}, K = {k}, over TorchJD", limit, eager[k].ratio(OURS, TORCHJD).median)
        for k, limit in limits.items()
        if k in eager
    ]
    if 10 in eager:
        faster = eager[10].ratio(LOOP, OURS).median
        found.append(Goal("times faster than the loop, K = 10", 3.0, faster, at_least=True))
    for what, measured in (("", eager), (", of a vector", vectors)):
        found += [
            Goal(f"{CHANNELS}, K = {k}{what}, over TorchJD", 1.0, t.ratio(CHANNELS, TORCHJD).median)
            for k, t in measured.items()
        ]
    return found


def peers_to_compile(settings: Settings) -> tuple[str, ...]:
    """Return the peers that are compiled; a quick run has no time for the long graphs."""
    return settings.choose(PEERS, (FLOOR, TORCHJD), ())


def _as_it_is(function: Total) -> Total:
    return function
