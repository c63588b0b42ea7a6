"""Rows about commands and their options."""

from tests.examples.bad_inputs.row import Accepted, Refused

COMMANDS: list[Refused | Accepted] = []
