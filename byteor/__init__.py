"""What runs without a server: the engine, the reference agent and the verifier. Imports no Django."""

__version__ = "0.1.0"
