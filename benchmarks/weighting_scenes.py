"""Whether learned weights help on images: the example's three tasks on rendered scenes."""

from benchmarks.result_file import Report
from benchmarks.run_settings import Settings
from benchmarks.weighting.paired import ABOUT, by_way, errors_table, winner_of, with_choices
from benchmarks.weighting.study import (
    Compared,
    jobs_of,
    one_process_a_core,
    run_all,
    scene_problems,
)
from benchmarks.weighting.ways import LONG_WAYS


def run(settings: Settings) -> Report:
    """Train what is not in `--work` yet, and compare."""
    seeds = range(settings.seed, settings.seed + (settings.repeats or settings.choose(5, 2, 2)))
    few = seeds[:3]
    with settings.folder("weighting_scenes") as folder, one_process_a_core() as pool:
        short, long = scene_problems(settings, folder).values()
        outcomes = run_all(scene_problems, settings, folder, jobs_of([short], seeds), pool)
        # The demo is too long for a search: it takes the weights that win the shorter training.
        names = dict.fromkeys((*LONG_WAYS, winner_of(short, seeds, outcomes)))
        long = Compared(long.problem, {name: long.ways[name] for name in names})
        outcomes |= run_all(scene_problems, settings, folder, jobs_of([long], few), pool)
        lines = (folder / "runs.jsonl").read_text(encoding="utf-8")
    found, chosen = with_choices(list(short.ways.values()), by_way(short, seeds, outcomes))
    tables = [
        errors_table(short.problem.name, found, f"{len(seeds)} seeds; {chosen}"),
        errors_table(long.problem.name, by_way(long, few, outcomes), f"{len(few)} seeds"),
    ]
    about = f"Seeds from {seeds[0]} up. {ABOUT}"
    return Report("Ways to weigh, on scenes", about, tables, files={"runs.jsonl": lines})
