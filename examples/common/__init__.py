"""What both examples need: errors in one line, checkpoints, atomic writes, devices."""
