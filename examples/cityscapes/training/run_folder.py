"""The folder of a run: what may be there before it starts or goes on."""

from pathlib import Path

from examples.cityscapes.config import TrainConfig, to_json
from examples.cityscapes.training.log import cut_log
from examples.cityscapes.training.state import Progress
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError


def check_run_folder(out: Path, resume: bool) -> None:
    """Raise if a run would be overwritten, or `out` cannot be a folder."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    if not resume and any((out / name).exists() for name in ("config.json", "last.pt")):
        raise InputError(f"--out: {out} already holds a run; go on with it by --resume")


def check_not_beyond(config: TrainConfig, progress: Progress) -> None:
    """Raise if a resumed run has come further than it is asked to go."""
    if progress.iteration > config.iterations:
        raise InputError(
            f"--iterations: the run has already had {progress.iteration}; found {config.iterations}"
        )


def prepare_run_folder(config: TrainConfig, first: int) -> None:
    """Record the configuration, and drop what was logged after the checkpoint."""
    config.out.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out / "config.json", to_json(config))
    cut_log(config.out / "metrics.jsonl", first)
    if (config.out / "validation.jsonl").exists():
        cut_log(config.out / "validation.jsonl", first + 1)  # after so many iterations, not during
