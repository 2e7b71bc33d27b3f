"""Tests that kill processes. They share a server, which pytest stops after the last test of this package."""
