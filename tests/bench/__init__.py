"""Benchmarks, run by ``make bench``. Compare ratios within one run, since absolute figures vary between machines."""
