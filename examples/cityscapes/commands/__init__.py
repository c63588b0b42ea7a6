"""The commands that put the other packages together: demo, export, predict."""
