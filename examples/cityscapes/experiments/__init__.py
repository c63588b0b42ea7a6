"""The experiments as commands: the paper's table 1, figure 2 and starts of sigma; two tasks."""
