"""What every experiment does: settle the settings, run, and gather the results."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from examples.cityscapes.experiments.folder import experiment_folder
from examples.cityscapes.experiments.recipe import recipe
from examples.cityscapes.experiments.results import FIGURES, csv_text
from examples.cityscapes.experiments.runs import is_finished, read_result, run_all
from examples.cityscapes.experiments.training import Training, config_of, shared_settings
from examples.cityscapes.model.start import backbone_state
from examples.common.checkpoint import write_atomically
from examples.common.device import pick_device
from examples.common.errors import InputError

SCENES = {"train": 1500, "val": 100}
QUICK_SCENES = {"train": 600, "val": 60}


class ExperimentOutcome(NamedTuple):
    """What has come of the runs of an experiment."""

    results: dict[tuple[Training, int], dict[str, Any]]
    """The figures.json of every finished run, by training and seed."""
    folders: dict[tuple[Training, int], Path]
    """The folders of all runs, finished or not."""
    failures: dict[str, str]
    """The reasons for which runs failed, by the names of the runs."""
    recipe: str
    """How to reproduce the results; the last section of the page."""

    def of(self, training: Training) -> list[dict[str, Any]]:
        """Return the results of a training, in the order of the seeds."""
        return [result for (other, _), result in self.results.items() if other == training]


def run_experiment(
    command: str,
    trainings: Sequence[Training],
    *,
    out: Path,
    data: Path | None = None,
    seeds: tuple[int, ...],
    quick: bool = False,
    workers: int | None = None,
    defaults: dict[str, Any] | None = None,
    shown: dict[str, Any] | None = None,
    figures: Iterable[str] = FIGURES,
    **given: Any,
) -> ExperimentOutcome:
    """Run every training from every seed, except for runs that an earlier call has finished.

    Args:
        command: Command of the experiment.
        trainings: What to train; a training that is named twice is run once.
        out: Folder of the experiment.
        data: A dataset; None renders one.
        seeds: Seeds of the runs.
        quick: Whether to use the preset `quick`, and few scenes.
        workers: Runs side by side; None for one per core, or one at a time on a GPU.
        defaults: Settings of the experiment where `given` has none.
        shown: The options that only this experiment has, for the recipe.
        figures: The names of the figures that every run has to have.
        given: Fields of `TrainConfig`.
    """
    trainings = list(dict.fromkeys(trainings))
    if quick and "preset" in given:
        raise InputError("--quick: is itself a preset; leave out --preset")
    preset = "quick" if quick else given.get("preset", "demo" if data is None else "tiny")
    # Looking at the validation split changes no weight, and only the last network is measured.
    plain = {"eval_every": 0, "tensorboard": False}
    settings = shared_settings({**plain, **(defaults or {}), **given, "preset": preset})
    for training in trainings:  # raises before anything is written
        config_of(training, max(seeds), settings, Path("data"), Path("runs"))
    device = pick_device(settings["device"])
    # Fetched once for all runs, which must not start from different weights.
    found, _ = backbone_state(settings["backbone"], settings["backbone_weights"])
    settings["backbone_weights"] = found
    scenes = QUICK_SCENES if quick else SCENES
    with experiment_folder(out, command, settings, data, scenes) as dataset:
        pairs = [(training, seed) for seed in seeds for training in trainings]
        configs = [config_of(t, seed, settings, dataset, out / "runs") for t, seed in pairs]
        workers = workers or (1 if device.type == "cuda" else os.cpu_count() or 1)
        failures = run_all(configs, workers)
        folders = {pair: config.out for pair, config in zip(pairs, configs, strict=True)}
        results = {p: read_result(f, figures) for p, f in folders.items() if is_finished(f)}
    if not results:
        return ExperimentOutcome(results, folders, failures, "")
    options = {"out": out} | ({"data": data} if data else {}) | ({"quick": True} if quick else {})
    options |= (
        (shown or {})
        | given
        | {"seeds": ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")}
    )
    text = recipe(command, options, settings, None if data else scenes, list(results.values()))
    return ExperimentOutcome(results, folders, failures, text)


def write_page(
    out: Path, command: str, body: str, rows: list[dict[str, Any]], outcome: ExperimentOutcome
) -> None:
    """Write COMMAND.md, COMMAND.csv and, with every single run, COMMAND_runs.csv; print the first.

    Args:
        out: Folder of the experiment.
        command: Command of the experiment.
        body: The page, without its last section.
        rows: What the page shows, for programs.
        outcome: The runs.
    """
    missing = ""
    if outcome.failures:  # without messages: they may name folders, and the page will be shared
        names = ", ".join(f"`{name}`" for name in outcome.failures)
        missing = f"**Failed, and missing above**: {names}.\n\n"
    write_atomically(out / f"{command}_runs.csv", csv_text(run_rows(outcome)))
    write_atomically(out / f"{command}.csv", csv_text(rows))
    write_atomically(out / f"{command}.md", f"{body}\n{missing}{outcome.recipe}")
    print(body)
    print(f"{out / command}.md", file=sys.stderr)


def run_rows(outcome: ExperimentOutcome) -> list[dict[str, Any]]:
    """Return a row for every single run."""
    return [
        {
            "tasks": "+".join(training.tasks),
            "weighting": training.weighting,
            "log_var_init": training.log_var_init,
            "variant": training.variant or None,
            "seed": seed,
            **{k: v for k, v in result["figures"].items() if not isinstance(v, dict)},
            "seconds": result["seconds"],
        }
        for (training, seed), result in outcome.results.items()
    ]
