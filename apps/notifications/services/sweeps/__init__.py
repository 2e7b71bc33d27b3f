"""Sweeps record the events that are caused by the passage of time, such as credentials that expire soon.

Sweeps may run concurrently and may be killed at any point. Each event is recorded once, because it has a unique key or
is inserted in the same transaction as its ``NotifiedState``.
"""
