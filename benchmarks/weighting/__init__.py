"""Does learning the weights help: every way to weigh, on every kind of problem, over seeds."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.weighting.figure import ratios_figure
from benchmarks.weighting.one_training import Outcome, geometric_mean
from benchmarks.weighting.paired import ByWay, Ratios, interval, over_all, with_choices
from benchmarks.weighting.study import Compared, Job, comparisons, one_process_a_core, run_all
from benchmarks.weighting.ways import EQUAL, GRID, LONG_WAYS

ABOUT = """\
The score of a training is the geometric mean of its errors on test data; lower is better. Which of
two scores is lower does not depend on the units of any task. A number is the score over that of
equal weights, paired by seed: the geometric mean over the seeds with a 95% t-interval. Below 1 is
better than equal weights. A seed decides data, their order and the initial network, and is the same
for all ways. Networks are trained by AdamW with a rate that falls to 0; sigma has the library's
default rate, and the parameters of TorchJD have that of the network. A choice among several
trainings is made for each seed by the score on validation data; its compute is that of all of them.
Compute is processor time. Errors are means over seeds: for numbers the root mean square error over
the standard deviation of the target, for classes the Brier score (an error rate of few rows can be
0), for scenes `1 - mean IoU` and pixels. `TorchJD's` are the scalarizers of that library; all
others are this one, fixed weights included."""


def run(settings: Settings) -> Report:
    """Train what is not in `--work` yet, and compare."""
    seeds = range(settings.seed, settings.seed + (settings.repeats or settings.choose(5, 2, 2)))
    with settings.folder("weighting") as folder, one_process_a_core() as pool:
        *compared, long = comparisons(settings, folder).values()
        outcomes = run_all(settings, folder, jobs_of(compared, seeds), pool)
        tables, ratios = [], {}
        for one in compared:
            name = one.problem.name
            found, chosen = with_choices(list(one.ways.values()), by_way(one, seeds, outcomes))
            tables.append(errors_table(name, found, chosen))
            ratios[name] = {way: over_equal(found, way, "score") for way in found}
        # The demo is too long for a search: it takes the weights that win the shorter training.
        winner = winner_of(compared[-1], seeds, outcomes)
        names = dict.fromkeys((*LONG_WAYS, winner))
        long = Compared(long.problem, {name: long.ways[name] for name in names})
        few = seeds[:3]
        outcomes = run_all(settings, folder, jobs_of([long], few), pool)
        found = by_way(long, few, outcomes)
        tables.append(errors_table(long.problem.name, found, f"{len(few)} seeds"))
        lines = (folder / "runs.jsonl").read_text(encoding="utf-8")
    files = {"runs.jsonl": lines, "png": ratios_figure(ratios)}
    about = f"Seeds {seeds[0]} to {seeds[-1]}. {ABOUT}"
    return Report("Ways to weigh", about, [overview(ratios), *tables], files=files)


def jobs_of(compared: Sequence[Compared], seeds: Sequence[int]) -> list[Job]:
    """Return the trainings, seed by seed, so that an interrupted comparison has whole seeds."""
    return [Job(c.problem.name, way, seed) for seed in seeds for c in compared for way in c.ways]


def by_way(one: Compared, seeds: Sequence[int], outcomes: Mapping[Job, Outcome]) -> ByWay:
    """Return the outcomes of one problem."""
    return {way: [outcomes[Job(one.problem.name, way, s)] for s in seeds] for way in one.ways}


def winner_of(one: Compared, seeds: Sequence[int], outcomes: Mapping[Job, Outcome]) -> str:
    """Return the fixed weights with the best validation over the seeds."""
    found = by_way(one, seeds, outcomes)
    in_grid = [name for name, way in one.ways.items() if way.one_of == GRID]
    return min(in_grid, key=lambda name: geometric_mean([o.validation for o in found[name]]))


def over_equal(found: ByWay, way: str, what: str) -> list[float]:
    """Return the scores or the seconds of a way over those of equal weights, by seed."""
    pairs = zip(found[way], found[EQUAL], strict=True)
    return [getattr(outcome, what) / getattr(equal, what) for outcome, equal in pairs]


def overview(ratios: Ratios) -> Table:
    """Return every way on every problem, the best over all of them first."""
    rows = []
    for way in next(iter(ratios.values())):
        of_problems = [interval(of_ways[way]).median for of_ways in ratios.values()]
        numbers = [f"{ratio:.2f}" for ratio in (max(of_problems), *of_problems)]
        rows.append([way, interval(over_all(ratios, way)), *numbers])
    rows.sort(key=lambda row: row[1])
    columns = ["way to weigh", "over all problems", "worst", *ratios]
    return Table("Score over that of equal weights", columns, rows)


def errors_table(problem: str, found: ByWay, note: str) -> Table:
    """Return one problem's scores, errors and compute."""
    errors = list(found[EQUAL][0].errors)
    rows = []
    for way, outcomes in found.items():
        score = interval(over_equal(found, way, "score"))
        compute = interval(over_equal(found, way, "seconds")).median
        means = [np.mean([outcome.errors[error] for outcome in outcomes]) for error in errors]
        rows.append([way, score, f"{compute:.2f}", *(f"{mean:.4g}" for mean in means)])
    columns = ["way to weigh", "score over equal", "compute over equal", *errors]
    return Table(f"{problem[:1].upper()}{problem[1:]} ({note})", columns, rows)
