"""Which settings go with a way to weigh the losses, and which ones it has no use for."""

import dataclasses
import math
from typing import Any

from examples.cityscapes.settings import (
    CONSTRAINTS,
    DEPTH_NOISE,
    ESTIMATORS,
    FORMS,
    are_learned,
    check_choices,
    fixed_weights,
    initial_sigma,
)
from examples.common.errors import InputError
from examples.common.flag_text import flag_of

Settings = dict[str, Any]
"""All fields of a `TrainConfig` by name."""

_LEARNED_ONLY = (
    "depth_noise",  # before `form`, which follows from it if it is not given
    "estimator",
    "closed_form_momentum",
    "form",
    "constraint",
    "temperature",
    "sigma_init",
)


def unmet_needs(fields: Settings) -> dict[str, str]:
    """Return the settings that are without effect, and what each would need to have one."""
    if not are_learned(fields["weighting"]):
        return dict.fromkeys(_LEARNED_ONLY, f"--weighting uncertainty; found {fields['weighting']}")
    needs = {}
    if "depth" not in fields["tasks"]:
        needs["depth_noise"] = f"the task depth in --tasks; found {','.join(fields['tasks'])}"
    has_noise = fields["depth_noise"] == "per-pixel" and not needs
    if fields["estimator"] != "closed_form":
        needs["closed_form_momentum"] = f"--estimator closed_form; found {fields['estimator']}"
    elif not has_noise:  # which starts at `sigma_init` for every estimator
        needs["sigma_init"] = "--estimator learned; found closed_form"
    if fields["constraint"] != "softmax":
        needs["temperature"] = f"--constraint softmax; found {fields['constraint']}"
    return needs


def overridden(fields: Settings, given: Settings) -> Settings:
    """Return `fields` overridden by those `given`, without those that then have no effect.

    A field that is `given` stays in any case: `check_weighting` refuses it if it has no effect.
    """
    both = {**fields, **given}
    unused = unmet_needs(both).keys() - given.keys()
    return {name: value for name, value in both.items() if name not in unused}


def check_weighting(config: Any) -> None:
    """Raise unless the settings about weights and sigma are in range and go together."""
    check_choices("--estimator", (config.estimator,), ESTIMATORS)
    check_choices("--form", (config.form,), FORMS)
    check_choices("--constraint", (config.constraint,), CONSTRAINTS)
    check_choices("--depth-noise", (config.depth_noise,), DEPTH_NOISE)
    initial_sigma(config.sigma_init)
    fixed_weights(config.weighting, config.tasks)
    if not 0 < config.closed_form_momentum <= 1:
        raise InputError(
            f"--closed-form-momentum: should be above 0 and at most 1; "
            f"found {config.closed_form_momentum}"
        )
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name, need in unmet_needs(vars(config)).items():
        if (value := getattr(config, name)) != defaults[name]:
            raise InputError(f"{flag_of(name)}: {value} needs {need}")
    if config.form == "liebel_koerner" and config.constraint != "none":
        raise InputError(
            f"--constraint: {config.constraint} does not go with --form liebel_koerner, whose "
            "penalty is not the logarithm of its weight"
        )
    if config.constraint == "softmax":
        _check_softmax(config)
    if config.depth_noise == "per-pixel":
        # Its scale is inside of the likelihood, where no other form and no constraint reaches it.
        for name, needed in (("form", "nll"), ("constraint", "none")):
            if (found := getattr(config, name)) != needed:
                raise InputError(
                    f"--depth-noise: per-pixel needs {flag_of(name)} {needed}; found {found}"
                )


def _check_softmax(config: Any) -> None:
    if config.estimator != "closed_form":
        raise InputError(
            f"--constraint: softmax needs --estimator closed_form; found {config.estimator}"
        )
    if config.temperature is None:
        raise InputError("--temperature: required by --constraint softmax, such as 5")
    if not 0 < config.temperature < math.inf:
        raise InputError(f"--temperature: should be above 0; found {config.temperature}")
