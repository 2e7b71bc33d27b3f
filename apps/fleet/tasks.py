"""The functions that run this app's periodic jobs."""

from __future__ import annotations

from apps.fleet.jobs import DELETE_OLD_CREDENTIALS, DELETE_OLD_HISTORY, SETTLE_FACTS, WRITE_SERIES
from apps.fleet.services import facts, history, keys, refused_agents, series
from byteor_cloud.worker.jobs import runs_periodically


@runs_periodically(DELETE_OLD_CREDENTIALS)
def delete_old_credentials() -> None:
    """Delete enrollment tokens and agent keys that expired or were revoked more than 90 days ago.

    Also deletes the ``RefusedAgent`` rows whose agents have not been refused for 30 days.
    """
    keys.delete_old_credentials()
    refused_agents.delete_old_refused()


@runs_periodically(DELETE_OLD_HISTORY)
def delete_old_history() -> None:
    """Delete running intervals that ended more than a year ago, and days of series that are older than 90 days."""
    history.delete_old_history()
    series.delete_old_series()


@runs_periodically(SETTLE_FACTS)
def settle() -> None:
    """Bring the facts of all environments up to date, and sum up the changes of their counts."""
    facts.maintain()


@runs_periodically(WRITE_SERIES)
def write_series() -> None:
    """Move the ended slots from the agents' heartbeats into the series."""
    series.write_closed_slots()
