"""Tests of whole servers. Some tests share one server, which pytest stops after the last test of this package."""
