"""Hides rich from the processes that tests start, as in production.

Only import-linter depends on it. structlog imports it where it is installed, which takes a tenth of a process's start.
"""

raise ImportError("rich is not a dependency of the service")
