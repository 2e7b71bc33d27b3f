"""Reuses pytest fixtures of the engine's replay tests."""

from __future__ import annotations

from tests.engine.replay.conftest import bundle, documents, ring

__all__ = ["bundle", "documents", "ring"]
