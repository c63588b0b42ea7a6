"""Tests of the documentation: its code, and its site in a browser."""
