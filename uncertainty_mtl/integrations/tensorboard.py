"""Sigmas, weights and losses as TensorBoard scalars."""

from torch.utils.tensorboard import SummaryWriter

from uncertainty_mtl.history import Row, SigmaHistory


def log_to_tensorboard(
    history: SigmaHistory, writer: SummaryWriter, prefix: str = "uncertainty"
) -> None:
    """Write every row that ``history`` reads from now on as scalars ``prefix/field/task``.

    Args:
        history: The record; it decides how often something is written.
        writer: A :class:`torch.utils.tensorboard.SummaryWriter`.
        prefix: Folder of the scalars.
    """

    def write(rows: list[Row]) -> None:
        for row in rows:
            for field in ("sigma", "weight", "base_loss", "nll"):
                tag = f"{prefix}/{field}/{row.task}"
                writer.add_scalar(tag, getattr(row, field), row.step)

    history.listeners.append(write)
