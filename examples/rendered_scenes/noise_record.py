"""How much noise a data set holds, measured against its clean copy, by task."""

import numpy as np

from examples.rendered_scenes.disparity import decode
from examples.rendered_scenes.render import Scene


class NoiseRecord:
    """Counts wrong labels and sums errors of offsets and disparities, scene by scene."""

    def __init__(self) -> None:
        self._pixels = self._wrong = 0
        self._offset, self._disparity = _Errors(), _Errors()
        self._valid_before = 0

    def add(self, clean: Scene, noisy: Scene) -> None:
        """Compare two versions of one scene."""
        self._pixels += clean.label_ids.size
        self._wrong += int((clean.label_ids != noisy.label_ids).sum())
        both = (clean.instance_ids >= 1000) & (noisy.instance_ids >= 1000)
        error = _to_centres(noisy.instance_ids) - _to_centres(clean.instance_ids)
        self._offset.add(error[:, both])
        (before, valid_before), (after, valid) = decode(clean.disparity), decode(noisy.disparity)
        self._valid_before += int(valid_before.sum())
        self._disparity.add((after - before)[valid & valid_before])

    def as_json(self) -> dict[str, dict[str, float]]:
        """Figures by task, with lengths in pixels; noise is the noisy value minus the clean one.

        For the instance task, pixels count that belong to an instance in both versions, each with
        two components; for the depth task, pixels that are valid in both.
        """
        return {
            "semantic": {"wrong_share": self._wrong / max(self._pixels, 1)},
            "instance": self._offset.as_json(),
            "depth": {
                **self._disparity.as_json(),
                "valid_share": self._disparity.count / max(self._pixels, 1),
                "valid_share_clean": self._valid_before / max(self._pixels, 1),
            },
        }


class _Errors:
    def __init__(self) -> None:
        self.count, self.absolute, self.square = 0, 0.0, 0.0

    def add(self, error: np.ndarray) -> None:
        error = error.astype(np.float64)
        self.count += error.size
        self.absolute += float(np.abs(error).sum())
        self.square += float((error * error).sum())

    def as_json(self) -> dict[str, float]:
        count = max(self.count, 1)
        return {
            "mean_absolute_px": self.absolute / count,
            "root_mean_square_px": (self.square / count) ** 0.5,
        }


def _to_centres(instance_ids: np.ndarray) -> np.ndarray:
    """Vector from each pixel to the mean pixel of its id, x first, shape (2, H, W)."""
    _, member = np.unique(instance_ids, return_inverse=True)
    member = member.reshape(-1)
    count = np.bincount(member)
    axes = np.indices(instance_ids.shape).reshape(2, -1)[::-1]
    centres = [np.bincount(member, weights=axis) / count for axis in axes]
    vectors = [centre[member] - axis for centre, axis in zip(centres, axes, strict=True)]
    return np.stack(vectors).reshape(2, *instance_ids.shape)
