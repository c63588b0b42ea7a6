"""Runs that begin with another run's weights (`--init-from`) or settings (`--config`)."""

import dataclasses
import json
import shutil

import pytest
import torch

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import TrainConfig, load_config, to_json
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.evaluation.predictors import baselines, by_network
from examples.cityscapes.model.start import initial_model, start_model
from examples.cityscapes.training import train as training
from examples.cityscapes.training.asked_config import asked_config
from examples.cityscapes.training.log import read_log
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from tests.examples.tiny_run import TINY, as_flags, assert_same
from tests.examples.tiny_tree import write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def first(tree, tmp_path_factory):
    """A finished run, whose best checkpoint is not its last."""
    out = tmp_path_factory.mktemp("runs") / "first"
    config = TrainConfig(data=tree, out=out, **{**TINY, "eval_every": 4})
    training.train(config)
    shutil.copy(out / "last.pt", out / "best.pt")
    saved = read_checkpoint(out / "best.pt")
    saved["model"]["decoders.depth.1.bias"] += 1
    torch.save(saved, out / "best.pt")
    return config


@pytest.fixture
def second(first, tmp_path):
    """A run of other settings that starts from the first one."""
    return dataclasses.replace(
        first, out=tmp_path / "second", init_from=first.out, seed=7, eval_every=0
    )


def start(config):
    """Return the weights of a run before its first iteration."""
    model, _ = start_model(config, CityscapesDataset(config.data, "train", config.size, ()))
    return model.state_dict()


