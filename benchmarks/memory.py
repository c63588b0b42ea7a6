"""Peak memory of every head, forward and backward, as a multiple of the prediction's size."""

from benchmarks.map_cases import cases
from benchmarks.peak_memory import peak_bytes
from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings


def run(settings: Settings) -> Report:
    """Measure every head and its peers."""
    rows = []
    for case in cases(settings):
        size = case.prediction.numel() * case.prediction.element_size()
        for name, loss in case.losses.items():
            call = case.step(loss)
            call()
            peak = peak_bytes(call, settings.device.type)
            rows.append([case.title, name, f"{peak / size:.2f}", f"{peak / 2**20:.3g} MiB"])
    about = (
        "The most bytes that were allocated at once during forward and backward, beyond what was "
        "there before (prediction, target and mask), divided by the bytes of the prediction. The "
        "least possible is 1, for the gradient of the prediction. Allocations inside operations "
        "count. Each loss was called once before. There is no spread, because a repeated call "
        "allocates the same."
    )
    columns = ["loss", "candidate", "peak / prediction", "peak"]
    return Report("Peak memory of the heads", about, [Table("Peaks", columns, rows)])
