"""Cost of the heads on dense maps, against indexing by a mask and PyTorch's losses."""

from benchmarks.map_cases import (
    CROSS_ENTROPY,
    INDEXED,
    INDEXED_WEIGHTS,
    LOW_MEMORY,
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
    """Measure every kind and shape."""
    rounds = settings.rounds(40, 7)
    rows, goals = [], []
    for case in cases(settings):
        timings = take_turns(
            {name: case.step(loss) for name, loss in case.losses.items()},
            rounds=rounds,
            seed=settings.seed,
            min_seconds=settings.choose(2e-2, 1e-2, 0.0),
            synchronize=settings.synchronize,
        )
        rows += compared(case, timings)
        goals += goals_of(case, timings)
    about = (
        "Forward and backward to the prediction. 80% of the pixels are valid; masks have the "
        "prediction's shape. Indexing by the mask is `F.l1_loss(p[m], t[m])`. The loss on the "
        "whole map, without a mask, tells what a mask costs. T is learned, as the head's sigma is. "
        f"Medians of {rounds} paired rounds with the range of the middle 80%; three calls before. "
        "Candidates and peers were checked to have one gradient up to a factor."
    )
    columns = ["loss", "candidate", "peer", "ratio", "candidate, per call", "peer, per call"]
    return Report("Heads on dense maps", about, [Table("Time", columns, rows)], goals)


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
    """Return the goals of a case."""
    if INDEXED in timings.seconds:
        faster = timings.ratio(INDEXED, OURS).median
        weighted = timings.ratio(INDEXED_WEIGHTS, WEIGHTED).median
        text = f"{case.title}: times as fast as indexing"
        return [
            Goal(text, 3.5, faster, at_least=True),
            Goal(f"{text}, with weights", 2.5, weighted, at_least=True),
        ]
    return [
        Goal(f"{case.title}: {name}, over {CROSS_ENTROPY}", limit, ratio.median)
        for name, limit in ((OURS, 1.05), (LOW_MEMORY, 1.1))
        if (ratio := timings.ratio(name, CROSS_ENTROPY))
    ]
