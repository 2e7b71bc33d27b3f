"""Tests of whole servers. Some share one, which pytest stops after the last test of this package."""
