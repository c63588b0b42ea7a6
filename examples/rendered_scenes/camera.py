"""The pinhole stereo camera: calibration by city, rays, projection, the official json."""

from dataclasses import dataclass

import numpy as np

FULL_HEIGHT, FULL_WIDTH = 1024, 2048
"""The image size that the calibrations below belong to."""


@dataclass(frozen=True)
class Calibration:
    """A stereo camera at full resolution: baseline in metres, the rest in pixels."""

    baseline: float
    fx: float
    fy: float
    u0: float
    v0: float


CALIBRATIONS = (
    Calibration(0.209313, 2262.52, 2265.3017905988554, 1096.98, 513.137),
    Calibration(0.222126, 2268.36, 2225.5405988775956, 1048.64, 519.277),
)
"""The two calibrations of the real data set, in the order that cities use them."""


@dataclass(frozen=True)
class Camera:
    """A pinhole stereo camera above flat ground, looking along a street.

    World axes are x to the right, y down, z along the street, in metres; the origin lies on the
    ground below the left camera. A pixel's centre has whole coordinates. There is no roll, so the
    horizon is a row of the image.

    Args:
        size: Height and width of the image in pixels.
        baseline: Distance between the two cameras in metres.
        fx: Horizontal focal length in pixels.
        fy: Vertical focal length in pixels.
        u0: Column of the principal point.
        v0: Row of the principal point.
        height: Height above the ground in metres.
        pitch: Angle by which the camera looks down, in radians.
        yaw: Angle to the right of the street's direction, in radians.
    """

    size: tuple[int, int]
    baseline: float
    fx: float
    fy: float
    u0: float
    v0: float
    height: float
    pitch: float
    yaw: float

    @property
    def axes(self) -> np.ndarray:
        """Rows: the camera's right, down and forward directions in the world, shape (3, 3)."""
        sin_p, cos_p = np.sin(self.pitch), np.cos(self.pitch)
        sin_y, cos_y = np.sin(self.yaw), np.cos(self.yaw)
        return np.array(
            [
                [cos_y, 0.0, -sin_y],
                [-sin_y * sin_p, cos_p, -cos_y * sin_p],
                [sin_y * cos_p, sin_p, cos_y * cos_p],
            ]
        )

    @property
    def rays(self) -> np.ndarray:
        """Matrix that takes (column, row, 1) to a world direction of depth 1, shape (3, 3)."""
        unproject = np.array(
            [
                [1 / self.fx, 0.0, -self.u0 / self.fx],
                [0.0, 1 / self.fy, -self.v0 / self.fy],
                [0.0, 0.0, 1.0],
            ]
        )
        return self.axes.T @ unproject

    @property
    def centre(self) -> np.ndarray:
        """Position of the left camera in the world, shape (3,)."""
        return np.array([0.0, -self.height, 0.0])

    @property
    def horizon(self) -> float:
        """Row of the horizon in pixels."""
        return self.v0 - self.fy * float(np.tan(self.pitch))

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Column, row and depth in metres of world points, shape (n, 3).

        A point behind the camera has a negative depth, and its column and row mean nothing.
        """
        x, y, depth = self.axes @ (points - self.centre).T
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        return self.u0 + self.fx * x / safe, self.v0 + self.fy * y / safe, depth

    def as_json(self) -> dict[str, dict[str, float]]:
        """The camera in the structure of the official `camera` files.

        The angles are those of the camera relative to the vehicle. The turn of the vehicle relative
        to the street is not included, so the yaw is 0.
        """
        return {
            "extrinsic": {
                "baseline": self.baseline,
                "pitch": self.pitch,
                "roll": 0.0,
                "x": 1.7,
                "y": 0.1,
                "yaw": 0.0,
                "z": self.height,
            },
            "intrinsic": {"fx": self.fx, "fy": self.fy, "u0": self.u0, "v0": self.v0},
        }


def sample_camera(
    rng: np.random.Generator, size: tuple[int, int], calibration: Calibration
) -> Camera:
    """A camera of one scene: ``calibration`` scaled to ``size``, height and angles at random."""
    height, width = size
    scale_x, scale_y = width / FULL_WIDTH, height / FULL_HEIGHT
    # Pixels stay square in an image of another shape: both focal lengths scale with the width.
    fx, fy = calibration.fx * scale_x, calibration.fy * scale_x
    # The first pixel has its centre at 0 and its edge at -0.5; scaling keeps the edge there.
    u0 = (calibration.u0 + 0.5) * scale_x - 0.5
    v0 = (calibration.v0 + 0.5) * scale_y - 0.5
    horizon = rng.uniform(0.36, 0.53) * height
    # Wide turns are rare, but they keep a pixel's position from giving away its class.
    yaw = rng.normal(0.0, 0.07) if rng.random() < 0.7 else rng.uniform(-0.35, 0.35)
    return Camera(
        size=size,
        baseline=calibration.baseline,
        fx=fx,
        fy=fy,
        u0=u0,
        v0=v0,
        height=float(rng.uniform(1.1, 1.4)),
        pitch=float(np.arctan((v0 - horizon) / fy)),
        yaw=float(yaw),
    )
