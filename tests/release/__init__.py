"""Tests of releases, which take minutes. ``make release-check`` runs them."""
