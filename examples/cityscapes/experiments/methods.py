"""The rows of the two-task table: ways to weigh, their trainings, and what papers call them."""

from typing import NamedTuple

from examples.cityscapes.experiments.delta_m import delta_m, joined, measured
from examples.cityscapes.experiments.experiment import ExperimentOutcome
from examples.cityscapes.experiments.interval import Interval, interval
from examples.cityscapes.experiments.training import Training
from examples.cityscapes.protocols import TWO_TASK

BySeed = dict[int, dict[str, float | None]]
"""The figures of the table, by seed."""


class Method(NamedTuple):
    """A row of the table."""

    name: str
    trainings: tuple[Training, ...]
    """One network, or one for each task."""
    published: str = ""
    """The name of the method in the published table; empty if the table has no such row."""


SINGLE = Method("single tasks", tuple(Training((task,), "equal") for task in TWO_TASK.tasks), "STL")


def methods(temperatures: tuple[float, ...]) -> list[Method]:
    """Return all rows.

    Args:
        temperatures: Temperatures of UW-SO; each is a row of its own.
    """
    closed_form = (("estimator", "closed_form"),)
    found = [
        SINGLE,
        Method("equal weights", (_training("equal"),), "LS"),
        Method("learned weights", (_training("uncertainty"),), "UW"),
        Method("closed form", (_training("uncertainty", "closed_form", closed_form),)),
    ]
    for temperature in temperatures:
        softmax = (("closed_form_momentum", 1.0), ("constraint", "softmax"))
        changes = (*closed_form, *softmax, ("temperature", temperature))
        training = _training("uncertainty", f"uw_so_{temperature:g}", changes)
        found.append(Method(f"UW-SO, T = {temperature:g}", (training,)))
    return [*found, Method("random weights", (_training("random"),), "RLW")]


def _training(
    weighting: str, variant: str = "", changes: tuple[tuple[str, object], ...] = ()
) -> Training:
    return Training(TWO_TASK.tasks, weighting, variant=variant, changes=changes)


def by_seed(method: Method, outcome: ExperimentOutcome) -> BySeed:
    """Return the figures of every seed of which all trainings of a method are finished."""
    found: dict[int, list[dict[str, float | None]]] = {}
    for training in method.trainings:
        for (other, seed), result in outcome.results.items():
            if other == training:
                found.setdefault(seed, []).append(measured(result["figures"]))
    return {s: joined(runs) for s, runs in found.items() if len(runs) == len(method.trainings)}


def with_delta_m(rows: dict[str, BySeed]) -> dict[str, BySeed]:
    """Add delta_m to the figures of every method and seed.

    The base is the mean over the seeds of the single-task runs: a base for every seed would be as
    uncertain as the method itself.
    """
    base = {name: each.mean for name, each in intervals(rows[SINGLE.name]).items()}
    return {
        method: {
            seed: {**figures, "delta_m": delta_m(figures, base) if base else None}
            for seed, figures in of_method.items()
        }
        for method, of_method in rows.items()
    }


def intervals(of_method: BySeed) -> dict[str, Interval]:
    """Return the mean of every figure over seeds, with its interval."""
    names = next(iter(of_method.values()), {})
    return {name: interval(figures[name] for figures in of_method.values()) for name in names}
