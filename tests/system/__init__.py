"""Tests of whole servers. A package, so that the shared one ends when the last of them has run in its process."""
