"""Peak memory of every head, forward and backward, as a multiple of the prediction's size."""

from benchmarks.map_cases import Case, cases
from benchmarks.peak_memory import peak_bytes
from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings

THREADS = 1


def run(settings: Settings) -> Report:
    """Measure every head and its peers."""
    rows = [row for case in cases(settings) for row in rows_of(case)]
    about = (
        "The most bytes that were allocated at once during forward and backward, above what was "
        "there before (prediction, target and mask), divided by the bytes of the prediction. 1 is "
        "the least: the gradient of the prediction. Allocations within operations count. Bytes "
        "are counted, not timed: there is no spread. Each was called once before."
    )
    columns = ["loss", "candidate", "peak / prediction", "peak"]
    return Report("Peak memory of the heads", about, [Table("Peaks", columns, rows)])


def rows_of(case: Case) -> list[list[object]]:
    """Return the peak of each candidate."""
    size = case.prediction.numel() * case.prediction.element_size()
    rows: list[list[object]] = []
    for name, loss in case.losses.items():
        call = case.step(loss)
        call()
        peak = peak_bytes(call, case.prediction.device)
        rows.append([case.title, name, f"{peak / size:.2f}", f"{peak / 2**20:.3g} MiB"])
    return rows
