"""The two-task table: its published rows, its arithmetic, and the command at its smallest size."""

import csv
import json
import shutil
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import load_config
from examples.cityscapes.experiments import experiment
from examples.cityscapes.experiments.delta_m import FIGURES, delta_m
from examples.cityscapes.experiments.interval import interval
from examples.cityscapes.experiments.methods import methods
from examples.cityscapes.experiments.published import published_lines
from examples.cityscapes.experiments.results import cell
from examples.cityscapes.experiments.training import config_of, shared_settings
from examples.rendered_scenes import synthesize
from tests.examples.array_tree import write_arrays
from tests.examples.tiny_run import TINY, as_flags

SIZE = (32, 64)
SMALLEST = [*as_flags({**TINY, "size": SIZE, "iterations": 2}), "--temperatures", "5"]
SINGLE = ("semantic_equal", "depth_equal")


def status(arguments):
    """Run a command and return its exit status, also if argparse exits."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / "official"
    synthesize(out, train=4, val=2, size=SIZE, seed=0)
    return out


@pytest.fixture(scope="module")
def arrays(official, tmp_path_factory):
    return write_arrays(official, tmp_path_factory.mktemp("arrays"))


@pytest.fixture(scope="module")
def table(official, tmp_path_factory):
    out = tmp_path_factory.mktemp("table") / "out"
    command = ["two_task", "--out", out, "--data", official, "--seeds", "2", "--workers", "1"]
    assert status([*command, *SMALLEST]) == 0
    return out


# Arithmetic


def test_the_published_delta_m_follows_from_the_published_figures():
    columns = ("iou_pct", "accuracy_pct", "abs_error", "rel_error")
    base, *rows = (
        ({f: float(row[c]) for f, c in zip(FIGURES, columns, strict=True)}, row["delta_m_pct"])
        for row in published_lines("two_task")
    )
    assert len(rows) == 12
    for figures, printed in rows:
        # Four digits of an absolute error are worth 0.1 of a percent.
        assert delta_m(figures, base[0]) == pytest.approx(float(printed), abs=0.11)


def test_delta_m_counts_what_is_worse_as_positive_whatever_is_better():
    base = {
        "semantic_iou": 50.0,
        "semantic_pixel_accuracy": 80.0,
        "depth_abs_error": 0.4,
        "depth_rel_error": 0.2,
    }
    worse = {
        "semantic_iou": 45.0,  # 10% worse
        "semantic_pixel_accuracy": 84.0,  # 5% better
        "depth_abs_error": 0.5,  # 25% worse
        "depth_rel_error": 0.18,  # 10% better
    }
    assert delta_m(worse, base) == pytest.approx((10 - 5 + 25 - 10) / 4)
    assert delta_m(base, base) == 0
    assert delta_m({**worse, "semantic_iou": None}, base) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9, unique=True))
def test_the_interval_is_that_of_the_t_test(values):
    found = interval([*values, None])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean - found.half_width == pytest.approx(expected.low, rel=1e-6, abs=1e-6)
    assert found.mean + found.half_width == pytest.approx(expected.high, rel=1e-6, abs=1e-6)
    assert found.num_values == len(values)


def test_a_single_run_has_no_interval():
    assert interval([2.5]) == (2.5, None, 1)
    assert interval([]) == (None, None, 0)
    assert cell(interval([2.5]), 1) == "2.5"
    assert cell(interval([None]), 1) == ""
    assert cell(interval([-1e-15]), 2) == "0.00"


def test_every_method_has_names_of_its_own_and_a_published_row_where_it_says_so():
    rows = methods((1.0, 5.0))
    trainings = [training for method in rows for training in method.trainings]
    assert len({training.name for training in trainings}) == len(trainings) == 8
    published = {line["method"] for line in published_lines("two_task")}
    assert {method.published for method in rows} - {""} == {"STL", "LS", "UW", "RLW"}
    assert {method.published for method in rows} - {""} <= published


def test_every_row_has_the_settings_about_sigma_that_it_uses():
    given = {**TINY, "protocol": "two-task", "sigma_init": "2", "form": "nll"}
    settings = shared_settings(given)
    used = {"equal": ("data", "symmetric"), "random": ("data", "symmetric")}
    for method in methods((5.0,)):
        for training in method.trainings:
            config = config_of(training, 0, settings, Path("data"), Path("runs"))
            learned = ("2" if config.estimator == "learned" else "data", "nll")
            expected = used.get(config.weighting, learned)
            assert (config.sigma_init, config.form) == expected, training.name


# The command


def test_the_table_holds_means_intervals_and_delta_m_of_its_runs(table):
    runs = rows_of(table / "two_task_runs.csv")
    assert len(runs) == 7 * 2
    lines = {line["method"]: line for line in rows_of(table / "two_task.csv")}
    assert list(lines) == [
        "single tasks",
        "equal weights",
        "learned weights",
        "closed form",
        "UW-SO, T = 5",
        "random weights",
    ]

    def of(figure, **wanted):
        chosen = [r for r in runs if all(r[k] == v for k, v in wanted.items()) and r[figure]]
        factor = 100 if figure.startswith("semantic") else 1
        return [factor * float(run[figure]) for run in chosen]

    singles = {
        figure: of(figure, tasks=figure.partition("_")[0], weighting="equal") for figure in FIGURES
    }
    base = {figure: statistics.fmean(values) for figure, values in singles.items()}
    for name, wanted in {
        "single tasks": None,
        "equal weights": {"weighting": "equal"},
        "learned weights": {"weighting": "uncertainty", "variant": ""},
        "closed form": {"variant": "closed_form"},
        "UW-SO, T = 5": {"variant": "uw_so_5"},
        "random weights": {"weighting": "random"},
    }.items():
        values = {
            figure: singles[figure]
            if wanted is None
            else of(figure, tasks="semantic+depth", **wanted)
            for figure in FIGURES
        }
        changes = []
        for iou, accuracy, error, relative in zip(*values.values(), strict=True):
            better = iou / base["semantic_iou"] + accuracy / base["semantic_pixel_accuracy"]
            worse = error / base["depth_abs_error"] + relative / base["depth_rel_error"]
            changes.append(100 * (worse - better) / 4)
        for figure, found in {**values, "delta_m": changes}.items():
            assert len(found) == 2
            expected = stats.ttest_1samp(found, 0).confidence_interval(0.95)
            half = (expected.high - expected.low) / 2
            line = lines[name]
            assert float(line[f"{figure}_mean"]) == pytest.approx(statistics.fmean(found), abs=1e-6)
            assert float(line[f"{figure}_half_width"]) == pytest.approx(half, abs=1e-6)
    assert lines["learned weights"]["published_delta_m"] == "5.89"
    assert lines["closed form"]["published_delta_m"] == ""


def test_every_run_has_the_settings_of_its_row(table):
    configs = {folder.name: load_config(folder) for folder in (table / "runs").iterdir()}
    assert {config.protocol for config in configs.values()} == {"two-task"}
    assert {c.tasks for name, c in configs.items() if not name.startswith(SINGLE)} == {
        ("semantic", "depth")
    }
    learned = configs["semantic+depth_uncertainty_seed0"]
    closed = configs["semantic+depth_uncertainty_closed_form_seed0"]
    softmax = configs["semantic+depth_uncertainty_uw_so_5_seed1"]
    assert (learned.estimator, learned.constraint) == ("learned", "none")
    assert (closed.estimator, closed.closed_form_momentum) == ("closed_form", 0.1)
    assert (softmax.estimator, softmax.closed_form_momentum) == ("closed_form", 1.0)
    assert (softmax.constraint, softmax.temperature) == ("softmax", 5.0)
    assert configs["semantic+depth_random_seed1"].weighting == "random"


def test_the_page_shows_ours_beside_the_published_rows_with_their_sources(table, official):
    page = (table / "two_task.md").read_text()
    lines = rows_of(table / "two_task.csv")
    ours = page.splitlines()
    at = next(k for k, line in enumerate(ours) if line.startswith("| learned weights |"))
    mean, half = (float(lines[2][f"depth_abs_error_{kind}"]) for kind in ("mean", "half_width"))
    assert f"| {mean:.4f} ± {half:.4f} |" in ours[at]
    assert ours[at + 1] == "| *UW* | Nash-MTL paper | 3 | 72.02 | 92.85 | 0.0140 | 30.13 | 5.89 |"
    for word in ("2202.01017", "*FAMO*", "t-interval", "--temperatures 5", "protocol two-task"):
        assert word in page
    assert str(table) not in page
    assert str(official) not in page
    assert (table / "two_task.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_adds_only_what_is_new(table, official, tmp_path):
    shutil.copytree(table, out := tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/figures.json")}
    command = ["two_task", "--out", out, "--data", official, "--seeds", "2", "--workers", "1"]
    assert status([*command, *SMALLEST[:-1], "5,9"]) == 0
    after = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/figures.json")}
    new = after.keys() - before.keys()
    assert {p.parent.name for p in new} == {
        f"semantic+depth_uncertainty_uw_so_9_seed{seed}" for seed in (0, 1)
    }
    assert {p: after[p] for p in before} == before


def test_arrays_of_the_same_scenes_give_the_same_figures(table, arrays, tmp_path):
    out = tmp_path / "out"
    command = ["two_task", "--out", out, "--data", arrays, "--seeds", "1", "--workers", "1"]
    assert status([*command, *SMALLEST]) == 0
    of_files = [run for run in rows_of(table / "two_task_runs.csv") if run["seed"] == "0"]
    for one, other in zip(of_files, rows_of(out / "two_task_runs.csv"), strict=True):
        for figure in FIGURES:
            assert bool(one[figure]) == bool(other[figure])
            if one[figure]:
                assert float(other[figure]) == pytest.approx(float(one[figure]), rel=1e-4)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (["--temperatures", "0"], "--temperatures"),
        (["--temperatures", "5,5"], "--temperatures"),
        (["--protocol", "three-task"], "--protocol"),
        (["--estimator", "closed_form"], "--estimator"),
        (["--closed-form-momentum", "0.3"], "--closed-form-momentum"),
        (["--size", "16x32"], "is 32x64 (height x width)"),
        (["--form", "liebel_koerner"], "--constraint: softmax does not go with"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line_and_leaves_nothing(
    tmp_path, arrays, capsys, bad, words
):
    command = ["two_task", "--out", tmp_path / "out", "--data", arrays, "--seeds", "1", *SMALLEST]
    assert status([*command, *bad]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_arrays_are_refused_by_the_three_task_table(tmp_path, arrays, capsys):
    flags = as_flags({**TINY, "size": SIZE, "iterations": 2})
    assert status(["table1", "--out", tmp_path / "out", "--data", arrays, *flags]) == 2
    assert "need --protocol two-task" in capsys.readouterr().err


def test_an_experiment_from_before_there_were_protocols_goes_on(tmp_path, official, monkeypatch):
    monkeypatch.setattr(experiment, "run_all", lambda configs, workers: {})
    out, flags = tmp_path / "out", as_flags({**TINY, "size": SIZE})
    command = ["table1", "--out", out, "--data", official, *flags]
    assert status(command) == 0
    path = out / "experiment.json"
    recorded = json.loads(path.read_text())
    assert recorded.pop("protocol") == "three-task"
    assert recorded.pop("temperature") is None
    path.write_text(json.dumps(recorded))
    assert status(command) == 0
    assert status([*command, "--learning-rate", "0.5"]) == 2
