"""Compiled on two ranks: the start runs outside of the graph, and nothing else does."""

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from tests.ranks import on_two_ranks
from uncertainty_mtl import GaussianHead, LaplaceHead, UncertaintyWeightedLoss

pytestmark = pytest.mark.slow
TASKS = {"a": "gaussian", "b": "laplace"}
STEPS = 8


def leaves(a: float, b: float) -> dict[str, Tensor]:
    return {"a": torch.tensor(a, requires_grad=True), "b": torch.tensor(b, requires_grad=True)}


def numbers(values: dict[str, Tensor]) -> dict[str, float]:
    return {task: value.item() for task, value in values.items()}


class Collectives:
    """Counts the collectives of this process."""

    def __init__(self) -> None:
        self.count, self._all_reduce = 0, dist.all_reduce

    def __enter__(self) -> "Collectives":
        @torch.compiler.disable
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return self._all_reduce(*args, **kwargs)

        dist.all_reduce = counted
        return self

    def __exit__(self, *error: Any) -> None:
        dist.all_reduce = self._all_reduce


def graph_breaks() -> int:
    return sum(counters["graph_break"].values())


def history_of(step: Any, rank: int) -> list[list[int]]:
    """Return how many graph breaks and collectives each step has."""
    history = []
    for _ in range(STEPS):
        before = graph_breaks()
        with Collectives() as collectives:
            step(leaves(*((2.0, 1.0), (6.0, 5.0))[rank])).total.backward()
        history.append([graph_breaks() - before, collectives.count])
    return history


def pending_start(rank: int) -> dict[str, Any]:
    """Train compiled from the first step on, and count breaks and collectives in each step."""
    torch._dynamo.reset()
    counters.clear()
    loss_fn = UncertaintyWeightedLoss(TASKS)
    step = torch.compile(loss_fn, backend="aot_eager")
    history = history_of(step, rank)
    fullgraph = torch.compile(loss_fn, backend=CompileCounterWithBackend("eager"), fullgraph=True)
    with Collectives() as collectives:
        tasks = numbers(fullgraph(leaves(4.0, 3.0)).tasks)
    return {
        "history": history,
        "sigmas": numbers(loss_fn.sigmas()),
        "afterwards": tasks,
        "collectives afterwards": collectives.count,
    }


def frozen(rank: int) -> list[list[int]]:
    """Do the same with a sigma that was frozen before any start."""
    torch._dynamo.reset()
    counters.clear()
    loss_fn = UncertaintyWeightedLoss({"a": GaussianHead(init_sigma=2.0), "b": "laplace"})
    loss_fn.freeze("a")
    return history_of(torch.compile(loss_fn, backend="aot_eager"), rank)


def fullgraph_while_pending(rank: int) -> str:
    torch._dynamo.reset()
    compiled = torch.compile(UncertaintyWeightedLoss(TASKS), backend="eager", fullgraph=True)
    try:
        compiled(leaves(2.0, 1.0))
    except Exception as error:
        return str(error)
    return "no error"


def fullgraph_of(loss_fn: UncertaintyWeightedLoss) -> dict[str, Any]:
    torch._dynamo.reset()
    compiled = torch.compile(loss_fn, backend="eager", fullgraph=True)
    try:
        with Collectives() as collectives:
            tasks = [numbers(compiled(leaves(4.0, 3.0)).tasks) for _ in range(3)]
    except Exception as error:
        return {"error": str(error)}
    return {"error": "", "tasks": tasks, "collectives": collectives.count}


def fullgraph_after_initialize_from(rank: int) -> dict[str, Any]:
    loss_fn = UncertaintyWeightedLoss(TASKS)
    loss_fn.initialize_from(leaves(*((2.0, 1.0), (6.0, 5.0))[rank]))
    return fullgraph_of(loss_fn)


def fullgraph_with_init_sigma(rank: int) -> dict[str, Any]:
    heads = {"a": GaussianHead(init_sigma=2.0), "b": LaplaceHead(init_sigma=3 * math.sqrt(2))}
    return fullgraph_of(UncertaintyWeightedLoss(heads))


def fullgraph_by_itself(rank: int) -> dict[str, Any]:
    return fullgraph_of(UncertaintyWeightedLoss(TASKS, process_group=False))


def run_all(rank: int) -> dict[str, Any]:
    scenarios = [
        pending_start,
        frozen,
        fullgraph_while_pending,
        fullgraph_after_initialize_from,
        fullgraph_with_init_sigma,
        fullgraph_by_itself,
    ]
    return {scenario.__name__: scenario(rank) for scenario in scenarios}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return on_two_ranks(tmp_path_factory.mktemp("ranks"), run_all)


# The means of both ranks are 4 and 3; at its optimum a Gaussian task is (1 + log MSE) / 2, and a
# Laplace task 1 + log(MAE) + log(2) / 2.
SIGMAS = {"a": 2.0, "b": 3 * math.sqrt(2)}
AT_OPTIMUM = {"a": (1 + math.log(4)) / 2, "b": 1 + math.log(3) + math.log(2) / 2}


def test_the_graph_breaks_only_while_the_start_is_pending(found):
    for on_rank in found:
        history = on_rank["pending_start"]["history"]
        assert history[0][0] > 0
        assert history[0][1] > 0
        assert history[3:] == [[0, 0]] * (STEPS - 3)
        assert on_rank["pending_start"]["sigmas"] == pytest.approx(SIGMAS)


def test_a_frozen_sigma_does_not_keep_the_start_pending(found):
    for on_rank in found:
        assert on_rank["frozen"][3:] == [[0, 0]] * (STEPS - 3)


def test_afterwards_it_is_one_graph_without_a_collective(found):
    for on_rank in found:
        assert on_rank["pending_start"]["afterwards"] == pytest.approx(AT_OPTIMUM, rel=1e-5)
        assert on_rank["pending_start"]["collectives afterwards"] == 0


def test_one_graph_from_the_first_step_on_is_refused_with_the_ways_out(found):
    for on_rank in found:
        message = on_rank["fullgraph_while_pending"]
        assert "initialize_from" in message
        assert "init_sigma" in message


@pytest.mark.parametrize("scenario", ["after_initialize_from", "with_init_sigma"])
def test_the_ways_out_lead_to_one_graph(found, scenario):
    for on_rank in found:
        result = on_rank[f"fullgraph_{scenario}"]
        assert result["error"] == ""
        assert result["tasks"] == [pytest.approx(AT_OPTIMUM, rel=1e-5)] * 3
        assert result["collectives"] == 0


def test_without_a_group_one_graph_holds_the_start(found):
    for on_rank in found:
        result = on_rank["fullgraph_by_itself"]
        assert result["error"] == ""
        assert result["tasks"] == [pytest.approx(AT_OPTIMUM, rel=1e-5)] * 3
        assert result["collectives"] == 0
