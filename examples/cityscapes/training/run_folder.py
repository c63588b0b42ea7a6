"""The folder of a run: what may be there before it starts or goes on."""

import math
import sys
from pathlib import Path

from examples.cityscapes.config import TrainConfig, load_config, to_json
from examples.cityscapes.training.log import cut_log, read_log
from examples.cityscapes.training.state import Progress
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError


def check_run_folder(out: Path, resume: bool) -> None:
    """Raise if a run would be overwritten, or `out` cannot be a folder."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    if not resume and any((out / name).exists() for name in ("config.json", "last.pt")):
        raise InputError(f"--out: {out} already holds a run; go on with it by --resume")
    if resume and not (out / "last.pt").exists():
        _check_nothing_is_lost(out)


def _check_nothing_is_lost(out: Path) -> None:
    """Raise if the last checkpoint was lost, so that a new start would overwrite the logs."""
    if (out / "best.pt").exists():
        raise InputError(
            f"{out / 'last.pt'}: not found, but best.pt is there; copy best.pt to last.pt to "
            "continue from it, or start a new run in another --out"
        )
    config, trained = load_config(out), len(read_log(out / "metrics.jsonl"))
    first_save = min(config.checkpoint_every, config.eval_every or math.inf, config.iterations)
    # A run that was killed while it wrote its first checkpoint has left a part of it.
    is_first = trained == first_save and (out / "last.pt.partial").exists()
    if (trained >= first_save and not is_first) or (out / "metrics.json").exists():
        raise InputError(
            f"{out / 'last.pt'}: not found, though the logs have {trained} iterations and the run "
            f"saves its first checkpoint after {first_save}; restore last.pt from a copy, or start "
            "a new run in another --out"
        )


def check_not_beyond(config: TrainConfig, progress: Progress) -> None:
    """Raise if a resumed run has come further than it is asked to go."""
    if progress.iteration > config.iterations:
        raise InputError(
            f"--iterations: should be at least {progress.iteration}, which the run has already "
            f"had; found {config.iterations}"
        )


def prepare_run_folder(config: TrainConfig, progress: Progress) -> None:
    """Record the configuration, and drop what was logged after the checkpoint."""
    config.out.mkdir(parents=True, exist_ok=True)
    if (config.out / "config.json").exists() and not (config.out / "last.pt").exists():
        print(
            f"warning: {config.out} was ended before its first checkpoint, so training starts "
            "from the beginning",
            file=sys.stderr,
        )
    for half_written in config.out.glob("*.partial"):  # left by a process that was killed
        half_written.unlink()
    write_atomically(config.out / "config.json", to_json(config))
    cut_log(config.out / "metrics.jsonl", progress.iteration)
    if (config.out / "validation.jsonl").exists():
        # A validation is logged under the number of completed iterations, hence + 1.
        cut_log(config.out / "validation.jsonl", progress.validated + 1)
