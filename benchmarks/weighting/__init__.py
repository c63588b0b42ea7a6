"""Does learning the weights help: every way to weigh, on every kind of problem, over seeds."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.weighting.figure import ratios_figure
from benchmarks.weighting.one_training import Outcome, geometric_mean
from benchmarks.weighting.paired import ByWay, interval, paired_interval, with_choices
from benchmarks.weighting.study import LONG_WAYS, Compared, Job, Study, one_process_a_core, run_all
from benchmarks.weighting.ways import EQUAL, GRID

THREADS = 1

ABOUT = """\
The score of a training is the geometric mean of its errors on test data, lower is better: which of
two is lower does not depend on the units of any task. A number is the score over that of equal
weights, paired by seed: the mean of the logarithms with a 95% t-interval. Below 1 is better than
equal weights. A seed decides data, their order and the initial network, and is the same for all
ways. Networks are trained by AdamW with a rate that falls to 0; sigma has the library's default
rate, and TorchJD's parameters the network's. What is chosen from several trainings is chosen for
each seed by its score on validation data, at the cost of all of them. Compute is processor time.
Errors are means over seeds: the part of a number's spread that is left, Brier scores of classes
(an error rate of few rows can be 0), `1 - mean IoU` and pixels. `TorchJD's` are the scalarizers of
that library; all others are this one, fixed weights included."""


def run(settings: Settings) -> Report:
    """Train what is not in `--work` yet, and compare."""
    seeds = [settings.seed + k for k in range(settings.repeats or settings.choose(5, 2, 2))]
    with settings.folder("weighting") as folder, one_process_a_core() as pool:
        study, file = Study(settings, folder), folder / "runs.jsonl"
        compared = [*study.small(), study.scenes()]
        outcomes = run_all(study, _jobs(compared, seeds), file, pool)
        tables, ratios = [], {}
        for one in compared:
            found, chosen = with_choices(list(one.ways.values()), _by_way(one, seeds, outcomes))
            tables.append(errors_table(one.problem.name, found, chosen))
            ratios[one.problem.name] = ratios_of(found)
        # The winner at the smaller budget is what a search would have handed over.
        scenes, long, few = compared[-1], study.long(), seeds[:3]
        winner = winner_of(scenes, seeds, outcomes)
        kept = dict.fromkeys((*LONG_WAYS, winner))
        long = Compared(long.problem, {name: long.ways[name] for name in kept})
        outcomes = run_all(study, _jobs([long], few), file, pool)
        found = _by_way(long, few, outcomes)
        tables.append(errors_table(long.problem.name, found, f"{len(few)} seeds"))
        text = file.read_text(encoding="utf-8")
    figure = ratios_figure(ratios)
    about = f"Seeds {seeds[0]} to {seeds[-1]}. {ABOUT}"
    return Report(
        "Ways to weigh",
        about,
        [overview(ratios), *tables],
        files={"runs.jsonl": text.encode(), "png": figure},
    )


def _jobs(compared: Sequence[Compared], seeds: Sequence[int]) -> list[Job]:
    # By seed first: an interrupted comparison has whole seeds.
    return [Job(c.problem.name, way, seed) for seed in seeds for c in compared for way in c.ways]


def _by_way(one: Compared, seeds: Sequence[int], outcomes: Mapping[Job, Outcome]) -> ByWay:
    return {way: [outcomes[Job(one.problem.name, way, s)] for s in seeds] for way in one.ways}


def ratios_of(found: ByWay) -> dict[str, list[float]]:
    """Return each way's scores over those of equal weights, one for each seed."""
    equal = [outcome.score for outcome in found[EQUAL]]
    return {
        name: [outcome.score / peer for outcome, peer in zip(of_way, equal, strict=True)]
        for name, of_way in found.items()
    }


def winner_of(scenes: Compared, seeds: Sequence[int], outcomes: Mapping[Job, Outcome]) -> str:
    """Return the fixed weights with the best validation over the seeds."""
    by_way = _by_way(scenes, seeds, outcomes)
    in_grid = [name for name, way in scenes.ways.items() if way.one_of == GRID]
    return min(in_grid, key=lambda name: geometric_mean([o.validation for o in by_way[name]]))


def overview(ratios: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    """Return every way on every problem, the best over all of them first."""
    names = list(next(iter(ratios.values())))
    over_all = {
        name: [
            geometric_mean(of_seed)
            for of_seed in zip(*(r[name] for r in ratios.values()), strict=True)
        ]
        for name in names
    }
    rows = []
    for name in sorted(names, key=lambda name: geometric_mean(over_all[name])):
        of_problems = [interval(r[name]).median for r in ratios.values()]
        everywhere = interval(over_all[name])
        rows.append(
            [name, everywhere, f"{max(of_problems):.2f}", *(f"{r:.2f}" for r in of_problems)]
        )
    columns = ["way to weigh", "over all problems", "worst", *ratios]
    return Table("Score over that of equal weights", columns, rows)


def errors_table(problem: str, found: ByWay, note: str) -> Table:
    """Return one problem's scores, errors and compute."""
    equal = found[EQUAL]
    errors = list(equal[0].errors)
    rows = []
    for name, of_way in found.items():
        score, compute = (
            paired_interval([getattr(o, what) for o in of_way], [getattr(o, what) for o in equal])
            for what in ("score", "seconds")
        )
        means = [np.mean([outcome.errors[error] for outcome in of_way]) for error in errors]
        rows.append([name, score, f"{compute.median:.2f}", *(f"{mean:.4g}" for mean in means)])
    columns = ["way to weigh", "score over equal", "compute over equal", *errors]
    return Table(f"{problem[:1].upper()}{problem[1:]} ({note})", columns, rows)
