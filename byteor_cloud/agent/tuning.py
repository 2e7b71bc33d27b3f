"""What a tuning profile asks of the machine, and how much of it this machine gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from byteor_cloud.engine.delivery.encoding import Json

from .configuration import RuntimeConfig

_ISOLATED = Path("/sys/devices/system/cpu/isolated")


def isolate_cpu(isolated: Path = _ISOLATED) -> int:
    """Move this process to the first isolated CPU; an ``OSError`` says why it can't."""
    first = isolated.read_text().strip().partition(",")[0].partition("-")[0]
    if not first:
        raise OSError("no CPU of this machine is isolated")
    os.sched_setaffinity(0, {int(first)})
    return int(first)


def tune(config: RuntimeConfig, isolate: Callable[[], int] = isolate_cpu) -> Json:
    """Apply a profile as far as it goes, and return the report's ``tuning``."""
    applied: Json = {"wait": config.wait}
    degraded: list[Json] = []
    if config.tuning_profile == "isolated-core":
        try:
            applied["cpu"] = isolate()
        except OSError as error:
            degraded.append({"setting": "cpu", "reason": str(error)})
    return {"profile": config.tuning_profile, "applied": applied, "degraded": degraded, "failed": []}
