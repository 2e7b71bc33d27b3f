"""Pure domain logic: no Django, clock or randomness, and no I/O except on files and streams that a caller passes."""
