"""Words that several sentences share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from byteor_cloud.engine.explain.facts import Facts


def at(moment: datetime | None) -> str:
    """A time, to the second."""
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def because(reason: str) -> str:
    """What somebody said, at the end of a sentence; nothing when nobody did."""
    return f": {reason.rstrip('.')}" if reason else ""


def joined(labels: Mapping[str, str]) -> str:
    """Labels, as a selector is written."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def what_runs(facts: Facts) -> str:
    """What the agent says that it runs."""
    running = facts.agent.running
    return "nothing" if running is None else facts.label(running.deployment, running.bundle_hash)
