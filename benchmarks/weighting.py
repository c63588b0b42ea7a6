"""Quality and compute of learned weights, against equal ones and the best of a grid, many seeds."""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.outcomes import GRID, Outcome, best_of_grid, paired_interval
from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.weighting_scenes import GRID_OF_SCENES, VARIANTS_OF_SCENES, train_on_scenes
from benchmarks.weighting_toy import GRID_OF_TOY, VARIANTS_OF_TOY, train_toy

THREADS = None

LEARNED = "learned"

TrainOne = Callable[[str, int], Outcome]


def run(settings: Settings) -> Report:
    """Train everything on both problems."""
    seeds = [settings.seed + k for k in range(settings.repeats or settings.choose(5, 2, 2))]
    with settings.folder("weighting") as folder:
        toy = compare(
            "Toy regression",
            VARIANTS_OF_TOY,
            settings.choose(GRID_OF_TOY, GRID_OF_TOY[::2], GRID_OF_TOY[:1]),
            seeds,
            lambda variant, seed: train_toy(variant, seed, settings.choose(150, 10, 1)),
        )
        train = train_on_scenes(settings, folder)
        scenes = compare(
            "Generated scenes",
            VARIANTS_OF_SCENES,
            settings.choose(GRID_OF_SCENES, GRID_OF_SCENES[:2], GRID_OF_SCENES[:1]),
            seeds,
            train,
        )
    about = (
        f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}, each of which decides data order, initial "
        "weights and, for the toy, the data, and is the same for all ways to weigh. The score is "
        "the geometric mean of the tasks' errors, lower is better: which of two is lower does not "
        "depend on the units of any task. `over learned` is the ratio of scores, paired by seed: "
        "mean of the logarithms with a 95% t-interval. The best of the grid is chosen for each "
        "seed by its score on a validation set, and scored, as all are, on a test set; it costs "
        "the training of the whole grid. Compute is processor time. Errors are means over seeds."
    )
    return Report("Learned weights against fixed ones", about, [toy, scenes])


def compare(
    title: str,
    variants: Sequence[str],
    grid: Sequence[str],
    seeds: Sequence[int],
    train: TrainOne,
) -> Table:
    """Train every variant and the grid with every seed."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in (*variants, GRID)}
    chosen = []
    for seed in seeds:
        for variant in variants:
            outcomes[variant].append(train(variant, seed))
        of_grid = {weights: train(weights, seed) for weights in grid}
        name, best = best_of_grid(of_grid)
        outcomes[GRID].append(best)
        chosen.append(name)
    errors = list(outcomes[LEARNED][0].errors)
    columns = ["weights", "score over learned", "compute over learned", "score", *errors]
    rows = []
    for name, found in outcomes.items():
        score, compute = (
            paired_interval(
                [getattr(o, quantity) for o in found],
                [getattr(o, quantity) for o in outcomes[LEARNED]],
            )
            for quantity in ("score", "seconds")
        )
        means = [np.mean([o.score for o in found])]
        means += [np.mean([o.errors[error] for o in found]) for error in errors]
        rows.append([name, score, compute, *(f"{mean:.4g}" for mean in means)])
    counted = ", ".join(f"{name} ({chosen.count(name)})" for name in dict.fromkeys(chosen))
    return Table(f"{title}: a grid of {len(grid)}; chosen were {counted}", columns, rows)
