"""Tests that kill processes. A package, so that their server ends when the last of them has run in its process."""