def status(arguments):
    """Run a command as the shell would see it."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def test_a_run_starts_with_the_weights_of_another(first, second):
    assert_same(dict(start(second)), dict(read_checkpoint(first.out / "last.pt")["model"]))
    best = dataclasses.replace(second, init_from=first.out / "best.pt")
    assert_same(dict(start(best)), dict(read_checkpoint(first.out / "best.pt")["model"]))


def test_its_untrained_network_is_that_of_the_other_run(first, second):
    cpu = torch.device("cpu")
    image = torch.randint(0, 256, (1, 3, *first.size), dtype=torch.uint8)
    untrained = baselines(second, first.data, cpu)["untrained"](image)
    assert_same(untrained, by_network(load_trained(first), cpu)(image))


def test_nothing_but_the_weights_is_taken(first, second):
    # So small a rate that no weight changes, but for the statistics of batch norm.
    training.train(dataclasses.replace(second, learning_rate=1e-30, weight_decay=0, iterations=3))
    before, after = (read_checkpoint(c.out / "last.pt")["model"] for c in (first, second))
    assert all(torch.equal(after[n], v) for n, v in before.items() if v.ndim > 1)
    lines = read_log(second.out / "metrics.jsonl")
    assert [line["iteration"] for line in lines] == [0, 1, 2]
    assert lines[0]["learning_rate"] == 1e-30
    for task, loss in lines[0]["loss"].items():
        # The symmetric form is lowest where weight times loss is 1: the start from data.
        assert lines[0]["weight"][task] * loss == pytest.approx(1, rel=1e-3)


def test_an_interrupted_run_resumes_bit_by_bit_even_when_the_first_run_is_gone(
    first, second, tmp_path, monkeypatch
):
    shutil.copytree(first.out, source := tmp_path / "source")
    second = dataclasses.replace(second, init_from=source, checkpoint_every=3)
    training.train(second)
    again = dataclasses.replace(second, out=tmp_path / "again")

    def stop_at_five(state, parts, config, iteration, log, step=training.train_one_step):
        if iteration == 5:
            raise KeyboardInterrupt
        step(state, parts, config, iteration, log)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_one_step", stop_at_five)
        with pytest.raises(KeyboardInterrupt):
            training.train(again)
    shutil.rmtree(source)
    assert load_config(again.out) == again
    assert status(["train", "--out", again.out, "--resume"]) == 0
    assert_same(*(read_checkpoint(c.out / "last.pt") for c in (second, again)))
    assert_same(*(read_log(c.out / "metrics.jsonl") for c in (second, again)))


def test_weights_of_other_tasks_are_refused_and_the_first_is_named(first, second, tmp_path):
    training.train(dataclasses.replace(first, tasks=("semantic",), out=tmp_path / "one"))
    config = dataclasses.replace(second, init_from=tmp_path / "one")
    with pytest.raises(InputError, match=r"decoders\.instance.* missing\); --init-partly takes"):
        start(config)
    wider = dataclasses.replace(second, decoder_channels=5)
    with pytest.raises(InputError, match=r"last\.pt does not fit .* has shape"):
        training.train(wider)
    assert not wider.out.exists()


def test_on_request_the_weights_that_fit_are_taken_and_the_others_listed(
    first, second, tmp_path, capsys
):
    training.train(dataclasses.replace(first, tasks=("semantic",), out=tmp_path / "one"))
    config = dataclasses.replace(
        second, tasks=("semantic", "depth"), init_from=tmp_path / "one", init_partly=True
    )
    capsys.readouterr()
    found = start(config)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--init-partly: started as without --init-from: decoders.depth (")
    assert line.endswith("; not taken: nothing")
    source = read_checkpoint(tmp_path / "one/last.pt")["model"]
    own = initial_model(config, None, None).state_dict()
    for name, value in found.items():
        assert torch.equal(value, (source if name in source else own)[name]), name
    assert sum(name not in source for name in found) == 8  # a convolution, batch norm, the last one
    wider = dataclasses.replace(config, decoder_channels=5)
    start(wider)
    said = capsys.readouterr().err
    assert "decoders.semantic (" in said.partition("not taken")[2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "last.pt").unlink(), r"last\.pt not found; give the folder of a run"),
        (lambda run: torch.save({"a": 1}, run / "last.pt"), "holds no weights"),
        (lambda run: (run / "last.pt").write_bytes(b"noise"), "not a readable checkpoint"),
    ],
    ids=["absent", "other", "damaged"],
)
def test_a_run_without_usable_weights_is_refused(first, second, tmp_path, spoil, message):
    shutil.copytree(first.out, source := tmp_path / "source")
    spoil(source)
    with pytest.raises(InputError, match=message):
        training.train(dataclasses.replace(second, init_from=source))
    assert not second.out.exists()


def test_partly_alone_makes_no_sense(first):
    with pytest.raises(InputError, match="--init-partly: needs --init-from"):
        dataclasses.replace(first, init_partly=True)


def test_a_configuration_is_taken_over_and_flags_override_it(first, tmp_path):
    out = tmp_path / "run"
    file = first.out / "config.json"
    flags = as_flags({"iterations": 2, "learning_rate": 0.5})
    assert status(["train", "--config", file, "--out", out, *flags]) == 0
    expected = dataclasses.replace(first, out=out, iterations=2, learning_rate=0.5)
    assert load_config(out) == expected
    assert len(read_log(out / "metrics.jsonl")) == 2


def test_the_same_configuration_makes_the_same_run(first, tmp_path):
    out = tmp_path / "run"
    assert status(["train", "--config", first.out / "config.json", "--out", out]) == 0
    assert_same(*(read_log(o / "metrics.jsonl") for o in (first.out, out)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume"], "--config: a resumed run keeps its own settings"),
        (["--preset", "demo"], "--preset: cannot be combined with --config"),
        (["--crop", "8"], "--crop: should be HEIGHTxWIDTH"),
        (["--size", "0x256"], "--size: should be HEIGHTxWIDTH"),
        (["--crop", "64x64"], "--crop: 64x64 does not fit"),
    ],
    ids=["resume", "preset", "type", "zero", "range"],
)
def test_a_flag_that_does_not_go_with_a_configuration_is_refused(
    first, tmp_path, capsys, flags, message
):
    out = tmp_path / "run"
    file = first.out / "config.json"
    assert status(["train", "--config", file, "--out", out, *flags]) == 2
    assert message.partition(":")[0] in (said := capsys.readouterr().err)
    assert message.partition(": ")[2] in said
    assert not out.exists()


CLOSED_FORM = {"estimator": "closed_form"}


@pytest.mark.parametrize(
    ("sigma", "given", "kept"),
    [
        *(
            (sigma, {"weighting": weighting}, {})
            for weighting in ("equal", "random", "fixed:1,2,3")
            for sigma in (
                {**CLOSED_FORM, "closed_form_momentum": 0.3},
                {**CLOSED_FORM, "constraint": "softmax", "temperature": 2.0},
                {"form": "nll", "depth_noise": "per-pixel"},
                {"constraint": "unit_sum", "sigma_init": "2"},
            )
        ),
        ({"weighting": "equal"}, {"weighting": "uncertainty"}, {}),
        ({**CLOSED_FORM, "closed_form_momentum": 0.3}, {"estimator": "learned"}, {}),
        ({"sigma_init": "2", "form": "nll"}, CLOSED_FORM, {"form": "nll"}),
        (
            {**CLOSED_FORM, "constraint": "softmax", "temperature": 2.0},
            {"constraint": "none"},
            CLOSED_FORM,
        ),
        (
            {"form": "nll", "depth_noise": "per-pixel"},
            {"tasks": ("semantic", "instance")},
            {"form": "nll"},
        ),
    ],
)
def test_flags_beside_a_configuration_leave_out_what_they_make_useless(
    first, tmp_path, sigma, given, kept
):
    file, out = tmp_path / "config.json", tmp_path / "run"
    file.write_text(to_json(dataclasses.replace(first, **sigma)))
    found = asked_config({**given, "out": out}, resume=False, file=file)
    assert found == dataclasses.replace(first, out=out, **{**kept, **given})


def test_what_an_older_version_recorded_without_using_it_is_not_taken_over(first, tmp_path):
    file, out = tmp_path / "config.json", tmp_path / "run"
    fields = json.loads(to_json(dataclasses.replace(first, weighting="equal")))
    file.write_text(json.dumps({**fields, "form": "nll", "sigma_init": "1"}))
    given = {"out": out, "weighting": "uncertainty"}
    assert asked_config(given, resume=False, file=file) == dataclasses.replace(first, out=out)


def test_a_useless_flag_beside_a_configuration_is_refused(first, tmp_path):
    given = {"out": tmp_path / "run", "weighting": "equal", "sigma_init": "2"}
    with pytest.raises(InputError, match="--sigma-init: 2 needs --weighting uncertainty"):
        asked_config(given, resume=False, file=first.out / "config.json")


def test_a_file_that_is_no_configuration_is_refused(first, tmp_path, capsys):
    file = tmp_path / "config.json"
    for text, reason in ((None, "cannot be read"), ("[]", "should be an object")):
        if text:
            file.write_text(text)
        assert status(["train", "--config", file, "--out", tmp_path / "run"]) == 2
        said = capsys.readouterr().err
        assert reason in said
        assert said.endswith("; --config takes the config.json of a run\n")
    fields = json.loads((first.out / "config.json").read_text())
    file.write_text(json.dumps({**fields, "iterations": 0}))
    assert status(["train", "--config", file, "--out", tmp_path / "run"]) == 2
    assert "--iterations: should be at least 1" in capsys.readouterr().err
