"""Rows about the folders of a dataset."""

import json
import shutil
from pathlib import Path

from examples.common.checkpoint import read_checkpoint
from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused
from tests.examples.bad_inputs.spoil_trees import (
    add_other_manifest,
    add_system_files,
    fill_labels,
    link_city,
    link_in_a_circle,
    make_coarse,
    make_void,
    remove_images,
    rename_disparity,
    spoil_copy,
    write_capitals,
)

PREDICT = "predict --run run --image {} --out new --device cpu --write panels"
PREPARE = "prepare --data scenes --out {} --size 16x32 --workers 1"


def assert_trained_on(count: int) -> None:
    """Check how many images a run has found."""
    assert read_checkpoint(Path("new/last.pt"))["sampler"]["num_images"] == count


def assert_predicted(count: int) -> None:
    """Check how many images were predicted."""
    assert len(list(Path("new").rglob("*_panels.png"))) == count


def assert_prepared(out: str, train: int) -> None:
    """Check how many training images a complete copy has."""
    manifest = json.loads(Path(out, "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["splits"] == {"train": train, "val": 2}
    assert Path(out, "train/00000/image.npy").is_file()


TREES: list[Refused | Accepted] = [
    Refused(
        what="a dataset without images",
        spoil=remove_images,
        command=TRAIN,
        line="scenes: no images found as leftImg8bit/train/*/*_leftImg8bit.png",
    ),
    Refused(
        what="a dataset without any disparity file",
        spoil=lambda: shutil.rmtree("scenes/disparity"),
        command=TRAIN,
        line="scenes: no training image has labels for depth (looked for "
        "disparity/train/*/*_disparity.png); --tasks semantic,instance trains without",
    ),
    Refused(
        what="disparity files with another ending",
        spoil=rename_disparity,
        command=TRAIN,
        line="scenes: no training image has labels for depth (looked for ...",
    ),
    Refused(
        what="a dataset in which all pixels are void",
        spoil=make_void,
        command=TRAIN,
        line="scenes: no training image has labels for semantic and instance (no pixel has one of "
        "the 19 classes, no pixel belongs to an instance); --tasks depth trains without",
    ),
    Refused(
        what="a dataset in which all pixels are void, for the one task that remains",
        spoil=make_void,
        command=f"{TRAIN} --tasks semantic --cache-mb 0",
        line="scenes: no training image has labels for semantic (no pixel has one of the 19 "
        "classes), so there is nothing to train",
    ),
    Refused(
        what="disparity files in which nothing is known",
        spoil=lambda: [fill_labels("_disparity", 0), fill_labels("labelIds", 7)],
        command=TRAIN,
        line="scenes: no training image has labels for depth (no pixel has a disparity); --tasks "
        "semantic,instance trains without",
    ),
    Refused(
        what="images without labels, where there are coarse ones",
        spoil=make_coarse,
        command=TRAIN,
        line="scenes/leftImg8bit/train/town/town_000002_000000_leftImg8bit.png: has no labels; "
        "scenes/gtFine/train/town/town_000002_000000_gtFine_instanceIds.png not found; "
        "--labels gtCoarse trains on the coarse ones",
    ),
    Refused(
        what="coarse labels that are not there",
        spoil=lambda: None,
        command=f"{TRAIN} --labels gtCoarse",
        line="scenes/leftImg8bit/train/town/town_000000_000000_leftImg8bit.png: has no labels; "
        "scenes/gtCoarse/train/town/town_000000_000000_gtCoarse_instanceIds.png not found",
    ),
    Refused(
        what="coarse labels of a copy that was prepared with fine ones",
        spoil=lambda: None,
        command=f"{TRAIN} --data copy --labels gtCoarse",
        line="copy: was prepared with --labels gtFine, not gtCoarse",
    ),
    Refused(
        what="preparing a copy with other labels than before",
        spoil=make_coarse,
        command=PREPARE.format("copy") + " --labels gtCoarse",
        line="--out: copy was prepared with --labels gtFine; choose another",
    ),
    Refused(
        what="a city that is a link to nothing",
        spoil=lambda: Path("scenes/leftImg8bit/train/village").symlink_to("nowhere"),
        command=TRAIN,
        line="scenes/leftImg8bit/train/village: is a link to a folder that does not exist",
    ),
    Refused(
        what="a photo that is a link to nothing",
        spoil=lambda: Path("photos/d.png").symlink_to("nowhere.png"),
        command=PREDICT.format("photos"),
        line="photos/d.png: not a readable image (...No such file...",
    ),
    Accepted(
        what="hidden and system files in a dataset",
        spoil=lambda: add_system_files("scenes"),
        command=TRAIN,
        rule="are passed over",
        check=lambda: assert_trained_on(4),
    ),
    Accepted(
        what="hidden and system files in a dataset that is evaluated",
        spoil=lambda: add_system_files("scenes"),
        command="evaluate --run run --data scenes --device cpu",
        rule="are passed over",
        check=lambda: None,
    ),
    Accepted(
        what="hidden and system files in a dataset that is prepared",
        spoil=lambda: (
            [add_system_files("scenes"), add_system_files("new")]
            if not Path("new").mkdir()
            else None
        ),
        command=PREPARE.format("new"),
        rule="are passed over",
        check=lambda: assert_prepared("new", 4),
    ),
    Accepted(
        what="hidden and system files in a prepared copy that is made again",
        spoil=spoil_copy,
        command=PREPARE.format("copy"),
        rule="are passed over",
        check=lambda: assert_prepared("copy", 4),
    ),
    Accepted(
        what="hidden and system files in a prepared copy",
        spoil=lambda: add_system_files("copy"),
        command=f"{TRAIN} --data copy",
        rule="are passed over",
        check=lambda: assert_trained_on(4),
    ),
    Accepted(
        what="hidden and system files in a folder of photos",
        spoil=lambda: add_system_files("photos"),
        command=PREDICT.format("photos"),
        rule="are passed over",
        check=lambda: assert_predicted(3),
    ),
    Refused(
        what="a folder with a `manifest.json` of another program and no images",
        spoil=lambda: [remove_images(), add_other_manifest("scenes")],
        command=TRAIN,
        line="scenes/manifest.json: `format` is missing; run `prepare` again, with another --out",
    ),
    Accepted(
        what="a `manifest.json` of another program in a dataset",
        spoil=lambda: add_other_manifest("scenes"),
        command=TRAIN,
        rule="is passed over",
        check=lambda: assert_trained_on(4),
    ),
    Accepted(
        what="a `manifest.json` of another program in a dataset that is prepared",
        spoil=lambda: add_other_manifest("scenes"),
        command=PREPARE.format("new"),
        rule="is passed over",
        check=lambda: assert_prepared("new", 4),
    ),
    Refused(
        what="preparing into a dataset that has a `manifest.json` of another program",
        spoil=lambda: add_other_manifest("scenes"),
        command=PREPARE.format("scenes"),
        line="--out: scenes holds something other than a prepared dataset",
    ),
    Accepted(
        what="the folder of a city that is a link",
        spoil=link_city,
        command=TRAIN,
        rule="is followed",
        check=lambda: assert_trained_on(4),
    ),
    Accepted(
        what="the folder of a city that is a link, in prediction",
        spoil=link_city,
        command=PREDICT.format("scenes"),
        rule="is followed",
        check=lambda: assert_predicted(6),
    ),
    Accepted(
        what="a folder of photos that links to itself",
        spoil=link_in_a_circle,
        command=PREDICT.format("photos"),
        rule="is read once",
        check=lambda: assert_predicted(3),
    ),
    Accepted(
        what="file endings in capitals",
        spoil=write_capitals,
        command=TRAIN,
        rule="are read",
        check=lambda: assert_trained_on(4),
    ),
    Accepted(
        what="an empty folder `val`",
        spoil=lambda: [shutil.rmtree("scenes/leftImg8bit/val/town"), shutil.rmtree("copy")],
        command=PREPARE.format("copy"),
        rule="is a split that is not there",
        check=lambda: None,
    ),
    Accepted(
        what="coarse labels",
        spoil=make_coarse,
        command=f"{TRAIN} --labels gtCoarse --eval-every 1",
        rule="are read for the images of train and train_extra; validation has the fine ones",
        check=lambda: assert_trained_on(4),
    ),
    Accepted(
        what="coarse labels that are prepared",
        spoil=make_coarse,
        command=PREPARE.format("new") + " --labels gtCoarse",
        rule="are read for the images of train and train_extra; validation has the fine ones",
        check=lambda: assert_prepared("new", 4),
    ),
]
