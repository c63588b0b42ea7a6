"""The record of a training, and the layers on it."""

import csv

import pytest
import torch

from tests.scene import numbers, scene_batch, scene_loss
from uncertainty_mtl import GaussianHead, LaplaceHead, SigmaHistory, UncertaintyWeightedLoss


def run(history: SigmaHistory, steps: int, lr: float = 0.1) -> None:
    loss_fn = history.loss_fn
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True), *loss_fn.parameters()], lr=lr)
    for step in range(steps):
        losses = loss_fn({"a": torch.tensor(4.0, requires_grad=True), "b": None})
        optimizer.zero_grad()
        losses.total.backward()
        history.record(step, losses)
        optimizer.step()


def loss() -> UncertaintyWeightedLoss:
    """Return a loss whose sigmas start at 1."""
    return UncertaintyWeightedLoss(
        {"a": GaussianHead(init_sigma=1.0), "b": LaplaceHead(init_sigma=1.0)}
    )


def test_rows_hold_what_the_loss_said():
    history = SigmaHistory(loss(), flush_every=3)
    run(history, 5)
    rows = [row for row in history.rows if row.task == "a"]
    assert [row.step for row in rows] == list(range(5))
    assert rows[0][2:] == (1, 0.5, 4, 2)
    for row in rows:
        assert row.weight == pytest.approx(0.5 / row.sigma**2)
        assert row.base_loss == 4
        nll = row.weight * 4 + torch.log(torch.tensor(row.sigma)).item()
        assert row.nll == pytest.approx(nll, rel=1e-5)
    absent = [row for row in history.rows if row.task == "b"]
    assert absent[0].base_loss != absent[0].base_loss, "nan"
    assert absent[0].nll == 0


def test_rows_are_those_of_the_result_and_not_of_a_later_call():
    loss_fn, batch = scene_loss(), scene_batch()
    history = SigmaHistory(loss_fn)
    first = loss_fn(*batch)
    errors, tasks = numbers(first.errors), numbers(first.tasks)
    loss_fn(*scene_batch(seed=1))
    loss_fn.eval()(*scene_batch(seed=2))
    history.record(7, first)
    for row in history.rows:
        assert row.step == 7
        assert row.base_loss == pytest.approx(errors[row.task])
        assert row.nll == pytest.approx(tasks[row.task])


def test_a_row_before_and_after_the_start_says_so():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    history = SigmaHistory(loss_fn)
    history.record(0, loss_fn({"a": torch.tensor(4.0, requires_grad=True), "b": None}))
    assert [row.sigma for row in history.rows] == pytest.approx([2, 1])


def test_channels_are_recorded_by_their_mean():
    loss_fn = UncertaintyWeightedLoss({"a": GaussianHead(num_channels=2)})
    history = SigmaHistory(loss_fn)
    history.record(0, loss_fn({"a": torch.tensor([4.0, 16.0], requires_grad=True)}))
    (row,) = history.rows
    assert (row.sigma, row.base_loss) == pytest.approx((3, 10))


def test_tasks_of_a_group_are_recorded_too():
    loss_fn = UncertaintyWeightedLoss({"g": loss(), "c": LaplaceHead(init_sigma=1.0)})
    history = SigmaHistory(loss_fn)
    one = torch.ones((), requires_grad=True)
    history.record(0, loss_fn({"g": {"a": 4 * one, "b": one}, "c": one}))
    rows = {row.task: row for row in history.rows}
    assert list(rows) == ["g.a", "g.b", "c"]
    assert rows["g.a"].base_loss == 4
    assert rows["g.a"].nll != rows["g.a"].nll, "nan"
    assert rows["c"].nll == pytest.approx(2**0.5)


def test_nothing_is_read_before_a_chunk_is_full(monkeypatch):
    history = SigmaHistory(loss(), flush_every=4)
    chunks = []
    history.listeners.append(lambda rows: chunks.append(len(rows)))
    run(history, 10)
    assert chunks == [8, 8]
    history.flush()
    assert chunks == [8, 8, 4]


def test_csv_is_written_whole(tmp_path):
    history = SigmaHistory(loss())
    run(history, 3)
    history.to_csv(tmp_path / "sigma.csv")
    with (tmp_path / "sigma.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert list(rows[0]) == ["step", "task", "sigma", "weight", "base_loss", "nll"]
    assert float(rows[0]["base_loss"]) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["sigma.csv"]


def test_figure_has_a_curve_for_each_task():
    history = SigmaHistory(loss())
    run(history, 3)
    axes = history.plot().axes
    assert [axis.get_title() for axis in axes] == ["sigma", "weight", "base loss"]
    assert [line.get_label() for line in axes[0].lines] == ["a", "b"]


def test_one_warning_tells_of_a_sigma_that_does_not_move():
    history = SigmaHistory(loss(), stuck_after=5)
    run(history, 6, lr=0.0)
    with pytest.warns(UserWarning, match=r"sigma of \['a', 'b'\] has not moved in 6 steps"):
        history.flush()
    run(history, 6, lr=0.0)
    history.flush()


def test_no_warning_for_sigmas_that_move_or_are_meant_to_stay():
    frozen = loss()
    frozen.freeze()
    closed = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, estimator="closed_form")
    for loss_fn in (frozen, closed, loss()):
        if loss_fn is not frozen and loss_fn is not closed:
            loss_fn.freeze("b")
        history = SigmaHistory(loss_fn, stuck_after=5)
        if loss_fn is closed or loss_fn is frozen:
            for step in range(6):
                history.record(step, loss_fn({"a": torch.ones((), requires_grad=True), "b": None}))
        else:
            run(history, 6)
        history.flush()


def test_a_record_stays_as_it_was_if_the_caller_changes_the_terms():
    history = SigmaHistory(loss(), flush_every=10)
    losses = history.loss_fn({"a": torch.tensor(4.0, requires_grad=True), "b": None})
    history.record(0, losses)
    expected = losses.tasks["a"].item()
    with torch.no_grad():
        losses.tasks["a"].mul_(0)
    history.flush()
    assert [row.nll for row in history.rows if row.task == "a"] == pytest.approx([expected])


def test_a_constraint_that_leaves_the_bounds_is_no_reason_to_warn():
    heads = {"a": LaplaceHead(sigma_bounds=(0.5, 2.0)), "b": LaplaceHead(sigma_bounds=(0.5, 2.0))}
    loss_fn = UncertaintyWeightedLoss(heads, constraint="unit_sum", estimator="closed_form")
    history = SigmaHistory(loss_fn, flush_every=2)
    for step in range(4):  # the tests turn warnings into errors
        a, b = torch.tensor([1e-6, 1e6], requires_grad=True)
        history.record(step, loss_fn({"a": a, "b": b}))
