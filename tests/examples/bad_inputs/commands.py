"""Rows about commands and their options."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

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
        rule="Everything is measured: the copy holds all that it takes.",
        check=all_is_measured,
    ),
    Accepted(
        what="`evaluate` for a run whose `--backbone-weights` were deleted since",
        spoil=start_from_a_lost_file,
        command="evaluate --run run --data scenes --device cpu",
        rule="The column of the untrained network stays blank, after a warning.",
        check=untrained_is_blank,
    ),
    Accepted(
        what="`evaluate` on data without a training split",
        spoil=remove_training_split,
        command="evaluate --run run --data scenes --device cpu",
        rule="The column of the position prior stays blank, after a warning.",
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

# Prediction: photos from anywhere.

PREDICT = "predict --run run --image photos --out new --device cpu"


def photo() -> Image.Image:
    """Return one of the photos, 16x32."""
    with Image.open("photos/a.png") as image:
        return image.copy()


def shape_of(name: str) -> tuple[int, ...]:
    """Return height and width of the image as it was predicted."""
    with np.load(f"new/{name}_arrays.npz", allow_pickle=False) as arrays:
        assert arrays["classes"].shape == arrays["inverse_depth"].shape
        return arrays["image"].shape[:2]


def write_text_as_image() -> None:
    """Put a text where an image should be."""
    Path("photos/b.png").write_text("no image")


def cut_image() -> None:
    """Leave the header of an image, and some of its pixels."""
    path = Path("photos/b.png")
    path.write_bytes(path.read_bytes()[:200])


def add_stripe() -> None:
    """Add an image of three columns."""
    photo().resize((3, 3000)).save("photos/stripe.png")


def add_turned_photo() -> None:
    """Add a photo that the camera was turned for."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photo().save("photos/turned.jpg", exif=exif)


def add_printed_photo() -> None:
    """Add a photo in the colours of a printer."""
    photo().convert("CMYK").save("photos/printed.jpg", quality=95)


def add_large_photo() -> None:
    """Add a photo of 1.6 megapixels."""
    photo().resize((1600, 1000)).save("photos/large.jpg")


def add_namesake() -> None:
    """Add an image that differs from another one only by its ending."""
    photo().save("photos/a.bmp")


def is_upright() -> None:
    """Assert that the turned photo was turned back."""
    assert shape_of("turned") == (32, 16)


def is_in_colour() -> None:
    """Assert that the colours of the printed photo are nearly those of the original."""
    with np.load("new/printed_arrays.npz", allow_pickle=False) as arrays:
        difference = arrays["image"].astype(int) - np.array(photo())
    assert np.abs(difference).mean() < 10


def is_reduced() -> None:
    """Assert that the large photo has a million pixels, and its shape."""
    assert shape_of("large") == (790, 1264)


def namesakes_keep_their_endings() -> None:
    """Assert that only the names that would be the same have an ending."""
    found = {path.name.partition("_")[0] for path in Path("new").glob("*_panels.png")}
    assert found == {"a.png", "a.bmp", "b", "c"}


PREDICTION: list[Refused | Accepted] = [
    Refused(
        what="a file that is not an image, among images for `predict`",
        spoil=write_text_as_image,
        command=PREDICT,
        line="photos/b.png: not a readable image (...); 0 of 3 images are done; "
        "--skip-bad leaves out such images",
    ),
    Refused(
        what="an image that ends too early, among images for `predict`",
        spoil=cut_image,
        command=PREDICT,
        line="photos/b.png: not a readable image (...); 1 of 3 images are done; "
        "--skip-bad leaves out such images",
    ),
    Refused(
        what="an image of 3x3000 pixels for `predict`",
        spoil=add_stripe,
        command=f"{PREDICT} --image photos/stripe.png",
        line="photos/stripe.png: is 3000x3 (height x width), but one side should be at most 32 "
        "times as long as the other; cut it into parts",
    ),
    Refused(
        what="a file that is not an ONNX file, as the network for `predict`",
        spoil=nothing,
        command="predict --model run/last.pt --image photos --out new",
        line="--model: run/last.pt is not a readable ONNX file (...); give a file that `export` "
        "has written",
    ),
    Accepted(
        what="a photo with an EXIF orientation",
        spoil=add_turned_photo,
        command=f"{PREDICT} --image photos/turned.jpg",
        rule="`predict` turns it upright.",
        check=is_upright,
    ),
    Accepted(
        what="a photo in CMYK",
        spoil=add_printed_photo,
        command=f"{PREDICT} --image photos/printed.jpg",
        rule="`predict` converts it to RGB.",
        check=is_in_colour,
    ),
    Accepted(
        what="a photo of more than `--max-megapixels`",
        spoil=add_large_photo,
        command=f"{PREDICT} --image photos/large.jpg --max-megapixels 1",
        rule="`predict` reduces it to so many pixels, and its predictions have that size.",
        check=is_reduced,
    ),
    Accepted(
        what="`a.png` beside `a.bmp`",
        spoil=add_namesake,
        command=PREDICT,
        rule="Only these two keep the endings in the names of their predictions.",
        check=namesakes_keep_their_endings,
    ),
]

COMMANDS: list[Refused | Accepted] = [*EVALUATION, *PREDICTION]
