"""Phrases that several sentences share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from byteor.engine.explain.facts import Facts


def at(moment: datetime | None) -> str:
    """Format a time to the second, or None as an unknown time."""
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def because(reason: str) -> str:
    """Return the reason as the end of a sentence, or an empty string if there is none."""
    return f": {reason.rstrip('.')}" if reason else ""


def format_labels(labels: Mapping[str, str]) -> str:
    """Format labels as a selector."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def running_label(facts: Facts) -> str:
    """Return a name or phrase for the bundle that the agent reported as running, or ``nothing`` if there is none."""
    running = facts.agent.running
    return "nothing" if running is None else facts.label(running.deployment, running.bundle_hash)
