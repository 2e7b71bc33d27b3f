"""Tests that kill processes. Some tests share one server, which pytest stops after the last test of this package."""
