"""Why an agent runs what it runs, and what happens next: facts in, findings out. Pure."""

from byteor_cloud.engine.explain.explanation import explain

__all__ = ["explain"]
