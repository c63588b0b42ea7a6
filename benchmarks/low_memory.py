"""Peak memory and time of the cross-entropy in chunks, against PyTorch's on the whole map."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.map_cases import CROSS_ENTROPY, IGNORE_INDEX, VALID, Loss
from benchmarks.peak_memory import peak_bytes
from benchmarks.result_file import Goal, Report, Table
from benchmarks.run_settings import Settings
from benchmarks.timing import duration, forward_backward, take_turns
from uncertainty_mtl.chunks import cross_entropy_in_chunks

THREADS = 1
CHUNKS = "in chunks"
CASES: tuple[tuple[torch.dtype, dict[str, float]], ...] = (
    (torch.float32, {}),
    (torch.float32, {"label_smoothing": 0.1}),
    (torch.bfloat16, {}),
)


def run(settings: Settings) -> Report:
    """Measure forward and backward for each dtype, with and without label smoothing."""
    shape = settings.choose((2, 19, 512, 1024), (2, 19, 256, 512), (2, 5, 16, 32))
    rounds = settings.rounds(40, 7)
    rows, goals = [], []
    for dtype, options in CASES:
        title = " ".join([str(dtype).removeprefix("torch."), *options])
        calls, logits = candidates(shape, dtype, options, settings)
        peaks = {name: peak_bytes(call, settings.device) for name, call in calls.items()}
        timings = take_turns(
            calls,
            rounds=rounds,
            seed=settings.seed,
            min_seconds=settings.choose(2e-2, 1e-2, 0.0),
            synchronize=settings.synchronize,
        )
        memory, time = peaks[CHUNKS] / peaks[CROSS_ENTROPY], timings.ratio(CHUNKS, CROSS_ENTROPY)
        size = logits.numel() * logits.element_size()
        in_logits = [f"{peaks[name] / size:.2f}" for name in (CHUNKS, CROSS_ENTROPY)]
        seconds = [duration(timings.median(name)) for name in (CHUNKS, CROSS_ENTROPY)]
        rows.append([title, f"{memory:.2f}", *in_logits, time, *seconds])
        goals += [
            Goal(f"{title}: peak memory over {CROSS_ENTROPY}", 0.5, memory),
            Goal(f"{title}: time over {CROSS_ENTROPY}", 1.1, time.median),
        ]
    about = (
        f"Forward and backward of the summed cross-entropy of logits {shape}, 80% of which have a "
        f"label. The peer is `{CROSS_ENTROPY}` on the whole map, of float32 logits in the case of "
        "half precision. A peak is the most bytes that were allocated at once, above what was "
        "there before, and is given in multiples of the logits' bytes; 1 is the gradient. Times "
        f"are medians of {rounds} paired rounds with the range of the middle 80%, after three "
        "calls. The gradients of both were compared before."
    )
    if settings.effort != "full":
        goals = []  # They are about this size; on small maps the calls cost more than they save.
    columns = ["logits", "peak ratio", f"peak {CHUNKS}", f"peak of {CROSS_ENTROPY}", "time ratio"]
    columns += [f"time {CHUNKS}", f"time of {CROSS_ENTROPY}"]
    note = (
        "With two or more threads, set `OMP_WAIT_POLICY=passive` unless every thread has a core of "
        "its own. Chunks start many short parallel loops, and threads that wait for each other "
        "actively lose a time slice in each of them."
    )
    return Report("Cross-entropy in chunks", about, [Table("Cost", columns, rows)], goals, [note])


def candidates(
    shape: tuple[int, ...], dtype: torch.dtype, options: dict[str, float], settings: Settings
) -> tuple[dict[str, Callable[[], None]], Tensor]:
    """Return both as calls, and the logits; raise unless they have the same gradient."""
    generator = torch.Generator().manual_seed(settings.seed)
    logits = torch.randn(shape, generator=generator).to(settings.device, dtype).requires_grad_()
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) >= VALID] = IGNORE_INDEX
    labels = labels.to(settings.device)
    given = {"ignore_index": IGNORE_INDEX, **options}

    def whole(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, reduction="sum", **given)

    losses: dict[str, Loss] = {
        CHUNKS: lambda logits: cross_entropy_in_chunks(logits, labels, **given),
        CROSS_ENTROPY: whole,
    }
    gradients = [torch.autograd.grad(loss(logits), logits)[0] for loss in losses.values()]
    torch.testing.assert_close(*gradients)
    # As a head weighs its loss, the gradient that comes in is not 1.
    return {
        name: forward_backward(lambda loss=loss: 0.3 * loss(logits), [logits])
        for name, loss in losses.items()
    }, logits
