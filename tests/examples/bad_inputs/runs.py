"""Rows about runs, checkpoints and prepared copies."""

from tests.examples.bad_inputs.row import Accepted, Refused

RUNS: list[Refused | Accepted] = []
