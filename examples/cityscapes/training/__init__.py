"""Training: the loop, the losses, the log."""
