"""Example invocations. Each module's ``examples`` creates the rows that its commands need, and returns arguments."""
