"""Pure domain logic: no Django, no clock, no randomness, no I/O but what a caller hands in."""
