"""The configuration that the command line of `train` asks for."""

from pathlib import Path
from typing import Any

from examples.cityscapes.config import TrainConfig, new_config, read_fields, resume_config
from examples.common.errors import InputError


def asked_config(given: dict[str, Any], *, resume: bool, file: Path | None) -> TrainConfig:
    """Return the configuration of a run that is started or resumed.

    Args:
        given: The fields that have a flag on the command line.
        resume: Whether the run in `out` is resumed.
        file: The config.json of another run, whose fields hold where no flag is given. Its `out`
            is not taken over.
    """
    if "out" not in given:
        raise InputError("--out: needed, the folder of the run")
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
        fields = read_fields(file, "--config takes the config.json of a run")
        given = {**fields, **given}
    if "data" not in given:
        raise InputError("--data: needed, unless a run is resumed or --config names a dataset")
    return new_config(given)
