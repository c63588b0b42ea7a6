"""Rows about commands and their options."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.examples.bad_inputs.row import Accepted, Refused


def nothing() -> None:
    """Leave everything as it is."""


def metrics() -> dict[str, Any]:
    """Return the figures of the run."""
    return json.loads(Path("run/metrics.json").read_text())


# Evaluation: what is optional stays blank.


def forget_metrics() -> None:
    """Remove the figures of an earlier evaluation."""
    Path("run/metrics.json").unlink()


def move_source() -> None:
    """Let the prepared copy have been made from a dataset that is not there any more."""
    forget_metrics()
    path = Path("copy/manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "source": "/moved/away"}))


def start_from_a_lost_file() -> None:
    """Record that the run started from weights that are gone since."""
    forget_metrics()
    path = Path("run/config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "backbone_weights": "lost.pt"}))


def remove_training_split() -> None:
    """Leave the validation split."""
    forget_metrics()
    shutil.rmtree("scenes/leftImg8bit/train")


def all_is_measured() -> None:
    """Assert that neither the network's figures nor those of a baseline are missing."""
    for column in (metrics(), metrics()["position_prior"], metrics()["untrained"]):
        assert column["semantic_iiou"] is not None
        assert column["depth_error_px"] is not None


def untrained_is_blank() -> None:
    """Assert that only the figures of the untrained network are missing."""
    assert metrics()["semantic_iou"] is not None
    assert metrics()["position_prior"]["semantic_iou"] is not None
    assert metrics()["untrained"]["semantic_iou"] is None


def prior_is_blank() -> None:
    """Assert that only the figures of the position prior are missing."""
    assert metrics()["semantic_iou"] is not None
    assert metrics()["untrained"]["semantic_iou"] is not None
    assert metrics()["position_prior"]["depth_error_px"] is None


EVALUATION: list[Refused | Accepted] = [
    Accepted(
        what="`evaluate` on a prepared copy whose source was moved",
        spoil=move_source,
        command="evaluate --run run --data copy --device cpu",
        rule="the copy holds all that is measured",
        check=all_is_measured,
    ),
    Accepted(
        what="`evaluate` for a run whose `--backbone-weights` were deleted since",
        spoil=start_from_a_lost_file,
        command="evaluate --run run --data scenes --device cpu",
        rule="the column of the untrained network stays blank, after a warning",
        check=untrained_is_blank,
    ),
    Accepted(
        what="`evaluate` on data without a training split",
        spoil=remove_training_split,
        command="evaluate --run run --data scenes --device cpu",
        rule="the column of the position prior stays blank, after a warning",
        check=prior_is_blank,
    ),
    Refused(
        what="`evaluate --official` on a prepared copy",
        spoil=nothing,
        command="evaluate --run run --data copy --device cpu --official",
        line="--official: copy is a prepared copy, but the official scripts compare at the size of "
        "the original images; give --data ...scenes",
    ),
]

COMMANDS: list[Refused | Accepted] = [*EVALUATION]
