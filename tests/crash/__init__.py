"""Tests that kill processes or end database sessions.

Some tests share one server, which pytest stops after the last test of this package.
"""
