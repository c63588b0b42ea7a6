"""The experiments end to end at their smallest size, and what they do when stopped or misused."""

import argparse
import csv
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.evaluation.tables import TINY as TABLE_1
from examples.cityscapes.experiments.inits import STARTS, agree_from
from examples.cityscapes.experiments.published import published_rows
from examples.cityscapes.experiments.recipe import command_line
from examples.cityscapes.experiments.results import summarize
from examples.cityscapes.experiments.runs import run_all
from examples.cityscapes.experiments.training import Training
from examples.cityscapes.flags import add_config_flags
from examples.cityscapes.training.log import read_log
from examples.common.checkpoint import read_checkpoint
from examples.common.lock import locked
from tests.examples.tiny_run import TINY, as_flags
from tests.examples.tiny_tree import write_tree

SMALLEST = as_flags({**TINY, "iterations": 2, "eval_every": 0})
FIGURES = ("semantic_iou", "semantic_iou_present", "instance_error_px", "depth_error_px")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


def status(arguments):
    """Run a command and return its exit status, also if argparse exits."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


@pytest.fixture(scope="module")
def table1(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("table1") / "out"
    assert status(["table1", "--out", out, "--data", tree, "--seeds", 2, *SMALLEST]) == 0
    return out


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# The published numbers


def test_the_rows_of_table_1_are_those_that_evaluate_shows():
    shown = {}
    for row in published_rows("table1"):
        weighting = row.training.weighting if len(row.training.tasks) > 1 else None
        figures = {name: float(text) for name, text in row.figures.items() if text}
        if not row.training.weighting.startswith("fixed"):
            shown[tuple(sorted(row.training.tasks)), weighting] = figures
    assert shown == TABLE_1


def test_each_training_is_run_once_though_several_rows_show_it():
    rows = [*published_rows("table1"), *published_rows("mcgill")]
    assert len(rows) == 13
    assert len({row.training for row in rows}) == 10
    points = [*published_rows("fig2a"), *published_rows("fig2b")]
    assert len(points) == 23
    assert len({row.training for row in points}) == 22  # both end at depth only


def test_weights_are_those_of_the_row():
    rows = {row.loss: row for row in published_rows("table1")}
    tasks = ("semantic", "instance", "depth")
    assert rows["approx optimal"].training == Training(tasks, "fixed:0.89,0.01,0.1")
    assert rows["unweighted sum"].training == Training(tasks, "equal")
    assert rows["depth only"].training == Training(("depth",), "equal")
    for row in published_rows("fig2a")[1:-2]:
        assert sum(map(float, row.weights.values())) == pytest.approx(1)


def test_published_numbers_are_those_of_the_paper():
    # Table 1 of Kendall, Gal and Cipolla (CVPR 2018): IoU in percent, then two errors in px.
    rows = [tuple(row.figures.values()) for row in published_rows("table1")]
    assert rows[0] == ("59.4", "", "")
    assert rows[3] == ("50.1", "3.79", "0.592")
    assert rows[-1] == ("63.4", "3.50", "0.522")


# Mean and spread


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9))
def test_the_spread_is_the_sample_standard_deviation(values):
    mean, spread, count = summarize(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-9)
    assert spread == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert count == len(values)


def test_a_single_seed_has_no_spread_and_no_seed_no_mean():
    assert summarize([2.5]) == (2.5, None, 1)
    assert summarize([None, 2.5]) == (2.5, None, 1)
    assert summarize([]) == (None, None, 0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 1))
def test_starts_agree_from_the_first_iteration_after_which_they_always_do(between, tolerance):
    first = agree_from(np.array(between), tolerance)
    agreeing = [k for k in range(len(between)) if all(d <= tolerance for d in between[k:])]
    assert first == (min(agreeing) if agreeing else None)


# The commands


def test_table_1_holds_mean_and_spread_of_its_runs(table1):
    runs = rows_of(table1 / "table1_runs.csv")
    assert len(runs) == 10 * 2
    lines = rows_of(table1 / "table1.csv")
    printed_rows = [*published_rows("table1"), *published_rows("mcgill")]
    assert [line["loss"] for line in lines] == [row.loss for row in printed_rows]
    for line, row in zip(lines, printed_rows, strict=True):
        own = [
            run
            for run in runs
            if run["tasks"] == "+".join(row.training.tasks)
            and run["weighting"] == row.training.weighting
        ]
        assert sorted(run["seed"] for run in own) == ["0", "1"]
        for figure in FIGURES:
            values = [float(run[figure]) for run in own if run[figure]]
            if not values:
                assert line[f"{figure}_mean"] == ""
                continue
            factor = 100 if figure.startswith("semantic") else 1
            values = [factor * value for value in values]
            assert float(line[f"{figure}_mean"]) == pytest.approx(statistics.fmean(values))
            assert float(line[f"{figure}_std"]) == pytest.approx(statistics.stdev(values))
    assert [line["published_semantic_iou"] for line in lines[-4:]] == [
        "55.40",
        "",
        "55.26",
        "56.44",
    ]


def test_the_page_shows_the_same_and_says_how_it_came_about_without_a_path(table1, tree):
    page = (table1 / "table1.md").read_text()
    depth_only = rows_of(table1 / "table1.csv")[2]
    mean, spread = (float(depth_only[f"depth_error_px_{kind}"]) for kind in ("mean", "std"))
    assert f"| {mean:.3f} ± {spread:.3f} (0.640) |" in page
    assert (table1 / "table1.png").read_bytes().startswith(b"\x89PNG")
    assert "](table1.png)" in page
    for word in ("--iterations 2", "--seeds 0,1", "--size 16x32", "torch", "0.522", "55.40"):
        assert word in page
    for folder in (table1, tree, Path.cwd()):
        assert str(folder) not in page


def test_the_command_of_a_recipe_gives_the_same_settings_again():
    given = {
        **{"crop": (16, 32), "scale": (0.7, 2.0), "aspp_rates": (4, 8), "clip_grad_norm": None},
        **{"flip": False, "learning_rate": 1e-3, "tasks": ("semantic", "depth")},
        **{"backbone_weights": "/home/me/resnet.pth", "data": Path("/home/me/scenes")},
    }
    command = command_line("train", given)
    assert "/home/me" not in command
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    add_config_flags(parser.add_argument)
    words = command.replace("\\\n", " ").split()[4:]
    found = vars(parser.parse_args(words))
    local = {"backbone_weights": "BACKBONE-WEIGHTS", "data": Path("DATA")}
    assert found == {**given, **local}


def test_every_run_has_the_settings_of_its_row(table1):
    for folder in (table1 / "runs").iterdir():
        config = load_config(folder)
        assert folder.name.startswith("+".join(config.tasks))
        assert config.iterations == 2
        assert len(read_log(folder / "metrics.jsonl")) == 2


def test_a_second_call_runs_only_what_is_missing(table1, tree, capsys):
    command = ["table1", "--out", table1, "--data", tree, "--seeds", 2, *SMALLEST]
    before = {p: p.stat().st_mtime_ns for p in table1.glob("runs/*/*.*")}
    page = (table1 / "table1.md").read_text()
    lost = table1 / "runs/depth_equal_seed1"
    shutil.rmtree(lost)
    assert status(command) == 0
    for path, time_ns in before.items():
        assert (path.stat().st_mtime_ns == time_ns) == (path.parent != lost)
    # The tables are those of an experiment that was never interrupted.
    again = (table1 / "table1.md").read_text()
    assert again.partition("## Recipe")[0] == page.partition("## Recipe")[0]


def test_other_settings_are_refused_and_named(table1, tree, capsys):
    before = sorted(table1.rglob("*"))
    command = ["table1", "--out", table1, "--data", tree, "--seeds", 2, *SMALLEST]
    for changed, words in (
        (["--iterations", 5], "iterations was 2 and is now 5"),
        (["--learning-rate", "0.5"], "learning_rate was 0.01 and is now 0.5"),
        (["--data", write_tree(tree.parent / "other")], "data was"),
    ):
        capsys.readouterr()
        assert status([*command, *changed]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert status(["inits", *command[1:]]) == 2
    assert "command was 'table1' and is now 'inits'" in capsys.readouterr().err
    assert sorted(table1.rglob("*")) == before


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (["--quick", "--preset", "demo"], "--quick"),
        (["--weighting", "equal"], "--weighting"),
        (["--seeds", "1,1"], "--seeds"),
        (["--seeds", "0"], "--seeds"),
        (["--seeds", "10000000000000000000"], "--seeds: should be how many, at most 1000"),
        (["--seeds", "1,9223372036854775808"], "--seed: should be below 2**63"),
        (["--iterations", "9223372036854775808"], "--iterations: should be below 2**63"),
        (["--workers", "0"], "--workers"),
        (["--batch-size", "0"], "--batch-size"),
        (["--data", "nowhere"], "nowhere"),
        (["--closed-form-momentum", "0.3"], "0.3 needs --estimator closed_form"),
        (["--estimator", "closed_form", "--sigma-init", "2"], "2 needs --estimator learned"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line_and_leaves_nothing(
    tmp_path, tree, capsys, bad, words
):
    assert status(["table1", "--out", tmp_path / "out", "--data", tree, *SMALLEST, *bad]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--estimator", "closed_form"), ("--closed-form-momentum", "0.3"), ("--sigma-init", "2")],
)
def test_inits_takes_no_flag_that_would_leave_its_starts_without_effect(
    tmp_path, tree, capsys, flag, value
):
    command = ["inits", "--out", tmp_path / "out", "--data", tree, *SMALLEST]
    assert status([*command, flag, value]) == 2
    assert f"unrecognized arguments: {flag}" in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(tmp_path, tree, capsys):
    (tmp_path / "thesis.txt").touch()
    assert status(["sweep", "--out", tmp_path, "--data", tree, *SMALLEST]) == 2
    assert "something other than an experiment" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_sweep_renders_its_scenes_and_plots_a_figure(tmp_path, monkeypatch, capsys):
    from examples.cityscapes.experiments import experiment

    monkeypatch.setattr(experiment, "SCENES", {"train": 4, "val": 2})
    out = tmp_path / "out"
    flags = as_flags({**TINY, "size": (32, 64), "iterations": 1})
    assert status(["sweep", "--out", out, "--figure", "b", "--seeds", "7,", *flags]) == 0
    assert len(list((out / "runs").iterdir())) == 11
    lines = rows_of(out / "sweep.csv")
    assert [(line["weight_instance"], line["weight_depth"]) for line in lines] == [
        tuple(row.weights.values()) for row in published_rows("fig2b")
    ]
    assert all(line["depth_error_px_std"] == "" for line in lines)
    assert all(line["depth_error_px_mean"] for line in lines[1:])
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "--figure b" in (out / "sweep.md").read_text()


def test_inits_start_where_they_say_and_report_their_difference(tmp_path, tree):
    out = tmp_path / "out"
    flags = as_flags({**TINY, "iterations": 6})
    assert status(["inits", "--out", out, "--data", tree, "--seeds", 1, *flags]) == 0
    logs = [
        read_log(out / f"runs/semantic+instance+depth_uncertainty_from_{s:g}_seed0/metrics.jsonl")
        for s in STARTS
    ]
    for line in rows_of(out / "inits.csv"):
        values = 2 * np.log([[x["sigma"][line["task"]] for x in log] for log in logs])
        np.testing.assert_allclose(values[:, 0], STARTS, atol=1e-5)
        assert float(line["difference_at_end"]) == pytest.approx(np.ptp(values[:, -1]))
        assert line["agree_within_0.1_from"] == ""  # six steps are too few
    assert (out / "inits.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "inits.md").read_text()
    assert "| seeds | 1 | 1 | 1 |" in page
    assert "| sigma² at the end, published | 0.075 | 20.4 | 3.25 |" in page


def test_the_plot_of_weights_holds_their_optimum(monkeypatch):
    from examples.cityscapes.experiments import plots

    drawn = []
    monkeypatch.setattr(plots, "png", lambda figure: drawn.append(figure) or b"")
    losses = [4.0, 2.0, None, 0.5]  # without labels, a step has no loss of the task
    log = [
        {"iteration": k, "loss": {"depth": loss}, "weight": {"depth": 2.0}}
        for k, loss in enumerate(losses)
    ]
    plots.draw_weights([log], ["depth"], "nll", window=2)
    learned, optimum = drawn[0].axes[0].lines
    assert list(learned.get_xdata()) == list(optimum.get_xdata()) == [0, 1, 3]
    assert list(learned.get_ydata()) == [2, 2, 2]
    # c is 1 for the Laplace loss of depth: 1 / 4, 1 / mean(4, 2) and 1 / mean(2, 0.5).
    np.testing.assert_allclose(optimum.get_ydata(), [1 / 4, 1 / 3, 1 / 1.25])


@pytest.mark.parametrize(
    ("unfinished", "workers", "cores", "expected"),
    [
        (5, 2, 8, 4),  # more runs than workers
        (3, 8, 8, 2),  # fewer
        (1, 8, 8, 8),
        (1, 1, 1, 1),
        (4, 4, 2, 1),  # more workers than cores
        (0, 4, 2, None),
    ],
)
def test_the_runs_that_train_side_by_side_share_out_the_cores(
    tmp_path, monkeypatch, unfinished, workers, cores, expected
):
    def start(config, num_threads):
        """Return what stands for a process that has finished its run."""
        threads.append(num_threads)
        (config.out / "figures.json").touch()
        sentinel, other = os.pipe()
        os.close(other)  # which makes the sentinel readable
        return SimpleNamespace(sentinel=sentinel, join=lambda: os.close(sentinel))

    threads = []
    monkeypatch.setattr("examples.cityscapes.experiments.runs.start", start)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    configs = []
    for number in range(unfinished + 2):
        configs.append(TrainConfig(data=tmp_path, out=tmp_path / str(number), **TINY))
        configs[-1].out.mkdir()
        if number >= unfinished:
            (configs[-1].out / "figures.json").touch()
    assert run_all(configs, workers) == {}
    assert threads == [expected] * unfinished


# Failures and interruptions


def test_a_failing_run_is_shown_and_the_others_are_kept(table1, tree, tmp_path, capsys):
    shutil.copytree(table1, out := tmp_path / "out")
    command = ["table1", "--out", out, "--data", tree, "--seeds", 2, *SMALLEST]
    broken = out / "runs/depth_equal_seed1"
    (broken / "figures.json").unlink()
    (broken / "last.pt").write_bytes(b"half a checkpoi")
    assert status(command) == 1
    error = capsys.readouterr().err
    assert f"{broken}: error: " in error
    assert "not a readable checkpoint" in error
    assert "error: 1 of 20 runs failed" in error
    page = (out / "table1.md").read_text()
    assert "missing above**: `depth_equal_seed1`." in page
    assert str(out) not in page
    seeds = {line["loss"]: line["depth_error_px_n"] for line in rows_of(out / "table1.csv")}
    assert (seeds["depth only"], seeds["unweighted sum"]) == ("1", "2")
    shutil.rmtree(broken)
    assert status(command) == 0
    assert "ailed" not in (out / "table1.md").read_text()


def start_sweep(out, tree, iterations):
    """Start a sweep in a process group of its own, and wait until its first run has begun."""
    flags = [*as_flags({**TINY, "iterations": iterations}), "--workers", "1"]
    words = ["sweep", "--figure", "b", "--out", out, "--data", tree, "--seeds", "1", *flags]
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "examples.cityscapes", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run = out / "runs/instance_equal_seed0"
    while not (run / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    return process, run


@pytest.fixture
def heeded_interrupt():
    # A shell starts its background jobs deaf to SIGINT, and their children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_interrupt")
def test_an_interrupted_experiment_saves_and_goes_on(tmp_path, tree):
    process, run = start_sweep(tmp_path / "out", tree, iterations=150)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted with 0 of 11 runs finished; the same command goes on" in error
    before = read_log(run / "metrics.jsonl")
    assert len(before) == read_checkpoint(run / "last.pt")["iteration"] < 150
    assert run_all([load_config(run)], workers=1) == {}
    after = read_log(run / "metrics.jsonl")
    assert len(after) == 150
    assert after[: len(before)] == before
    assert (run / "figures.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_experiment_that_is_ended_from_outside_says_how_to_go_on(tmp_path, tree, number):
    process, run = start_sweep(tmp_path / "out", tree, iterations=10**6)
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number  # as shells report it
    assert "interrupted with 0 of 11 runs finished; the same command goes on" in error
    assert read_checkpoint(run / "last.pt")["iteration"] > 0


def test_runs_of_a_killed_experiment_save_and_end_by_themselves(tmp_path, tree):
    process, run = start_sweep(tmp_path / "out", tree, iterations=10**6)
    process.kill()
    process.communicate(timeout=120)  # the runs have the same stderr: it ends when they have
    assert "stopped after" in (run / "log.txt").read_text()
    assert read_checkpoint(run / "last.pt")["iteration"] > 0


def test_one_folder_takes_one_experiment_at_a_time(table1, tree, capsys):
    with locked(table1):
        assert status(["table1", "--out", table1, "--data", tree, *SMALLEST]) == 2
    assert "another command writes there" in capsys.readouterr().err
