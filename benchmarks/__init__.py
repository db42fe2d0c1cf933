"""Benchmarks: `python -m benchmarks.NAME` writes a table, `pytest benchmarks` times a few."""
