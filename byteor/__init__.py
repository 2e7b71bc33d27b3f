"""The engine, reference agent, offline verifier, API client and command line. None of them imports Django."""

__version__ = "0.1.0"
