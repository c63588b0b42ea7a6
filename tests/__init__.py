"""Tests of the library; `tests.examples` holds those of the examples."""
