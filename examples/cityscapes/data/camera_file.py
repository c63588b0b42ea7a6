"""Reading the camera file of an image."""

import json
from pathlib import Path

from examples.common.errors import InputError

_SMALLEST, _LARGEST = 1e-6, 1e6


def read_baseline_fx(path: Path, width: int) -> float:
    """Read the disparity of a point at a distance of one metre from a camera file.

    It is baseline times fx, in pixels of the original image, and differs by 6% between cities.

    Args:
        path: The file.
        width: Width of the image. The principal point of a camera is near the middle, so that its
            column `u0` tells if the file belongs to an image of another size.

    Raises:
        InputError: If the file is not readable, or belongs to an image of another size.
    """
    try:
        # Some editors put a byte-order mark first, which "utf-8" would take for text.
        camera = json.loads(path.read_text(encoding="utf-8-sig"))
        baseline, fx = camera["extrinsic"]["baseline"], camera["intrinsic"]["fx"]
        u0 = camera["intrinsic"].get("u0")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a readable camera file ({error!r})") from error
    for name, value in (("baseline", baseline), ("fx", fx), ("u0", u0)):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_absent = name == "u0" and value is None
        if not is_absent and not (is_number and _SMALLEST <= value <= _LARGEST):
            raise InputError(
                f"{path}: `{name}` should be a number from {_SMALLEST:g} to {_LARGEST:g}; "
                f"found {repr(value)[:60]}"
            )
    # In the real data 2 * u0 is 1.02 to 1.07 times the width.
    if u0 is not None and not 0.8 * width <= 2 * u0 <= 1.25 * width:
        raise InputError(
            f"{path}: `u0` is {u0:g}, as in images about {2 * u0:.0f} pixels wide, but this image "
            f"has {width}; disparities have to be in pixels of the image that they belong to. Use "
            "the images at their own size (`prepare` makes small copies), or "
            "--tasks semantic,instance"
        )
    return baseline * fx
