"""The configuration that the command line of `train` asks for."""

import dataclasses
from pathlib import Path
from typing import Any

from examples.cityscapes.config import TrainConfig, load_config, new_config, read_fields, recorded
from examples.cityscapes.weighting import overridden
from examples.common.errors import InputError
from examples.common.flag_text import flag_of

_FREE_ON_RESUME = {
    "data",
    "iterations",
    "checkpoint_every",
    "eval_every",
    "tensorboard",
    "device",
    "num_workers",
    "cache_mb",
}


def asked_config(given: dict[str, Any], *, resume: bool, file: Path | None) -> TrainConfig:
    """Return the configuration of a run that is started or resumed.

    Args:
        given: The fields that have a flag on the command line.
        resume: Whether the run in `out` is resumed.
        file: The config.json of another run. It supplies the fields for which no flag is given,
            except for `out`, and for settings about sigma that the flags leave without effect.
    """
    if "out" not in given:
        raise InputError("--out: required; give the folder of the run")
    if resume:
        if file is not None:
            raise InputError("--config: a resumed run keeps its own settings; leave out one flag")
        return resume_config(given["out"], given)
    if file is not None:
        if "preset" in given:
            raise InputError(
                f"--preset: cannot be combined with --config, as {file} has a value for every "
                "setting; leave out one of the flags"
            )
        given = overridden(read_fields(file, "--config takes the config.json of a run"), given)
    if "data" not in given:
        raise InputError("--data: required, unless a run is resumed or --config names a dataset")
    return new_config(given)


def resume_config(run: Path, given: dict[str, Any]) -> TrainConfig:
    """Return a run's configuration with the flags `given` on resuming it.

    Only what does not change the weights may differ from the recorded run, and `iterations`, which
    stretches the schedule.
    """
    before = load_config(run)
    for name, value in given.items():
        was = getattr(before, name)
        is_same = recorded(name, value) == recorded(name, was)
        if name not in _FREE_ON_RESUME and name != "out" and not is_same:
            raise InputError(
                f"{flag_of(name)}: {run} was started with {was!r}; "
                f"--resume cannot change it to {value!r}"
            )
    if "data" not in given and not before.data.is_dir():
        # Older runs recorded what they were given.
        from_here = "" if before.data.is_absolute() else " from this folder"
        raise InputError(
            f"{run / 'config.json'}: the run was started on {before.data}, which is not there"
            f"{from_here}; pass the dataset by --data"
        )
    return dataclasses.replace(before, **{**given, "out": run})
