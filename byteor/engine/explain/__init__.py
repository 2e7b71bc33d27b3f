"""Pure functions that explain why an agent runs its current bundle, and what will happen next."""

from byteor.engine.explain.explanation import explain

__all__ = ["explain"]
