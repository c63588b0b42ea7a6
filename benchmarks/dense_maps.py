"""Cost of the heads on dense maps, against indexing by a mask and PyTorch's losses."""

import torch

from benchmarks.compiling import compiled, compiler_is_missing
from benchmarks.map_cases import (
    CROSS_ENTROPY,
    INDEXED,
    INDEXED_WEIGHTS,
    OURS,
    WEIGHTED,
    Case,
    cases,
)
from benchmarks.result_file import Goal, Report, Table
from benchmarks.run_settings import Settings
from benchmarks.timing import Timings, duration, take_turns

THREADS = 1


def run(settings: Settings) -> Report:
    """Measure every kind and shape, eager and compiled."""
    rounds = settings.rounds(40, 7)
    missing = compiler_is_missing(settings.device) if settings.compile else "`--no-compile`."
    modes = ["Eager"] if missing or settings.effort == "smoke" else ["Eager", "Compiled"]
    rows: dict[str, list[list[object]]] = {mode: [] for mode in modes}
    goals = []
    for case in cases(settings):
        for mode in modes:
            timings = measure(case, settings, rounds, is_compiled=mode == "Compiled")
            rows[mode] += compared(case, timings)
            if mode == "Eager":
                goals += goals_of(case, timings)
    about = (
        "Forward and backward to the prediction. 80% of the pixels are valid; masks have the "
        "prediction's shape. Indexing by the mask is `F.l1_loss(p[m], t[m])`, which cannot be "
        "compiled as one graph. The loss on the whole map, without a mask, tells what a mask "
        "costs. T is learned, as the head's sigma is. Medians of "
        f"{rounds} paired rounds with the range of the middle 80%; three calls before. Candidates "
        "and peers were checked to have one gradient up to a factor."
    )
    columns = ["loss", "candidate", "peer", "ratio", "candidate, per call", "peer, per call"]
    tables = [Table(mode, columns, lines) for mode, lines in rows.items()]
    notes = [f"Not compiled: {missing}"] if missing else []
    return Report("Heads on dense maps", about, tables, goals, notes)


def measure(case: Case, settings: Settings, rounds: int, *, is_compiled: bool) -> Timings:
    """Time all candidates of a case."""
    losses = dict(case.losses)
    if is_compiled:
        torch.compiler.reset()  # or the shapes before count towards the limit of recompilations
        for name in (INDEXED, INDEXED_WEIGHTS):  # their size depends on the mask: not one graph
            losses.pop(name, None)
        losses = {name: compiled(loss) for name, loss in losses.items()}
    return take_turns(
        {name: case.step(loss) for name, loss in losses.items()},
        rounds=rounds,
        seed=settings.seed,
        min_seconds=settings.choose(2e-2, 1e-2, 0.0),
        synchronize=settings.synchronize,
    )


def compared(case: Case, timings: Timings) -> list[list[object]]:
    """Return one row for each candidate and peer, where both were measured."""
    return [
        [
            case.title,
            name,
            peer,
            timings.ratio(name, peer),
            duration(timings.median(name)),
            duration(timings.median(peer)),
        ]
        for name, peer in case.pairs
        if peer in timings.seconds
    ]


def goals_of(case: Case, timings: Timings) -> list[Goal]:
    """Return the goals of a case, eager."""
    if INDEXED in timings.seconds:
        faster = timings.ratio(INDEXED, OURS).median
        weighted = timings.ratio(INDEXED_WEIGHTS, WEIGHTED).median
        text = f"{case.title}: times as fast as indexing"
        return [
            Goal(text, 3.5, faster, at_least=True),
            Goal(f"{text}, with weights", 2.5, weighted, at_least=True),
        ]
    ratio = timings.ratio(OURS, CROSS_ENTROPY).median
    return [Goal(f"{case.title}: ours, over {CROSS_ENTROPY}", 1.05, ratio)]
