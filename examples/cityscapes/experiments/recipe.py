"""How to get the same tables again: command, commit, seeds, settings, versions, hardware."""

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from examples.cityscapes.experiments.results import markdown_table
from examples.common.flag_text import flag_of, value_text

_WIDTH = 72
"""Characters of a line of code that a page shows without scrolling."""


def recipe(
    command: str,
    given: dict[str, Any],
    settings: dict[str, Any],
    scenes: dict[str, int] | None,
    results: Sequence[dict[str, Any]],
) -> str:
    """Return the last section of a page.

    Args:
        command: Command of the experiment.
        given: Its options, as they were given.
        settings: Every field of `TrainConfig` that the runs share.
        scenes: How many were rendered; None for a dataset of the user's.
        results: The figures.json of every run.
    """
    size = "x".join(map(str, settings["size"]))
    validated = ", ".join(map(str, sorted({result["num_images"] for result in results})))
    data = (
        f"a dataset of the user's, of which {validated} images were for validation"
        if scenes is None
        else f"generated scenes, {scenes['train']} for training and {scenes['val']} for validation"
    )
    seconds = [result["seconds"] for result in results if result["seconds"] is not None]
    rows = [
        ["data", f"{data}; network input {size}"],
        ["runs", f"{len(results)}"],
        *([["seconds a run", f"median {median(seconds):.0f}"]] if seconds else []),
        *(
            [name, ", ".join(sorted({str(result["setup"].get(name)) for result in results}))]
            for name in results[0]["setup"]
        ),
        *([["commit", found]] if (found := commit()) else []),
        [
            "settings",
            ", ".join(
                f"{name} {value_text(name, value)}"
                for name, value in settings.items()
                if not is_local(name, value)
            ),
        ],
    ]
    return (
        "## Recipe\n\n```bash\n" + command_line(command, given) + "\n```\n\n"
        "Every run trains from its seed to the last iteration and is measured on the validation "
        "split at the size of the network's input.\n\n" + markdown_table(["", ""], rows)
    )


def command_line(command: str, given: dict[str, Any]) -> str:
    """Return the command; in place of a folder, which is local, it shows the name of its flag."""
    words = ["python -m examples.cityscapes", command]
    for name, value in given.items():
        flag = flag_of(name)
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif is_local(name, value):
            words.append(f"{flag} {flag.strip('-').upper()}")
        else:
            words.append(f"{flag} {value_text(name, value)}")
    lines = words[:1]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < _WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}")
    return " \\\n".join(lines)


def is_local(name: str, value: object) -> bool:
    """Whether a setting is the path of something on this machine."""
    return isinstance(value, Path) or (name == "backbone_weights" and "/" in str(value))


def commit() -> str | None:
    """Return the commit of this code, marked if files differ from it; None outside of git."""
    git = shutil.which("git")
    if git is None:
        return None
    arguments = [git, "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(  # noqa: S603
        arguments, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
