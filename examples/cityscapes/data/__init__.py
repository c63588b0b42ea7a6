"""From the official files to batches."""
