"""Benchmarks: ``make bench``. Ratios within one run count; absolute figures drift between machines."""
