"""Tests of releases, which take minutes by nature. ``make release-check`` runs them."""
