"""Sweeps note the events that only time causes, such as agents that went offline and credentials that expire soon.

Sweeps may run concurrently, and be killed at any point. Events have keys, or are noted in the same transaction as their
``ToldState``, so each is noted once.
"""
