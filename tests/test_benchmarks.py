"""The benchmarks themselves: fair ratios, complete recipes, and a script for a GPU."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchjd.scalarization import UW

from benchmarks import map_cases as maps
from benchmarks.__main__ import NAMES, main
from benchmarks.peak_memory import peak_bytes
from benchmarks.result_file import RESULTS, result_path
from benchmarks.run_settings import Settings
from benchmarks.timing import WARM_UP, take_turns

SMOKE = Settings(effort="smoke")

GPU_SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"


class Machine:
    """A clock that only its own work advances, at a speed that changes."""

    def __init__(self, seed=0, *, drift=0.0, disturbed=0.0):
        self.now, self.speed, self.drift, self.disturbed = 0.0, 1.0, drift, disturbed
        self.rng = np.random.default_rng(seed)
        self.calls = []

    def work(self, name, seconds):
        """Return what takes so many seconds, more or less."""

        def call():
            self.calls.append(name)
            slowdown = 10 if self.rng.random() < self.disturbed else 1
            self.now += seconds * slowdown / self.speed
            self.speed *= 1 - self.drift

        return call

    def clock(self):
        """Return the time."""
        return self.now


@given(cost=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_a_ratio_is_that_of_the_costs_however_few_calls_fit_into_a_turn(cost, seed):
    machine = Machine()
    work = {"ours": machine.work("ours", 1e-3 * cost), "peer": machine.work("peer", 1e-3)}
    timings = take_turns(work, Settings(seed=seed), rounds=5, clock=machine.clock)
    assert timings.ratio("ours", "peer") == pytest.approx((cost, cost, cost), rel=1e-6)
    assert timings.per_call("peer") == "1 ms"


def test_a_machine_that_grows_slower_and_is_disturbed_leaves_the_ratio_alone():
    machine = Machine(drift=1e-4, disturbed=0.1)
    work = {"ours": machine.work("ours", 3.0), "peer": machine.work("peer", 2.0)}
    timings = take_turns(work, SMOKE, rounds=101, clock=machine.clock)
    assert timings.seconds["peer"][-1] > 1.01 * timings.seconds["peer"][0]
    ratio = timings.ratio("ours", "peer")
    assert ratio.median == pytest.approx(1.5, rel=1e-3)
    assert ratio.low <= ratio.median <= ratio.high
    assert ratio.low < 1.4 or ratio.high > 1.6  # the disturbances are not hidden


def test_everyone_has_a_turn_in_every_round_in_an_order_that_changes():
    machine = Machine()
    work = {name: machine.work(name, 1.0) for name in "abc"}
    take_turns(work, SMOKE, rounds=20, clock=machine.clock)
    before = 3 * (WARM_UP + 1)  # and a call of each to calibrate
    turns = ["".join(machine.calls[i : i + 3]) for i in range(before, len(machine.calls), 3)]
    assert len(turns) == 20
    assert set(turns) == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_peak_memory_counts_what_is_alive_at_once_and_not_what_was_there():
    mebibyte = 2**20
    there_before = torch.ones(mebibyte // 4)

    def one_after_the_other():
        for _ in range(3):
            torch.zeros(mebibyte // 4).add_(there_before)

    def chain():
        first = there_before + 1
        second = first + 1
        del first
        return second + 1

    assert peak_bytes(one_after_the_other) == pytest.approx(mebibyte, rel=1e-3)
    assert peak_bytes(chain) == pytest.approx(2 * mebibyte, rel=1e-3)


def test_a_quick_result_never_takes_the_place_of_a_full_one():
    paths = {result_path("memory", effort) for effort in ("full", "quick", "smoke")}
    assert len(paths) == 3
    assert {path.parent for path in paths} == {RESULTS}


def test_without_a_name_all_benchmarks_are_listed_with_a_line_each(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(NAMES)]] == list(NAMES)
    assert all(len(line.split()) > 3 for line in lines[: len(NAMES)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_benchmark_on_one_is_skipped_in_one_line(tmp_path, capsys):
    out = tmp_path / "result.md"
    assert main(["memory", "--device", "cuda", "--out", str(out)]) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not out.exists()


def test_data_that_are_not_there_are_one_line_and_no_result(tmp_path, capsys):
    out = tmp_path / "result.md"
    arguments = ["training_step", "--effort", "smoke", "--data", str(tmp_path / "none")]
    assert main([*arguments, "--out", str(out)]) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {tmp_path}/none: no such folder"]
    assert not out.exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_runs_and_leaves_ratios_with_their_recipe(name, tmp_path, capsys):
    out = tmp_path / "result.md"
    assert main([name, "--effort", "smoke", "--out", str(out)]) == 0
    text = out.read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    for item in ("command", "commit", "versions", "hardware", "threads", "seed", "duration"):
        assert re.search(rf"^- {item}: \S", text, re.MULTILINE), item
    if name != "memory":  # which times nothing
        assert re.search(r"\d \([\d.e+]+-[\d.e+]+\)", text)
    assert "nan" not in text


def test_candidates_that_compute_something_else_have_no_ratio():
    (case, *_) = maps.cases(SMOKE)
    another = {maps.INDEXED: case.losses[maps.WHOLE]}
    with pytest.raises(AssertionError):
        maps.checked(dataclasses.replace(case, losses=case.losses | another))


def test_without_torchjd_its_formula_stands_in_and_the_report_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd.scalarization", None)  # importing it now fails
    spec = importlib.util.find_spec("benchmarks.weighting_cost")
    weighting_cost = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weighting_cost)
    losses, log_var = torch.tensor([0.3, 2.0, 1.1]), torch.tensor([0.5, -1.0, 0.2])
    totals, gradients = [], []
    for peer in (weighting_cost.UW(3), UW(3)):
        peer.log_var.data.copy_(log_var)
        totals.append(peer(losses))
        totals[-1].backward()
        gradients.append(peer.log_var.grad)
    assert type(peer) is not weighting_cost.UW
    torch.testing.assert_close(*totals)
    torch.testing.assert_close(*gradients)
    assert "over UW written out" in weighting_cost.run(SMOKE).tables[0].columns


def run_gpu_script(out, *arguments, python):
    command = ["bash", str(GPU_SCRIPT), str(out), *arguments]
    return subprocess.run(  # noqa: S603
        command, env={**os.environ, "PYTHON": str(python)}, capture_output=True, text=True
    )


def test_the_script_for_a_gpu_can_be_tried_on_a_cpu(tmp_path):
    ended = run_gpu_script(tmp_path, "--device", "cpu", python=sys.executable)
    log = (tmp_path / "log.txt").read_text()
    assert ended.returncode == 0, log
    summary = (tmp_path / "summary.txt").read_text()
    assert re.findall(r"^(\w+): exit status 0", summary, re.MULTILINE) == [
        "environment",
        "device",
        "tests",
        "weighting_cost",
        "dense_maps",
        "memory",
        "training_step",
        "render",
        "train_learned",
        "evaluate_learned",
    ]
    assert f"PyTorch version: {torch.__version__}" in log
    assert "tests/test_cuda.py" in log
    for name in ("weighting_cost", "dense_maps", "memory", "training_step"):
        assert (tmp_path / f"{name}.md").is_file()
    assert json.loads((tmp_path / "learned/metrics.json").read_text())["semantic_iou"] >= 0


def test_a_part_that_fails_on_a_gpu_stops_no_other_and_is_in_the_exit_status(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such module'\nexit 3\n")
    python.chmod(0o755)
    ended = run_gpu_script(tmp_path, python=python)
    assert ended.returncode == 1
    summary = (tmp_path / "summary.txt").read_text()
    for name in ("environment", "tests", "weighting_cost", "memory", "render", "evaluate_equal"):
        assert f"{name}: exit status 3" in summary
    assert "train_closed_form: exit status 1" in summary


def test_the_script_for_a_gpu_says_how_it_is_called(tmp_path):
    ended = run_gpu_script(tmp_path, "--device", "abacus", python=sys.executable)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: bash benchmarks/gpu.sh OUT")
