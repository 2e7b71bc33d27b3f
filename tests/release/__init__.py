"""The program of ``make release``, and the tests of ``make release-check``, which take minutes."""
