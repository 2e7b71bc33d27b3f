"""Hides rich from the processes that tests start.

structlog imports rich if it is installed, which slows down the start of a process.
"""

raise ImportError("rich is hidden from the processes that tests start")
