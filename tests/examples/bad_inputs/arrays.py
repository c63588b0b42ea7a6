"""Rows about the trees of arrays that papers on multi-task learning use."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.examples.array_tree import write_arrays
from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused
from tests.examples.bad_inputs.spoil_trees import add_other_manifest

TRAIN_ARRAYS = f"{TRAIN} --data arrays --protocol two-task"


def tree_with(file: str, spoil: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    """Return what writes the scenes as arrays, and replaces one array of them."""

    def write() -> None:
        write_arrays(Path("scenes"), Path("arrays"))
        path = Path("arrays") / file
        np.save(path, spoil(np.load(path)))

    return write


def with_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return what gives the first number of an array another value."""

    def change(values: np.ndarray) -> np.ndarray:
        values.flat[0] = value
        return values

    return change


def text_as_image() -> None:
    """Put text where an image should be."""
    write_arrays(Path("scenes"), Path("arrays"))
    Path("arrays/train/image/0.npy").write_text("colours")


def without(file: str) -> Callable[[], None]:
    """Return what writes the scenes as arrays, without one of them."""

    def write() -> None:
        write_arrays(Path("scenes"), Path("arrays"))
        (Path("arrays") / file).unlink()

    return write


def with_other_manifest() -> None:
    """Write the scenes as arrays, beside what other programs call `manifest.json`."""
    write_arrays(Path("scenes"), Path("arrays"))
    add_other_manifest("arrays")


def trained() -> None:
    """Assert that a run was trained."""
    assert Path("new/last.pt").is_file()


ARRAYS = (
    Refused(
        "a tree of arrays with a text file as an image",
        spoil=text_as_image,
        command=TRAIN_ARRAYS,
        line="arrays/train/image/0.npy: not a readable array (...)",
    ),
    Refused(
        "a tree of arrays for three tasks",
        spoil=tree_with("train/image/0.npy", np.copy),
        command=f"{TRAIN} --data arrays",
        line="arrays: holds arrays, which need --protocol two-task; found --protocol three-task",
    ),
    Refused(
        "a tree of arrays without the labels of an image",
        spoil=without("train/label_7/2.npy"),
        command=TRAIN_ARRAYS,
        line="arrays/train/image/2.npy: has no labels; arrays/train/label_7/2.npy not found",
    ),
    Refused(
        "a tree of arrays with colours up to 255",
        spoil=tree_with("train/image/0.npy", lambda colors: colors * 255),
        command=TRAIN_ARRAYS,
        line="arrays/train/image/0.npy: should hold floating-point colours from 0 to 1; found "
        "float32 from ... to ...",
    ),
    Refused(
        "a tree of arrays with the channels first",
        spoil=tree_with("train/image/0.npy", lambda colors: colors.transpose(2, 0, 1)),
        command=TRAIN_ARRAYS,
        line="arrays/train/image/0.npy: should hold colours from 0 to 1 of shape (H, W, 3); found "
        "(3, 16, 32)",
    ),
    Refused(
        "a tree of arrays of another size than `--size`",
        spoil=tree_with("train/image/0.npy", np.copy),
        command=f"{TRAIN_ARRAYS} --size 32x64",
        line="arrays/train/image/0.npy: is 16x32 (height x width), but --size is 32x64",
    ),
    Refused(
        "an array of classes of another size than its image",
        spoil=tree_with("train/label_7/0.npy", lambda classes: classes[::2, ::2]),
        command=TRAIN_ARRAYS,
        line="arrays/train/label_7/0.npy: is 8x16 (height x width), but its image is 16x32",
    ),
    Refused(
        "an array with a class number 7",
        spoil=tree_with("train/label_7/0.npy", with_first(7)),
        command=TRAIN_ARRAYS,
        line="arrays/train/label_7/0.npy: should hold whole numbers from 0 to 6, or -1 for no "
        "class; found 7.0",
    ),
    Refused(
        "an array with an infinite inverse depth",
        spoil=tree_with("train/depth/0.npy", with_first(np.inf)),
        command=TRAIN_ARRAYS,
        line="arrays/train/depth/0.npy: should hold finite inverse depths; found float32 from ... "
        "to inf",
    ),
    Refused(
        "coarse labels of a tree of arrays",
        spoil=tree_with("train/image/0.npy", np.copy),
        command=f"{TRAIN_ARRAYS} --labels gtCoarse",
        line="--labels: gtCoarse needs the official layout, but arrays holds arrays; leave out the "
        "flag",
    ),
    Refused(
        "coarse labels of a tree of arrays that is checked",
        spoil=tree_with("train/image/0.npy", np.copy),
        command="check --data arrays --labels gtCoarse",
        line="--labels: gtCoarse needs the official layout, but arrays holds arrays; leave out the "
        "flag",
    ),
    Refused(
        "fewer arrays than `--batch-size`",
        spoil=tree_with("train/image/0.npy", np.copy),
        command=f"{TRAIN_ARRAYS} --batch-size 6",
        line="--batch-size: 6 is more than the 4 training images of arrays",
    ),
    Accepted(
        "a `manifest.json` of another program in a tree of arrays",
        spoil=with_other_manifest,
        command=TRAIN_ARRAYS,
        rule="is passed over",
        check=trained,
    ),
    Accepted(
        "an array with a negative inverse depth",
        spoil=tree_with("train/depth/0.npy", with_first(-1.0)),
        command=TRAIN_ARRAYS,
        rule="counts as unknown, as 0 does",
        check=trained,
    ),
)
"""The rows."""
