"""The engine, the reference agent and the offline verifier. None of them imports Django."""

__version__ = "0.1.0"
