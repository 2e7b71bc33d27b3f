"""The processes run what the engine's tests of replays build."""

from __future__ import annotations

from tests.engine.replay.conftest import bundle, documents, ring

__all__ = ["bundle", "documents", "ring"]
