"""Rows about runs, checkpoints and prepared copies."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.models import resnet18

from examples.cityscapes.__main__ import main
from tests.examples.bad_inputs.checkpoints import CHECKPOINTS
from tests.examples.bad_inputs.copies import COPIES
from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused
from tests.examples.bad_inputs.spoil_runs import LAST, RESUME, changed, has_trained
from tests.examples.bad_inputs.trunk_weights import TRUNK_WEIGHTS


def lose_checkpoint() -> None:
    """Leave the logs and the settings."""
    LAST.unlink()
    Path("run/best.pt").unlink()


def keep_only_the_best() -> None:
    """Leave a checkpoint of another name."""
    LAST.replace("run/best.pt")


def kill_before_the_first_checkpoint() -> None:
    """Leave what a run has that was killed in its second iteration."""
    lose_checkpoint()
    Path("run/metrics.json").unlink()
    log = Path("run/metrics.jsonl")
    log.write_text(log.read_text().splitlines(keepends=True)[0])


def other_images() -> None:
    """Make a dataset of as many images of other names."""
    shutil.copytree("scenes", "other")
    for path in list(Path("other").rglob("town_000003_*")):
        path.rename(path.with_name(path.name.replace("town_000003", "town_000009")))


def recorded_dataset(data: str) -> Callable[[], None]:
    """Return what puts another dataset into the settings of the run."""

    def spoil() -> None:
        path = Path("run/config.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "data": data}))

    return spoil


def relative_weights() -> None:
    """Save weights for the trunk in the current folder."""
    torch.save(resnet18(weights=None).state_dict(), "w.pt")


def paths_are_whole() -> None:
    """Assert that the run can go on from any folder, and by the paths that it was given."""
    fields = json.loads(Path("new/config.json").read_text())
    assert fields["data"] == str(Path("scenes").absolute())
    assert fields["backbone_weights"] == str(Path("w.pt").absolute())
    command = f"{TRAIN} --resume --backbone-weights w.pt"
    assert main(command.split()) == 0


RUNS: list[Refused | Accepted] = [
    *CHECKPOINTS,
    *TRUNK_WEIGHTS,
    Refused(
        what="a finished run without its last checkpoint",
        spoil=lose_checkpoint,
        command=RESUME,
        line="run/last.pt: not found, though the logs have 2 iterations and the run saves its "
        "first checkpoint after 2; restore last.pt from a copy, or start a new run in another "
        "--out",
    ),
    Refused(
        what="a run that has only its best checkpoint left",
        spoil=keep_only_the_best,
        command=RESUME,
        line="run/last.pt: not found, but best.pt is there; copy best.pt to last.pt to continue "
        "from it, or start a new run in another --out",
    ),
    Accepted(
        what="a run that was killed before its first checkpoint",
        spoil=kill_before_the_first_checkpoint,
        command=RESUME,
        rule="It starts from the beginning, and says so.",
        check=has_trained("run"),
    ),
    Refused(
        what="resuming a run on equally many images with other names",
        spoil=other_images,
        command=f"{RESUME} --data other",
        line="--data: should hold the training images that the run was started on; found 4 "
        "images with other names, such as other/...; pass the dataset of the run",
    ),
    Accepted(
        what="resuming on the prepared copy of the dataset",
        spoil=lambda: None,
        command=f"{RESUME} --data copy",
        rule="The images have the same names in the same order.",
        check=has_trained("run"),
    ),
    Accepted(
        what="resuming a run of an older version, which knows no names of images",
        spoil=changed(lambda saved: saved["sampler"].pop("stems")),
        command=RESUME,
        rule="The number of images decides.",
        check=has_trained("run"),
    ),
    Refused(
        what="an older run that has recorded a relative path, from another folder",
        spoil=recorded_dataset("../elsewhere/scenes"),
        command=RESUME,
        line="run/config.json: the run was started on ../elsewhere/scenes, which is not there "
        "from this folder; pass the dataset by --data",
    ),
    Refused(
        what="a run whose dataset has been moved",
        spoil=recorded_dataset("/media/scenes"),
        command=RESUME,
        line="run/config.json: the run was started on /media/scenes, which is not there; pass the "
        "dataset by --data",
    ),
    Accepted(
        what="an older run that has recorded a relative path, from the same folder",
        spoil=recorded_dataset("scenes"),
        command=RESUME,
        rule="The dataset is found there.",
        check=has_trained("run"),
    ),
    Accepted(
        what="a dataset and weights by relative paths",
        spoil=relative_weights,
        command=f"{TRAIN} --backbone-weights w.pt",
        rule="The whole paths are recorded: the run can be resumed from any folder.",
        check=paths_are_whole,
    ),
    Refused(
        what="`--init-from` a run of a wider network",
        spoil=lambda: None,
        command=f"{TRAIN} --decoder-channels 8 --init-from run",
        line="--init-from: run/last.pt does not fit this run's network (... has shape ... instead "
        "of ...); --init-partly takes only the weights that fit",
    ),
    Refused(
        what="`--init-from` a run that has saved no checkpoint",
        spoil=lose_checkpoint,
        command=f"{TRAIN} --init-from run",
        line="--init-from: run/last.pt not found; give the folder of a run that has saved its "
        "first checkpoint, or one of its checkpoints",
    ),
    Refused(
        what="`--config` with a file that is not a run's `config.json`",
        spoil=lambda: None,
        command=f"{TRAIN} --config copy/manifest.json",
        line="copy/manifest.json: `data` is missing; --config takes the config.json of a run",
    ),
    *COPIES,
]
