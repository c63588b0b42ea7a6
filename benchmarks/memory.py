"""Peak memory of every head, forward and backward, as a multiple of the prediction's size."""

from torch import Tensor

from benchmarks.dense_maps import LARGE_LOGITS, PEERS, SMALL, SMALL_LOGITS, SOFTMAX, make_case
from benchmarks.maps import Case, Loss, check_they_agree, step
from benchmarks.peak_memory import peak_bytes
from benchmarks.results import Goal, Report, Table
from benchmarks.settings import Settings

THREADS = None


def run(settings: Settings) -> Report:
    """Measure every head and its peers."""
    maps = settings.choose(((2, 1, 1024, 2048), SMALL), (SMALL,), ((2, 2, 16, 32),))
    logits = settings.choose((LARGE_LOGITS, SMALL_LOGITS), (SMALL_LOGITS,), ((2, 5, 16, 32),))
    shapes = [(kind, shape) for kind in ("L1", "MSE") for shape in maps]
    lines, goals = [], []
    shapes += [(kind, shape) for kind in SOFTMAX for shape in logits]
    for kind, shape in shapes:
        case = make_case(kind, shape, settings)
        check_they_agree(case, PEERS[kind][1])
        multiples = {
            name: peak_multiple(loss, case.prediction) for name, loss in case.losses.items()
        }
        lines += rows(case, multiples)
        if kind in SOFTMAX:
            share = multiples["ours, exact"] / multiples["F.cross_entropy"]
            goals.append(Goal(f"{case.title}: ours, exact, over F.cross_entropy", 0.5, share))
    about = (
        "The most bytes that were allocated at once during forward and backward, above what was "
        "there before (prediction, target and mask), divided by the bytes of the prediction. 1 is "
        "the least: the gradient of the prediction. Allocations within operations count. Bytes "
        "are counted, not timed: there is no spread. Each was called once before."
    )
    columns = ["loss", "candidate", "peak / prediction", "over the plain loss", "peak"]
    return Report("Peak memory of the heads", about, [Table("Peaks", columns, lines)], goals)


def peak_multiple(loss: Loss, prediction: Tensor) -> float:
    """Return the peak of forward and backward as a multiple of the prediction's bytes."""
    call = step(loss, prediction)
    call()
    bytes_of_prediction = prediction.numel() * prediction.element_size()
    return peak_bytes(call, prediction.device) / bytes_of_prediction


def rows(case: Case, multiples: dict[str, float]) -> list[list[object]]:
    """Return a row for each candidate."""
    floor = multiples[PEERS[case.kind][0]]
    size = case.prediction.numel() * case.prediction.element_size()
    return [
        [case.title, name, f"{m:.2f}", f"{m / floor:.2f}", f"{m * size / 2**20:.3g} MiB"]
        for name, m in multiples.items()
    ]
