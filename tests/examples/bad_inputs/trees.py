"""Rows about the folders of a dataset."""

import shutil

from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused


def remove_images() -> None:
    """Leave the labels."""
    shutil.rmtree("scenes/leftImg8bit")


TREES: list[Refused | Accepted] = [
    Refused(
        what="a dataset without images",
        spoil=remove_images,
        command=TRAIN,
        line="scenes: no images found as leftImg8bit/train/*/*_leftImg8bit.png",
    ),
]
