"""Measures the memory that a call needs at its peak, beyond what was allocated before it."""

import json
import os
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """Return the most bytes that were allocated at once during a call, above those before it.

    Memory that was allocated before and is freed during the call counts as negative. Make the same
    call once before you measure it; otherwise memory that is allocated at first use counts, too. On
    the CPU, the profiler records every allocation by PyTorch, also those inside an operation.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    # The profiler prints every start and stop to stderr, and the absence of a GPU as an error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    # Only the exported trace lists single allocations.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    on_cpu = [e for e in events if e.get("name") == "[memory]" and e["args"]["Device Type"] == 0]
    # The sort is stable: allocations of one microsecond keep the order of their recording.
    on_cpu.sort(key=lambda event: float(event["ts"]))
    return max(accumulate((int(event["args"]["Bytes"]) for event in on_cpu), initial=0))
