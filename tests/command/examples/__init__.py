"""Example invocations: one module for each module of commands, whose function ``examples`` first fills a world."""
