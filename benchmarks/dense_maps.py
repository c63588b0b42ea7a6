"""Cost of the heads on dense maps, against indexing by a mask and PyTorch's losses."""

from benchmarks.map_cases import cases
from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.timing import WARM_UP, take_turns


def run(settings: Settings) -> Report:
    """Measure every kind of loss and every shape."""
    rounds, seconds = settings.repeats or settings.choose(40, 7, 2), settings.choose(2e-2, 1e-2, 0)
    rows = []
    for case in cases(settings):
        steps = {name: case.step(loss) for name, loss in case.losses.items()}
        timings = take_turns(steps, settings, rounds=rounds, seconds=seconds)
        for name, peer in case.pairs:
            times = timings.per_call(name), timings.per_call(peer)
            rows.append([case.title, name, peer, timings.ratio(name, peer), *times])
    about = (
        "Forward and backward to the prediction. 80% of the pixels are valid, and masks have the "
        "prediction's shape. Indexing by the mask is `F.l1_loss(p[m], t[m])`. The loss on the "
        f"whole map, without a mask, shows what a mask costs. Medians of {rounds} paired rounds "
        f"with the range of the middle 80%, after {WARM_UP} calls to warm up. Before, candidates "
        "and peers were checked to have the same gradient up to a factor."
    )
    columns = ["loss", "candidate", "peer", "ratio", "candidate, per call", "peer, per call"]
    return Report("Heads on dense maps", about, [Table("Time", columns, rows)])
