"""A Lightning callback that records and logs sigmas, weights and losses."""

from itertools import groupby
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from uncertainty_mtl.history import Row, SigmaHistory
from uncertainty_mtl.loss import UncertaintyWeightedLoss
from uncertainty_mtl.result import MultiTaskLoss

_LOGGED = ("sigma", "weight", "nll")


class SigmaCallback(Callback):
    """Records and logs the loss of a ``LightningModule``, and checks the optimizers at the start.

    ``training_step`` has to return the total, and the whole result of the loss:
    ``return {"loss": losses.total, "losses": losses}``.

    Args:
        attribute: Name of the module's attribute that holds the loss.
        csv_path: File to write the record to when training ends; by default none is written.
        flush_every: Number of steps that are read, and logged, at once.
    """

    def __init__(
        self,
        attribute: str = "loss_fn",
        *,
        csv_path: str | Path | None = None,
        flush_every: int = 100,
    ) -> None:
        self.attribute = attribute
        self.csv_path = csv_path
        self.flush_every = flush_every
        self.history: SigmaHistory | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the optimizers train the sigmas, and begin the record."""
        loss_fn = getattr(pl_module, self.attribute)
        if not isinstance(loss_fn, UncertaintyWeightedLoss):
            raise TypeError(
                f"`{self.attribute}` of the module should be an UncertaintyWeightedLoss. Found "
                f"{type(loss_fn).__name__}. Name the right one with `attribute=`."
            )
        loss_fn.check_optimizer(*trainer.optimizers)
        self.history = SigmaHistory(loss_fn, flush_every=self.flush_every)

        def log(rows: list[Row]) -> None:
            for step, of_step in groupby(rows, key=lambda row: row.step):
                fields = [(f"{f}/{r.task}", getattr(r, f)) for r in of_step for f in _LOGGED]
                for logger in trainer.loggers:
                    logger.log_metrics(dict(fields), step=step)

        self.history.listeners.append(log)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the step, unless ``training_step`` has skipped it by returning None."""
        if not outputs:
            return
        losses = outputs.get("losses") if isinstance(outputs, dict) else None
        if not isinstance(losses, MultiTaskLoss):
            raise TypeError(
                "`training_step` should return {'loss': losses.total, 'losses': losses}. Found "
                f"{type(losses).__name__} under 'losses'."
            )
        if self.history is not None:
            self.history.record(trainer.global_step, losses)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the pending values, and write the record."""
        if self.history is not None:
            self.history.flush()
            if self.csv_path is not None and trainer.is_global_zero:
                self.history.to_csv(self.csv_path)
