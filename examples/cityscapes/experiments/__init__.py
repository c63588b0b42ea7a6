"""The experiments of the paper as commands: its table 1, figure 2, and the starts of sigma."""
