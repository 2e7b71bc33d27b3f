"""The functions that run this app's jobs."""

from __future__ import annotations

from apps.fleet.jobs import FORGET_CREDENTIALS, FORGET_HISTORY, SETTLE_FACTS
from apps.fleet.services import agents, facts, history
from byteor_cloud.worker.jobs import runs_periodically


@runs_periodically(FORGET_CREDENTIALS)
def forget_credentials() -> None:
    """Delete enrollment tokens and agent keys that expired or were revoked long ago."""
    agents.forget_credentials()


@runs_periodically(FORGET_HISTORY)
def forget_history() -> None:
    """Delete intervals that ended long ago."""
    history.forget_history()


@runs_periodically(SETTLE_FACTS)
def settle() -> None:
    """Bring the facts of all environments up to date."""
    facts.maintain()
