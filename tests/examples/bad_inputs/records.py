"""Rows about settings and logs."""

from tests.examples.bad_inputs.row import Accepted, Refused

RECORDS: list[Refused | Accepted] = []
