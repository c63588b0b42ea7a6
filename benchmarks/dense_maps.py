"""Cost of the heads on dense maps, against PyTorch's losses and against indexing by a mask."""

import math
from collections.abc import Sequence

import torch

from benchmarks.compiling import compiled, compiler_is_missing
from benchmarks.maps import (
    AS_BYTES,
    CHANNELS_LAST,
    INSIDE,
    Case,
    check_they_agree,
    classification,
    regression,
    step,
)
from benchmarks.processes import in_processes
from benchmarks.results import Goal, Report, Table
from benchmarks.settings import Settings
from benchmarks.timing import Timings, duration, take_turns

THREADS = None

SMALL, LARGE = (8, 2, 128, 256), (8, 1, 1024, 2048)
SMALL_LOGITS, LARGE_LOGITS = (8, 19, 128, 256), (2, 19, 1024, 2048)
PEERS = {
    "L1": ("whole map", "indexed"),
    "MSE": ("whole map", "indexed"),
    "cross-entropy": ("F.cross_entropy", "F.cross_entropy(logits / T)"),
    CHANNELS_LAST: ("F.cross_entropy", "F.cross_entropy(logits / T)"),
}
"""The first is the floor; the second what is written without a library."""
SOFTMAX = ("cross-entropy", CHANNELS_LAST)
PROCESSES = 5


def run(settings: Settings) -> Report:
    """Measure every kind and shape, eager and compiled."""
    maps = settings.choose((SMALL, LARGE), (SMALL, (8, 1, 256, 512)), ((2, 2, 16, 32),))
    logits = settings.choose((SMALL_LOGITS, LARGE_LOGITS), (SMALL_LOGITS,), ((2, 5, 16, 32),))
    processes = settings.choose(PROCESSES, 1, 1)
    each_large = math.ceil(settings.rounds(30, 5) / processes)
    # A turn is short, and a neighbour's work there weighs more.
    each_small = math.ceil(settings.rounds(100, 5) / processes)
    missing = compiler_is_missing(settings.device) if settings.compile else "`--no-compile`."
    modes = [False] if missing or settings.effort == "smoke" else [False, True]
    results: dict[tuple[str, tuple[int, ...], bool], Timings] = {}
    tables = {mode: [] for mode in modes}
    shapes = [(kind, shape) for kind in ("L1", "MSE") for shape in maps]
    shapes += [(kind, shape) for kind in SOFTMAX for shape in logits]
    for kind, shape in shapes:
        rounds = each_large if shape in (LARGE, LARGE_LOGITS) else each_small
        found = in_processes(processes, measure_shape, kind, shape, settings, rounds, modes)
        for mode in modes:
            timings = Timings.joined([by_mode[mode] for by_mode in found])
            results[kind, shape, mode] = timings
            tables[mode] += rows(kind, shape, timings)
    columns = ["loss", "candidate", "over the plain loss", "over the usual way", "per call"]
    within = (
        "one process"
        if processes == 1
        else f"{processes} fresh processes (`benchmarks/processes.py` says why)"
    )
    about = (
        "Forward and backward to the prediction. The plain loss is PyTorch's own on the whole map "
        "(`F.l1_loss`, `F.mse_loss`; no mask, so it is a floor) or `F.cross_entropy` with ignored "
        "pixels; the usual way is `F.l1_loss(p[m], t[m])` or, for the exact softmax, "
        "`F.cross_entropy(logits / T)` with T learned. 80% of the pixels are valid; masks have the "
        "prediction's shape. Compiled, a mask comes as an argument, or as bytes, or is made from "
        "the target within what is compiled: on a CPU some C++ compilers make code of PyTorch's "
        "that loads a bool argument one by one. Medians of "
        f"{processes * each_small} paired rounds on small maps and {processes * each_large} on "
        f"large ones, in {within}, with the range of the middle 80%; three calls before. All "
        "candidates were checked to have one gradient up to a factor."
    )
    names = {False: "Eager", True: "Compiled"}
    return Report(
        "Heads on dense maps",
        about,
        [Table(names[mode], columns, lines) for mode, lines in tables.items()],
        goals(results),
        [f"Not compiled: {missing}"] if missing else [],
    )


def make_case(kind: str, shape: tuple[int, ...], settings: Settings) -> Case:
    """Return the inputs and candidates of a kind and shape."""
    generator = torch.Generator().manual_seed(settings.seed)
    if kind in SOFTMAX:
        return classification(kind, shape, settings.device, generator)
    return regression(kind, shape, settings.device, generator)


def measure_shape(
    kind: str, shape: tuple[int, ...], settings: Settings, rounds: int, modes: Sequence[bool]
) -> dict[bool, Timings]:
    """Time all candidates of a kind and shape, eager or compiled, once they are seen to agree."""
    case = make_case(kind, shape, settings)
    check_they_agree(case, PEERS[kind][1])
    return {mode: measure(case, settings, rounds, is_compiled=mode) for mode in modes}


def measure(case: Case, settings: Settings, rounds: int, *, is_compiled: bool) -> Timings:
    """Time all candidates of a case."""
    losses = dict(case.losses)
    if is_compiled:
        losses |= case.compiled_only
        torch.compiler.reset()  # or the shapes before count towards the limit of recompilations
        losses.pop("indexed", None)  # its size depends on the mask: not one graph
        losses = {name: compiled(loss) for name, loss in losses.items()}
    return take_turns(
        {name: step(loss, case.prediction) for name, loss in losses.items()},
        rounds=rounds,
        seed=settings.seed,
        min_seconds=settings.choose(1e-2, 1e-2, 0.0),
        synchronize=settings.synchronize,
    )


def rows(kind: str, shape: tuple[int, ...], timings: Timings) -> list[list[object]]:
    """Return a row for each candidate."""
    floor, usual = PEERS[kind]
    return [
        [
            f"{kind} {shape}",
            name,
            timings.ratio(name, floor),
            timings.ratio(name, usual) if usual in timings.seconds else "",
            duration(timings.median(name)),
        ]
        for name in timings.seconds
    ]


def goals(results: dict[tuple[str, tuple[int, ...], bool], Timings]) -> list[Goal]:
    """Return the goals for what was measured."""
    found = []
    for (kind, shape, is_compiled), timings in results.items():
        where = f"{kind} {shape}" + (", compiled" if is_compiled else "")
        floor, usual = PEERS[kind]
        if kind in SOFTMAX and not is_compiled:
            for name, limit in (("ours", 1.05), ("ours, exact", 1.1)):
                what = f"{where}: {name}, over F.cross_entropy"
                found.append(Goal(what, limit, timings.ratio(name, floor).median))
        elif kind not in SOFTMAX and not is_compiled:
            faster = timings.ratio(usual, "ours").median
            found.append(Goal(f"{where}: times faster than indexing", 4.0, faster, at_least=True))
        elif kind not in SOFTMAX and shape == LARGE:
            limit = {"L1": 1.2, "MSE": 1.5}[kind]
            for name in ("ours", INSIDE, AS_BYTES):
                what = f"{where}: {name}, over the whole map"
                found.append(Goal(what, limit, timings.ratio(name, floor).median))
    return found
