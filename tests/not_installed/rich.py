"""Hides rich from the processes that tests start, as in production.

Only import-linter depends on rich. structlog imports rich if it is installed, which slows down the start of a process.
"""

raise ImportError("rich is not a dependency of the service")
