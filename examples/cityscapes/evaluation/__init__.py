"""How good a run is: its metrics, the baselines, and the official scripts."""
