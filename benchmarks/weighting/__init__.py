"""Whether learned weights help: every way to weigh, on nine small problems, over seeds."""

from benchmarks.result_file import Report
from benchmarks.run_settings import Settings
from benchmarks.weighting.figure import ratios_figure
from benchmarks.weighting.paired import (
    ABOUT,
    by_way,
    errors_table,
    over_equal,
    overview,
    with_choices,
)
from benchmarks.weighting.study import jobs_of, one_process_a_core, run_all, small_problems


def run(settings: Settings) -> Report:
    """Train what is not in `--work` yet, and compare."""
    seeds = range(settings.seed, settings.seed + (settings.repeats or settings.choose(5, 2, 2)))
    with settings.folder("weighting") as folder, one_process_a_core() as pool:
        compared = small_problems(settings, folder).values()
        outcomes = run_all(small_problems, settings, folder, jobs_of(compared, seeds), pool)
        lines = (folder / "runs.jsonl").read_text(encoding="utf-8")
    tables, ratios = [], {}
    for one in compared:
        name = one.problem.name
        found, chosen = with_choices(list(one.ways.values()), by_way(one, seeds, outcomes))
        tables.append(errors_table(name, found, chosen))
        ratios[name] = {way: over_equal(found, way, "score") for way in found}
    shown = {problem: ratios[problem] for problem in ratios if problem != name}  # all but the last
    files = {"runs.jsonl": lines, "png": ratios_figure(shown)}
    about = f"Seeds {seeds[0]} to {seeds[-1]}. {ABOUT}"
    return Report("Ways to weigh", about, [overview(ratios, apart=name), *tables], files=files)
