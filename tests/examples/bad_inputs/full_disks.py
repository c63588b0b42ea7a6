"""Rows about what commands say on a full disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.examples.bad_inputs.row import Accepted, Refused


def no_space_for(name: str) -> Callable[[], None]:
    """Let writing a file fail as on a full disk: `/dev/full` is one."""

    def spoil() -> None:
        path = Path(f"{name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to("/dev/full")

    return spoil


def no_space_for_another_report() -> None:
    """Leave the report of a run, in a folder whose disk is full."""
    shutil.copy("run/metrics.json", "run/report.html")
    no_space_for("run/report.html")()


NO_SPACE = "no space left on the disk; free some, or write elsewhere"

FULL_DISKS: list[Refused | Accepted] = [
    Refused(
        what="a full disk when a copy is prepared",
        spoil=no_space_for("other/manifest.json"),
        command="prepare --data scenes --out other --size 16x32",
        line=f"other/manifest.json: {NO_SPACE}",
    ),
    Refused(
        what="a full disk when an image is predicted",
        spoil=no_space_for("seen/a_panels.png"),
        command="predict --run run --image photos --out seen --device cpu",
        line=f"seen/a_panels.png: {NO_SPACE}",
    ),
    Refused(
        what="a full disk when a run is measured",
        spoil=no_space_for("run/metrics.json"),
        command="evaluate --run run --data scenes --device cpu",
        line=f"run/metrics.json: {NO_SPACE}",
    ),
    Refused(
        what="a full disk when a report is written",
        spoil=no_space_for_another_report,
        command="report --run run",
        line=f"run/report.html: {NO_SPACE}",
    ),
]
