"""Sigmas, weights and losses as TensorBoard scalars."""

from torch.utils.tensorboard import SummaryWriter

from uncertainty_mtl.history import Row, SigmaHistory


def log_to_tensorboard(
    history: SigmaHistory, writer: SummaryWriter, prefix: str = "uncertainty"
) -> None:
    """Show sigmas, weights and losses in TensorBoard, as scalars ``prefix/field/task``.

    Call it once: every row that ``history`` reads from then on is written.

    Args:
        history: The record. Its ``flush_every`` decides how often rows are written.
        writer: A :class:`torch.utils.tensorboard.SummaryWriter`.
        prefix: First part of the names of the scalars.
    """

    def write(rows: list[Row]) -> None:
        for row in rows:
            for field in ("sigma", "weight", "base_loss", "nll"):
                tag = f"{prefix}/{field}/{row.task}"
                writer.add_scalar(tag, getattr(row, field), row.step)

    history.listeners.append(write)
