"""Applies a tuning profile to this process, as far as the host permits it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from byteor.engine.canonical import Json

from .configuration import AgentRuntimeConfig

_ISOLATED = Path("/sys/devices/system/cpu/isolated")


def isolate_cpu(isolated: Path = _ISOLATED) -> int:
    """Move this thread to the first isolated CPU and return the CPU's number. Raises OSError if that is impossible."""
    first = isolated.read_text().strip().partition(",")[0].partition("-")[0]
    if not first:
        raise OSError("this host has no isolated CPU")
    os.sched_setaffinity(0, {int(first)})
    return int(first)


def tune(config: AgentRuntimeConfig, isolate: Callable[[], int] = isolate_cpu) -> Json:
    """Apply the profile. Return the report's ``tuning``: the profile, and the applied, degraded and failed settings."""
    applied: Json = {"wait": config.wait}
    degraded: list[Json] = []
    if config.tuning_profile == "isolated-core":
        try:
            applied["cpu"] = isolate()
        except OSError as error:
            degraded.append({"setting": "cpu", "reason": str(error)})
    return {"profile": config.tuning_profile, "applied": applied, "degraded": degraded, "failed": []}
