"""The comparison of ways to weigh: its problems, its statistics, and that it goes on."""

import dataclasses
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.run_settings import Settings
from benchmarks.sigma_rate import Recorded
from benchmarks.weighting import study
from benchmarks.weighting.one_training import Outcome, train
from benchmarks.weighting.paired import best_of, interval, with_choices
from benchmarks.weighting.pinn import Poisson, solution, source
from benchmarks.weighting.table_problems import TABLES
from benchmarks.weighting.ways import EQUAL, GRID, TEMPERATURES, ways

ALL_WAYS = ways([(1.0, 0.1, 0.3)])
LOAD = {table.name: table.load for table in TABLES}


@given(
    pairs=st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=3, max_size=8),
)
def test_the_interval_over_seeds_is_that_of_a_paired_t_test(pairs):
    values, reference = np.array(pairs).T
    logs = np.log(values), np.log(reference)
    if np.std(logs[0] - logs[1]) < 1e-6:
        return
    found = interval(values / reference)
    expected = stats.ttest_rel(*logs).confidence_interval(0.95)
    assert np.log(found[1:]) == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_the_best_of_a_choice_is_chosen_by_validation_and_costs_all_of_them():
    grid = {
        "a": Outcome(validation=2.0, errors={"depth": 1.0}, seconds=10),
        "b": Outcome(validation=1.0, errors={"depth": 3.0}, seconds=20),
    }
    name, best = best_of(grid)
    assert (name, best.score, best.seconds) == ("b", pytest.approx(3.0), 30)


def test_a_choice_takes_the_place_of_its_members_and_equal_weights_stay():
    outcomes = {way.name: [Outcome(1.0, {"depth": 1.0}, 1.0)] * 2 for way in ALL_WAYS}
    found, said = with_choices(ALL_WAYS, outcomes)
    assert {EQUAL, GRID, TEMPERATURES} < found.keys()
    assert not any(name.startswith(("fixed", "UW-SO, T")) for name in found)
    assert [outcome.seconds for outcome in found[GRID]] == [2.0, 2.0]
    assert "equal (2)" in said


@pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
def test_every_way_hands_a_positive_weight_to_every_loss_and_bears_a_missing_one(way):
    torch.manual_seed(0)
    tasks = {"a": "softmax", "b": "gaussian", "c": "gaussian"}
    weigher = way.make(tasks)
    losses = torch.tensor([0.5, 2.0, 1.0], requires_grad=True)
    for _ in range(3):
        weigher.total(dict(zip(tasks, losses, strict=True))).backward()
        weigher.end_epoch()
    assert (losses.grad > 0).all()
    losses.grad = None
    weigher.total({"a": losses[0], "b": None, "c": losses[2]}).backward()
    assert losses.grad[1] == 0
    assert (losses.grad[[0, 2]] > 0).all()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_no_input_of_a_table_is_one_of_its_targets(table):
    rows = table.load(0)["train"]
    assert len(rows.inputs) == table.num_rows
    for target in rows.targets.values():
        if not target.is_floating_point():
            continue
        for column in rows.inputs.T:
            both = torch.stack([column, target])[:, ~target.isnan()]
            if both[0].std() and table.name != "toy":  # a line of its input
                assert abs(torch.corrcoef(both)[0, 1]) < 0.99


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_splits_of_a_table_have_no_row_in_common(table):
    splits = table.load(0)
    rows = [{tuple(row) for row in split.inputs.tolist()} for split in splits.values()]
    # Two wines, or patients, may be alike by chance.
    assert len(set.union(*rows)) >= 0.99 * sum(map(len, rows))


def test_the_noise_of_generated_tables_is_what_they_say_and_not_in_their_tests():
    rows = LOAD["noise 0.1, 1 and 10"](0)
    for task, level in zip(("f0", "f1", "f2"), (0.1, 1.0, 10.0), strict=True):
        assert rows["test"].targets[task].std().item() == pytest.approx(1, rel=0.01)
        expected = math.sqrt(1 + level**2)
        assert rows["train"].targets[task].std().item() == pytest.approx(expected, rel=0.1)
    toy = LOAD["toy"](0)["test"]
    torch.testing.assert_close(toy.targets["y1"], 2 * toy.inputs[:, 0] + 8)
    units = LOAD["units 0.001, 1 and 1000"](0)["test"]
    spreads = [column.std().item() for column in units.targets.values()]
    assert spreads == pytest.approx([1e-3, 1, 1e3], rel=0.01)
    labelled = ~LOAD["one task in 5% of rows"](0)["train"].targets["f2"].isnan()
    assert 0.02 < labelled.float().mean() < 0.1


def test_the_equation_of_the_physics_informed_network_has_its_solution():
    x = torch.linspace(-1, 1, 101, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(solution(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(-bend, source(x).detach())


def test_a_training_repeats_itself_and_learns():
    table = dataclasses.replace(TABLES[0], epochs=20)
    weigh = {way.name: way for way in ALL_WAYS}[EQUAL].make
    first, second = (train(table, weigh(table.likelihoods), seed=1) for _ in range(2))
    assert first.errors == second.errors
    assert all(error < 0.7 for error in first.errors.values())
    assert train(Poisson(10), weigh(Poisson.likelihoods), seed=1).errors.keys() == {"u"}


def test_what_has_ended_is_not_trained_again(tmp_path, monkeypatch):
    settings, file = Settings(effort="smoke"), tmp_path / "runs.jsonl"
    jobs = [study.Job("diabetes", EQUAL, seed) for seed in (0, 1)]
    with ThreadPoolExecutor(1) as pool:
        found = study.run_all(study.small_problems, settings, tmp_path, jobs, pool)
        entries = [json.loads(line) for line in file.read_text().splitlines()]
        assert {entry["seed"] for entry in entries} == {0, 1}
        with file.open("a") as lines:
            lines.write('{"problem": "half a li')
        monkeypatch.setattr(study, "run_one", None)  # calling it fails now
        assert study.run_all(study.small_problems, settings, tmp_path, jobs, pool) == found


def test_a_sigma_with_its_own_optimizer_moves_by_its_rate():
    weigher = Recorded({"a": "gaussian"}, (torch.optim.SGD, 0.1), wrong_at=1)
    loss = torch.tensor(1.0, requires_grad=True)
    for _ in range(3):
        weigher.total({"a": loss}).backward()
    # log sigma^2 starts at 0. The gradient of 0.5 * (L / sigma^2 + log sigma^2) is 0, then
    # 0.5 * (1 - 1000).
    assert [row[0] for row in weigher.losses] == [1.0, 1000.0, 1.0]
    log_vars = -np.log(2 * np.array(weigher.weights)[:, 0])
    assert log_vars[:2] == pytest.approx([0, 0], abs=1e-6)
    assert log_vars[2] > 10
