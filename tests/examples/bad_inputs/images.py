"""Rows about images and label files."""

from pathlib import Path

import numpy as np
from PIL import Image

from examples.common.checkpoint import read_checkpoint
from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused
from tests.examples.bad_inputs.spoil_images import (
    CAMERA,
    DISPARITY,
    INSTANCE_IDS,
    LABEL_IDS,
    PHOTO,
    SIZE,
    camera,
    camera_file,
    converted,
    huge,
    replaced,
    write_png,
)

PREDICT = "predict --run run --image photos --out new --device cpu"
PREPARE = "prepare --data scenes --out new --size 16x32 --workers 1"


def assert_trained() -> None:
    """Check that a run has come to its end."""
    assert read_checkpoint(Path("new/last.pt"))["iteration"] == 2


IMAGES: list[Refused | Accepted] = [
    Refused(
        what="a photo of 16-bit gray values",
        spoil=replaced(PHOTO, np.full(SIZE, 3000, np.uint16)),
        command=TRAIN,
        line=f"{PHOTO}: should be an image with 8 bits a channel; found a PNG of 16-bit gray; "
        "convert it first",
    ),
    Refused(
        what="a photo with 16 bits a colour (Pillow would drop half of them and not say so)",
        spoil=lambda: write_png(PHOTO, 32, 16, 16, 2, b"\x01\x02" * 3 * 32),
        command=PREPARE,
        line=f"{PHOTO}: should be an image with 8 bits a channel; found a PNG of 16-bit RGB; "
        "convert it first",
    ),
    Refused(
        what="a photo of 16-bit gray values among those to predict",
        spoil=replaced("photos/b.png", np.full(SIZE, 3000, np.uint16)),
        command=PREDICT,
        line="photos/b.png: should be an image with 8 bits a channel; found a PNG of 16-bit gray; "
        "convert it first...",
    ),
    Refused(
        what="a photo of floating-point numbers",
        spoil=lambda: Image.fromarray(np.ones(SIZE, np.float32)).save("photos/a.tif"),
        command=PREDICT.replace("photos", "photos/a.tif"),
        line="photos/a.tif: should be an image with 8 bits a channel; found a TIFF of 32-bit F; "
        "convert it first",
    ),
    Refused(
        what="a photo of 1.8 billion pixels",
        spoil=huge(PHOTO, 8, 2),
        command=TRAIN,
        line=f"{PHOTO}: should have at most 134,217,728 pixels; found far more",
    ),
    Refused(
        what="a photo with 160 million pixels (Pillow would only warn)",
        spoil=huge("photos/b.png", 8, 2, width=18000),
        command=PREDICT,
        line="photos/b.png: should have at most 134,217,728 pixels; found 162,000,000...",
    ),
    Refused(
        what="a label file of 1.8 billion pixels",
        spoil=huge(INSTANCE_IDS, 16, 0),
        command=TRAIN,
        line=f"{INSTANCE_IDS}: should have at most 134,217,728 pixels; found far more",
    ),
    Refused(
        what="a file that is not an image",
        spoil=lambda: Path(PHOTO).write_text("no image"),
        command=TRAIN,
        line=f"{PHOTO}: not a readable image (its format is not known)",
    ),
    Refused(
        what="disparities of 8 bits",
        spoil=replaced(DISPARITY, np.full(SIZE, 9, np.uint8)),
        command=TRAIN,
        line=f"{DISPARITY}: should hold disparities in a PNG of 16-bit gray; found a PNG of 8-bit "
        "gray; --tasks semantic,instance does without it",
    ),
    Refused(
        what="instance ids that are label ids",
        spoil=converted(INSTANCE_IDS, "L"),
        command=TRAIN,
        line=f"{INSTANCE_IDS}: should hold instance ids in a PNG of 16-bit gray; found a PNG of "
        "8-bit gray; without this file, --tasks semantic,depth can still be trained",
    ),
    Refused(
        what="label ids that are instance ids",
        spoil=lambda: Path(LABEL_IDS).write_bytes(Path(INSTANCE_IDS).read_bytes()),
        command=TRAIN,
        line=f"{LABEL_IDS}: should hold label ids in a PNG of 8-bit gray; found a PNG of 16-bit "
        "gray; the file may be left out where instanceIds are right",
    ),
    Refused(
        what="label ids of one bit",
        spoil=converted(LABEL_IDS, "1"),
        command=PREPARE,
        line=f"{LABEL_IDS}: should hold label ids in a PNG of 8-bit gray; found a PNG of 1-bit "
        "gray...",
    ),
    Refused(
        what="label ids in a palette, whose numbers and colours both could be the ids",
        spoil=converted(LABEL_IDS, "P"),
        command=TRAIN,
        line=f"{LABEL_IDS}: should hold label ids in a PNG of 8-bit gray; found a PNG of 8-bit "
        "palette...",
    ),
    Refused(
        what="label ids in colours",
        spoil=converted(LABEL_IDS, "RGB"),
        command=TRAIN,
        line=f"{LABEL_IDS}: should hold label ids in a PNG of 8-bit gray; found a PNG of 8-bit "
        "RGB...",
    ),
    Refused(
        what="label ids in a lossy format",
        spoil=lambda: Image.fromarray(np.full(SIZE, 7, np.uint8)).save(LABEL_IDS, format="JPEG"),
        command=TRAIN,
        line=f"{LABEL_IDS}: should hold label ids in a PNG of 8-bit gray; found a JPEG of 8-bit "
        "L...",
    ),
    Refused(
        what="a label id that no class has",
        spoil=replaced(LABEL_IDS, np.full(SIZE, 200, np.uint8)),
        command=TRAIN,
        line=f"{LABEL_IDS}: should hold label ids from 0 to 33, or 255; found 200",
    ),
    Refused(
        what="an instance id of a class that does not exist",
        spoil=replaced(INSTANCE_IDS, np.full(SIZE, 34000, np.uint16)),
        command=TRAIN,
        line=f"{INSTANCE_IDS}: should hold instance ids of the label ids from 0 to 33; found 34000",
    ),
    Refused(
        what="an instance id between those of groups and those of single things",
        spoil=replaced(INSTANCE_IDS, np.full(SIZE, 200, np.uint16)),
        command=PREPARE,
        line=f"{INSTANCE_IDS}: should hold instance ids of the label ids from 0 to 33; found 200",
    ),
    Refused(
        what="a camera file nested a hundred thousand times",
        spoil=camera_file("[" * 100_000),
        command=TRAIN,
        line=f"{CAMERA}: not a readable camera file (RecursionError...)",
    ),
    Refused(
        what="a camera file with nan",
        spoil=camera_file(camera(fx=float("nan"))),
        command=TRAIN,
        line=f"{CAMERA}: `fx` should be a number from 1e-06 to 1e+06; found nan",
    ),
    Refused(
        what="a camera file with a text for a number",
        spoil=camera_file(camera(baseline="0.2")),
        command=PREPARE,
        line=f"{CAMERA}: `baseline` should be a number from 1e-06 to 1e+06; found '0.2'",
    ),
    Refused(
        what="a camera file with a focal length of 0",
        spoil=camera_file(camera(fx=0)),
        command=TRAIN,
        line=f"{CAMERA}: `fx` should be a number from 1e-06 to 1e+06; found 0",
    ),
    Refused(
        what="a camera file with a number of 400 digits",
        spoil=camera_file(camera(u0=10**400)),
        command=TRAIN,
        line=f"{CAMERA}: `u0` should be a number from 1e-06 to 1e+06; found 1000...",
    ),
    Refused(
        what="a camera file of the full size beside a half-size copy of its image",
        spoil=camera_file(camera(u0=33.0)),
        command=TRAIN,
        line=f"{CAMERA}: `u0` is 33, as in images about 66 pixels wide, but this image has 32; "
        "disparities have to be in pixels of the image that they belong to. Use the images at "
        "their own size (`prepare` makes small copies), or --tasks semantic,instance",
    ),
    Accepted(
        what="a camera file that begins with a byte-order mark",
        spoil=camera_file(camera(), encoding="utf-8-sig"),
        command=TRAIN,
        rule="is read",
        check=assert_trained,
    ),
    Accepted(
        what="disparities of 8 bits where depth is not trained",
        spoil=replaced(DISPARITY, np.full(SIZE, 9, np.uint8)),
        command=f"{TRAIN} --tasks semantic,instance",
        rule="are not read",
        check=assert_trained,
    ),
    Accepted(
        what="label ids of 255, a licence plate",
        spoil=replaced(LABEL_IDS, np.full(SIZE, 255, np.uint8)),
        command=TRAIN,
        rule="are ignored, as every class that is not evaluated",
        check=assert_trained,
    ),
]
