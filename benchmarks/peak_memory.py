"""How much memory a call needs at its peak, beyond what is there before it."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: torch.device | None = None) -> int:
    """Return the most bytes that were allocated at once during a call, above those before it.

    What was allocated before and is freed meanwhile counts as negative. Call it once before, or
    what is allocated at first use counts, too. On the CPU all of PyTorch's allocations count,
    those within an operation included: the profiler hears of them from the allocator itself. The
    system's count of resident pages would also tell what the process has freed and not returned.

    Args:
        call: What to measure; its result is kept until the peak is known.
        device: Whose memory; the CPU's by default.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # It announces every start and stop on stderr, and the absence of a GPU as an error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    live = peak = 0
    for change in _allocations(recorded):
        live += change
        peak = max(peak, live)
    return peak


def _allocations(recorded: profile) -> list[int]:
    """Return the changes of allocated bytes on the CPU in order of time."""
    # The exported trace is the one documented place that lists single allocations.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [
        (float(event["ts"]), int(event["args"]["Bytes"]))
        for event in events
        if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0
    ]
    # Stable: allocations of one microsecond stay in the order they were recorded in.
    return [size for _, size in sorted(changes, key=lambda change: change[0])]
