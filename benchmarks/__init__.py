"""Benchmarks, which measure every claim about cost and quality against a peer in the same run."""
