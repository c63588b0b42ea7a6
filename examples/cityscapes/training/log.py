"""metrics.jsonl: one line per iteration, written without making the GPU wait."""

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.settings import are_learned
from examples.common.checkpoint import write_atomically
from examples.common.errors import NonFiniteLossError
from examples.common.folders import named_in_errors
from examples.common.json_types import Count, NotNegative, Positive
from examples.common.records import read_lines

Line = dict[str, Any]

CHUNK = 20
"""Iterations per write of metrics.jsonl."""


class MetricLog:
    """Collects scalars on the device and appends them to a file in chunks.

    Reading a value makes the host wait for everything queued before it, so that happens once per
    chunk, for all values together.

    Args:
        path: The file to append to. None writes nothing: processes other than the first collect
            only so that all of them stop at the same iteration if a loss is not finite.
        listeners: Called with every chunk of lines that was written.
    """

    def __init__(
        self, path: Path | None, listeners: tuple[Callable[[list[Line]], None], ...] = ()
    ) -> None:
        self.path, self.listeners = path, listeners
        self._plain: list[dict[str, float]] = []
        self._tensors: list[dict[str, dict[str, Tensor]]] = []
        self.latest: dict[str, Any] = {}

    def add(self, plain: dict[str, float], tensors: dict[str, dict[str, Tensor]]) -> None:
        """Add an iteration: plain numbers, and 0-dim tensors by quantity and task."""
        self._plain.append(plain)
        self._tensors.append(tensors)
        if len(self._plain) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write what was collected.

        Raises:
            NonFiniteLossError: If a value is not finite; it names the iteration and the task.
        """
        values = self._read_all()
        lines = []
        for plain, tensors in zip(self._plain, self._tensors, strict=True):
            line: dict[str, Any] = dict(plain)
            for quantity, by_task in tensors.items():
                line[quantity] = {task: next(values) for task in by_task}
            count = line.pop("num_labelled")
            _check_finite(line, count)
            # Without labels there is no loss, and 0 would look like a perfect one.
            line["loss"] = {t: v if count[t] else None for t, v in line["loss"].items()}
            lines.append({key: _without_nan(value) for key, value in line.items()})
        if not lines:
            return
        if self.path is not None:
            append_lines(self.path, lines)
        # Cleared only now: if the above has raised, a later call sees these values again.
        self._plain, self._tensors = [], []
        self.latest = lines[-1]
        for listener in self.listeners:
            listener(lines)

    def _read_all(self) -> Any:
        scalars = [
            tensor.detach().float()
            for tensors in self._tensors
            for by_task in tensors.values()
            for tensor in by_task.values()
        ]
        if not scalars:
            return iter(())
        device = max((s.device for s in scalars), key=lambda d: d.type != "cpu")
        return iter(torch.stack([s.to(device) for s in scalars]).tolist())


def append_lines(path: Path, lines: list[Line]) -> None:
    """Append all of these lines to a log, or none of them."""
    before = path.stat().st_size if path.exists() else 0
    try:
        with named_in_errors(path), path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    except OSError:  # such as a full disk, after a part of the lines was written
        with suppress(OSError):
            os.truncate(path, before)
        raise


class LogLine(TypedDict):
    """What a line of any log has, beside its figures."""

    iteration: Count


def training_line(config: TrainConfig) -> Any:
    """Return the type of what is read of a line of a run's metrics.jsonl."""
    # Dataclasses, as a line should have every task of the run, and no others.
    by_task = make_dataclass("ByTask", [(task, NotNegative | None) for task in config.tasks])
    sigmas: Any = make_dataclass("Sigmas", [(task, Positive | None) for task in config.tasks])
    if not are_learned(config.weighting):
        sigmas = dict[str, Any]  # nobody reads them
    fields = {"iteration": Count, "loss": by_task, "weight": by_task, "sigma": sigmas}
    return TypedDict("TrainingLine", fields)  # type: ignore[operator]


def read_log(path: Path) -> list[Line]:
    """Return all lines that are whole; a killed run may have left half of one."""
    return read_lines(path, LogLine)


def cut_log(path: Path, iterations: int) -> None:
    """Drop what was logged after the checkpoint that training goes on from."""
    kept = [line for line in read_log(path) if line["iteration"] < iterations]
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))


def _without_nan(value: Any) -> Any:
    """Return a quantity by task with None, JSON's null, where it has no value."""
    if not isinstance(value, dict):
        return value
    return {task: None if v is not None and math.isnan(v) else v for task, v in value.items()}


def _check_finite(line: dict[str, Any], num_labelled: dict[str, float]) -> None:
    for quantity in ("loss", "nll", "sigma"):
        for task, value in line[quantity].items():
            # A predicted sigma is a mean over labelled pixels.
            is_absent = quantity == "sigma" and not num_labelled[task]
            if not (math.isfinite(value) or is_absent):
                raise NonFiniteLossError(
                    f"iteration {line['iteration']}: the {quantity} of task {task!r} is {value}; "
                    "try a lower --learning-rate",
                    line["iteration"],
                )
    # Even if all losses are finite, a gradient may not be, and would spoil the weights.
    for norm in line.get("gradient_norm", {}).values():
        if not math.isfinite(norm):
            raise NonFiniteLossError(
                f"iteration {line['iteration']}: the norm of the gradient is {norm}, though every "
                "loss is finite; try a lower --learning-rate",
                line["iteration"],
            )
