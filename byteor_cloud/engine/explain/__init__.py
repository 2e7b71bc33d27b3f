"""Pure functions that explain why an agent runs its current bundle, and what happens next."""

from byteor_cloud.engine.explain.explanation import explain

__all__ = ["explain"]
