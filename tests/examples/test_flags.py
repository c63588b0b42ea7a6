"""Every field of the configuration has a flag, and presets only fill what is not given."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import get_type_hints

import pytest

from examples.cityscapes.config import TrainConfig, load_config, new_config, to_json
from examples.cityscapes.flags import add_config_flags, field_docstrings
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.presets import PRESETS
from examples.cityscapes.training.loaders import training_order
from examples.common.errors import InputError
from tests.examples.tiny_run import as_flags

# For every field a value that is not its default; `out` and `data` have none.
OTHER = {
    bool: lambda value: not value,
    int: lambda value: value + 2,
    float: lambda value: value / 2,
    tuple: lambda value: (*value[:-1], 64) if isinstance(value[0], int) else value[::-1],
}
CHOICES = {
    "precision": "bf16",
    "preset": "full",
    "weighting": "uncertainty",
    "estimator": "closed_form",
    "form": "symmetric",
    "constraint": "unit_sum",
    "sigma_init": "2",
    "backbone": "resnet18",
    "backbone_weights": "none",
    "optimizer": "adamw",
    "depth_noise": "per-pixel",
    "device": "cpu",
    "labels": "gtCoarse",
    "protocol": "two-task",
    "temperature": 5.0,
    "init_from": Path("runs/first"),
    "clip_grad_norm": 0.5,
    "accumulate": 2,
    "stages": 3,
    "output_stride": 16,
}


def parse(flags):
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS, allow_abbrev=False)
    add_config_flags(parser.add_argument)
    return vars(parser.parse_args([str(flag) for flag in flags]))


@pytest.mark.parametrize("field", dataclasses.fields(TrainConfig), ids=lambda field: field.name)
def test_every_field_can_be_given_and_arrives_as_it_was_meant(field):
    if field.name in ("data", "out"):
        value = Path("somewhere")
    elif field.name in CHOICES:
        value = CHOICES[field.name]
    elif field.default is None:
        pytest.skip("its type is not that of its default")
    else:
        value = OTHER[type(field.default)](field.default)
    assert parse(as_flags({field.name: value})) == {field.name: value}


EXPECTED = {
    int: "invalid int value: 'a,b'",
    float: "invalid float value: 'a,b'",
    float | None: "invalid float or none value: 'a,b'",
    tuple[int, int]: "should be HEIGHTxWIDTH, such as 128x256; found 'a,b'",
    tuple[int, int] | None: "should be HEIGHTxWIDTH, such as 128x256; found 'a,b'",
    tuple[int, ...]: "invalid list with commas value: 'a,b'",
    tuple[float, float]: "invalid list with commas value: 'a,b'",
}
NUMBERS = [name for name, kind in get_type_hints(TrainConfig).items() if kind in EXPECTED]


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_not_of_a_fields_type_is_refused_by_the_name_of_the_type(name, capsys):
    with pytest.raises(SystemExit):
        parse([f"--{name.replace('_', '-')}", "a,b"])
    assert capsys.readouterr().err.endswith(f"{EXPECTED[get_type_hints(TrainConfig)[name]]}\n")


WHOLE = [name for name, kind in get_type_hints(TrainConfig).items() if kind is int]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [2**63, 10**30])
def test_a_number_that_could_not_be_read_back_is_refused(name, value):
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')}: .* 2.*63; found {value}"):
        new_config({"data": Path("data"), "out": Path("run"), name: value})


def test_the_largest_seed_is_read_back_and_draws_random_numbers(tmp_path):
    largest = 2**63 - 1
    config = new_config({"data": tmp_path, "out": tmp_path, "seed": largest, "preset": "demo"})
    (tmp_path / "config.json").write_text(to_json(config))
    assert load_config(tmp_path).seed == largest
    initial_model(config, None, None)
    assert len(list(training_order(config, num_images=8, first=0))) == config.iterations


def test_what_is_not_given_is_left_to_the_preset():
    assert parse([]) == {}


def test_every_field_is_documented_in_its_help():
    texts = field_docstrings()
    assert set(texts) == {field.name for field in dataclasses.fields(TrainConfig)}
    assert all(text[0].isupper() or text[0] == "`" for text in texts.values())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_what_is_not_given_and_is_recorded(name, tmp_path):
    given = {
        "data": Path("data").absolute(),
        "out": tmp_path,
        "preset": name,
        "learning_rate": 0.01,
    }
    config = new_config(given)
    assert config.preset == name
    assert config.learning_rate == 0.01
    for field, value in PRESETS[name].items():
        assert getattr(config, field) == (0.01 if field == "learning_rate" else value)


def test_the_presets_are_those_of_section_5_of_the_paper():
    def settings(preset):
        config = new_config({"data": Path(), "out": Path(), "preset": preset})
        return config.iterations, config.batch_size, config.learning_rate, config.weight_decay

    assert settings("tiny") == (50_000, 8, 2.5e-3, 1e-4)
    assert settings("full") == (100_000, 16, 2.5e-3, 1e-4)


def test_a_run_from_before_there_were_coarse_labels_had_fine_ones(tmp_path):
    config = new_config({"data": Path("data").absolute(), "out": tmp_path})
    fields = json.loads(to_json(config))
    del fields["labels"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert load_config(tmp_path) == config
    assert config.labels == "gtFine"


def test_a_recorded_configuration_is_read_back_as_it_was(tmp_path):
    for name in PRESETS:
        config = new_config({"data": Path("data").absolute(), "out": tmp_path, "preset": name})
        (tmp_path / "config.json").write_text(to_json(config))
        assert load_config(tmp_path) == config
