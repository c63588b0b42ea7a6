"""Tests beside other libraries: their training loops, metrics and file formats."""
